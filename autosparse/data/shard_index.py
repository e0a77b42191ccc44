"""Where each image of tar shards lies, found out once: offset, size and label of every sample.

With an index an image is read in any order, so that a pass is shuffled over all shards, is divided
among processes and is resumed at any batch. Shards read one after another with a shuffle buffer would
give none of that without reading again what came before. The price is one look at every header; the
index is kept in ``AUTOSPARSE_HOME`` until name, size or time of a shard changes.

A sample is what members have in common up to the first dot of their file name: an image (``.jpg`` and
others), and its label as text (``.cls``) or as ``label`` of a JSON object (``.json``). Other members
are passed over.
"""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from autosparse.data.decode import SUFFIXES
from autosparse.data.samples import Listing, Names
from autosparse.errors import DataError
from autosparse.progress import Progress
from autosparse.records import short_hash
from autosparse.storage.files import opened, replacing
from autosparse.storage.paths import home

NO_LABEL = -1
_BLOCK_BYTES = 512  # of a tar file
_LONGEST_LABEL_BYTES = 1 << 20
_ARRAYS = ("packed", "ends", "shard", "offset", "size", "labels")


@dataclass(slots=True)
class _Found:
    """Samples in the order in which they were found."""

    members: list[str] = field(default_factory=list)
    shard: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


def index(folder: Path, shards: Sequence[str], progress: Progress) -> Listing:
    """Gives where the images of some shards lie; labels that are missing or no number are `NO_LABEL`.

    Args:
        folder: where the shards are.
        shards: their names.
        progress: told of every shard.

    Raises:
        DataError: a shard is unreadable, truncated, or no tar file.
        RunError: ``AUTOSPARSE_HOME`` cannot be written.
    """
    kept = home() / "shards" / f"{_key(folder, shards)}.npz"
    arrays = _load(kept)
    if arrays is None:
        arrays = _arrays(_scanned(folder, shards, progress))
        with replacing(kept) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
    return Listing(
        root=folder,
        files=Names.of(shards),
        members=Names(packed=arrays["packed"], ends=arrays["ends"]),
        file=arrays["shard"],
        offset=arrays["offset"],
        size=arrays["size"],
        labels=arrays["labels"],
    )


def check_shard(path: Path) -> None:
    """Refuses a file that does not begin as a tar file does.

    Raises:
        DataError: it does not, or cannot be read.
    """
    try:
        with opened(path) as stream, tarfile.open(fileobj=stream, mode="r:"):
            pass
    except (OSError, tarfile.TarError) as problem:
        raise _damaged(path, problem) from None


def _key(folder: Path, shards: Sequence[str]) -> str:
    found = []
    for shard in shards:
        state = os.stat(folder / shard)
        found.append([shard, state.st_size, state.st_mtime_ns])
    return short_hash([str(folder.absolute()), found], 16)


def _load(kept: Path) -> dict[str, npt.NDArray[Any]] | None:
    """Reads a kept index; a damaged one is made again."""
    try:
        with np.load(kept, allow_pickle=False) as stored:
            return {name: stored[name] for name in _ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _scanned(folder: Path, shards: Sequence[str], progress: Progress) -> _Found:
    found = _Found()
    with progress.step("index shards", len(shards)) as step:
        for number, shard in enumerate(shards):
            try:
                with opened(folder / shard) as stream:
                    _scan(stream, number, found)
            except (OSError, tarfile.TarError) as problem:
                raise _damaged(folder / shard, problem) from None
            step.advance()
    return found


def _scan(stream: IO[bytes], number: int, found: _Found) -> None:
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, int] = {}
    with tarfile.open(fileobj=stream, mode="r:") as shard:
        for member in shard:
            parent, name = os.path.split(member.name)
            stem, _, ending = name.partition(".")
            key = f"{parent}/{stem}"
            if not member.isreg():
                continue
            if f".{ending.lower()}" in SUFFIXES:
                images.setdefault(key, (member.name, member.offset_data, member.size))
            elif ending in ("cls", "json") and labels.get(key, NO_LABEL) == NO_LABEL:
                labels[key] = _label(shard, member, ending)
        # Python takes whatever is no header for the end.
        stream.seek(shard.offset)
        if stream.read(_BLOCK_BYTES) != bytes(_BLOCK_BYTES):
            raise tarfile.ReadError(f"no end mark after {shard.offset} bytes")
    for key, (member_name, offset, size) in images.items():
        found.members.append(member_name)
        found.shard.append(number)
        found.offset.append(offset)
        found.size.append(size)
        found.labels.append(labels.get(key, NO_LABEL))


def _label(shard: tarfile.TarFile, member: tarfile.TarInfo, ending: str) -> int:
    content = shard.extractfile(member)
    if content is None or member.size > _LONGEST_LABEL_BYTES:
        return NO_LABEL
    try:
        text = content.read().decode()
        value = json.loads(text)["label"] if ending == "json" else int(text)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return NO_LABEL
    return value if type(value) is int and 0 <= value < 1 << 31 else NO_LABEL


def _arrays(found: _Found) -> dict[str, npt.NDArray[Any]]:
    names = Names.of(found.members)
    columns = {name: getattr(found, name) for name in _ARRAYS[2:]}
    arrays = {name: np.array(values, np.int64) for name, values in columns.items()}
    return {"packed": names.packed, "ends": names.ends, **arrays}


def _damaged(path: Path, problem: Exception) -> DataError:
    told = getattr(problem, "strerror", None) or problem
    return DataError(
        f"a shard must be a complete tar file, uncompressed, but {path} is damaged, truncated or of "
        f"another kind ({told}); fetch it again"
    )
