"""Trainings of an earlier run taken over by a new one, where all that decides weights is equal."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from autosparse.errors import AutosparseError, RunError
from autosparse.storage.files import read_json
from autosparse.storage.paths import writable_folder
from autosparse.train.job import JOB, TrainJob, TrainResult, load_result, save_result, write_job

_LEFT_BEHIND = shutil.ignore_patterns("checkpoint-*", "lock", "*.lock", ".*")


def finished_trainings(folder: Path) -> Mapping[str, Path]:
    """Gives the finished trainings below a folder, by what decides their weights.

    Those of earlier versions, which did not note that, are found by their fingerprints. What cannot be
    read is passed over.
    """
    found: dict[str, Path] = {}
    for record in sorted(folder.glob(f"*/{JOB}")):
        try:
            values = read_json(record)
            if load_result(record.parent) is None:
                continue
        except AutosparseError:
            continue
        for key in ("fingerprint", "training"):
            if isinstance(values, dict) and isinstance(values.get(key), str):
                found[values[key]] = record.parent
    return found


def take(source: Path, job: TrainJob, origin: str) -> TrainResult:
    """Makes a finished training the training of a job; its folder is there whole or not at all.

    Weights are linked where the file system can, as nobody changes such files in place; the rest is
    copied. Tickets that were made after the training come along.

    Args:
        source: folder of the training.
        job: has another folder, and equal `TrainJob.training_id`.
        origin: name of the run that the training is of.

    Returns:
        Its result, which says where it was taken from: from the first run of several in a row.

    Raises:
        RunError: the training is unfinished or damaged.
        OSError: a file cannot be read or written.
    """
    target = Path(job.folder).absolute()
    parent = writable_folder(target.parent, "a folder of trainings")
    nursery = Path(tempfile.mkdtemp(dir=parent, prefix=f".{target.name}-"))
    try:
        nursery.chmod(0o755)
        shutil.copytree(source, nursery, ignore=_LEFT_BEHIND, copy_function=_link, dirs_exist_ok=True)
        result = load_result(nursery)
        if result is None:
            raise RunError(f"a training must be finished to be taken over, but {source} is not")
        result = dataclasses.replace(result, taken_from=result.taken_from or origin)
        write_job(nursery, job)
        save_result(nursery, result)
        shutil.rmtree(target, ignore_errors=True)
        nursery.rename(target)
    finally:
        shutil.rmtree(nursery, ignore_errors=True)
    return dataclasses.replace(result, weights=str(target / Path(result.weights).name))


def _link(source: str, target: str) -> None:
    """Links weights, copies all else: logs are written to in place."""
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copy2(source, target)
