"""Dense weights to start from where the user has none: trained once, kept for good.

    paths.home()/baselines/<key>/    a training folder as `autosparse.train.job` describes it

The key covers everything that decides the weights, so another seed, data set or recipe is another
folder and nothing is ever overwritten.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from autosparse import data
from autosparse.data import ImageData
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import short_hash
from autosparse.storage import paths
from autosparse.train.job import TrainJob, TrainResult, load_result
from autosparse.train.launch import train
from autosparse.train.presets import dense
from autosparse.train.recipes import Recipe

log = logging.getLogger(__name__)


def baseline(
    model: str,
    data_spec: str,
    *,
    resolution: int | None = None,
    channels: int = 3,
    classes: int | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    threads: int | None = None,
    images: ImageData | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Gives a trained dense model, at once if it was trained before.

    Two processes that ask for the same one do not both train it: the second waits. An interrupted
    training goes on at the next call.

    Args:
        model: model source, as `autosparse.models.resolve` takes it.
        data_spec: data set, as `autosparse.data.resolve` takes it.
        resolution: height and width of images, None for the data set's own.
        channels: of the images.
        classes: outputs of the model, None for as many as the data has.
        recipe: None for `presets.dense` at the size of the training split.
        seed: of the data split, the initial weights and, without a recipe, the training.
        threads: torch threads, None to leave them as they are.
        images: what `data.resolve` gives for these arguments, where the caller has it already.
        progress: told of every epoch.

    Returns:
        The weights' path and their accuracies, of kind ``dense``.

    Raises:
        UsageError: the model or data cannot be used.
        TrainingDiverged: the loss is no longer finite.
        Stopped: a stop was requested; the same call resumes.
    """
    job = _job(
        model,
        data_spec,
        resolution=resolution,
        channels=channels,
        classes=classes,
        recipe=recipe,
        seed=seed,
        threads=threads,
        images=images,
    )
    log.info("dense baseline of %s on %s: %s", model, data_spec, job.folder)
    return train(job, progress or Progress())


def find_baseline(
    model: str,
    data_spec: str,
    *,
    resolution: int | None = None,
    channels: int = 3,
    classes: int | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
) -> TrainResult | None:
    """Gives a dense model that `baseline` has trained with these arguments, None without; trains none.

    Raises:
        UsageError: the data cannot be used.
    """
    job = _job(
        model,
        data_spec,
        resolution=resolution,
        channels=channels,
        classes=classes,
        recipe=recipe,
        seed=seed,
    )
    return load_result(Path(job.folder))


def _job(
    model: str,
    data_spec: str,
    *,
    resolution: int | None,
    channels: int,
    classes: int | None,
    recipe: Recipe | None,
    seed: int,
    threads: int | None = None,
    images: ImageData | None = None,
) -> TrainJob:
    """Gives the training of a baseline; its folder's name covers all that decides the weights."""
    if images is None:
        images = data.resolve(data_spec, resolution=resolution, channels=channels, seed=seed)
    job = TrainJob(
        model=model,
        weights=None,
        data=data_spec,
        resolution=resolution,
        channels=channels,
        classes=classes or images.classes,
        plan=Plan(model=model, note="dense baseline"),
        recipe=recipe or dense(len(images.train), seed=seed),
        folder="",
        seed=seed,
        threads=threads,
    )
    key = short_hash([job.fingerprint(), images.id], 16)
    return dataclasses.replace(job, folder=str(paths.home() / "baselines" / key))
