"""Checkpoints that survive a kill at any instant and a damaged file.

A folder holds the newest two states and an index with their hashes. Every file is written under a
temporary name and renamed, the index last, so that the index never names a file that is not whole.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from autosparse.errors import RunError
from autosparse.storage.files import read_json, replacing, write_json

log = logging.getLogger(__name__)

_INDEX = "checkpoints.json"
_KEPT = 2


def _index(folder: Path) -> list[dict[str, Any]]:
    if not (folder / _INDEX).exists():
        return []
    try:
        entries = read_json(folder / _INDEX)
    except RunError as error:
        log.warning("the index of checkpoints in %s is unreadable (%s); starting over", folder, error)
        return []
    return [e for e in entries if {"epoch", "file", "sha256"} <= set(e)]


def save(folder: Path, epoch: int, state: Mapping[str, Any]) -> None:
    """Saves the state after an epoch and drops all but the newest two.

    Args:
        folder: where checkpoints of one run live.
        epoch: the epoch that just ended.
        state: tensors and plain values.
    """
    name = f"checkpoint-{epoch:05d}.pt"
    with replacing(folder / name) as temporary:
        torch.save(dict(state), temporary)
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    older = [entry for entry in _index(folder) if entry["file"] != name]
    entries = [{"epoch": epoch, "file": name, "sha256": digest}, *older][:_KEPT]
    write_json(folder / _INDEX, entries)
    _sweep(folder, {entry["file"] for entry in entries})


def _sweep(folder: Path, kept: set[str]) -> None:
    for path in [*folder.glob("checkpoint-*.pt"), *folder.glob(".checkpoint-*.tmp")]:
        if path.name not in kept:
            path.unlink(missing_ok=True)


def load(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Gives the newest state that is whole, with its epoch; None if there is none.

    A damaged file is reported as a warning and the state before it is taken.
    """
    for entry in _index(folder):
        path = folder / entry["file"]
        try:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                    raise OSError("its content does not match its hash")
            return int(entry["epoch"]), torch.load(path, weights_only=True)
        except OSError as error:
            log.warning("checkpoint %s cannot be used (%s); going back to the one before", path, error)
    return None


def clear(folder: Path) -> None:
    """Removes all checkpoints, once the run's result is safe."""
    (folder / _INDEX).unlink(missing_ok=True)
    _sweep(folder, set())


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Writes tensors as safetensors, whole or not at all."""
    # Clones, because the format refuses tensors that share memory, as tied weights do.
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary)
