"""What becomes of trained weights before a method prunes: filters rearranged, layers reconstructed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import nn

from autosparse.data import ImageData
from autosparse.errors import UsageError
from autosparse.graph.rearrange import Rearrangement, rearrange
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.reconstruct import Reconstruction, ReconstructionSettings, reconstruct
from autosparse.storage.files import write_json
from autosparse.train.evaluate import recalibrate_batchnorm
from autosparse.train.job import TrainJob
from autosparse.train.modes import device_of

FILE = "rearrangement.json"
_BATCH_SIZE = 128
_RECALIBRATION_BATCHES = 16
By = Literal["l1", "kept"]


def prepare(
    module: nn.Module, job: TrainJob, images: ImageData, *, starts: bool = True
) -> Rearrangement | None:
    """Does to trained weights what a job's recipe asks for, in place.

    Args:
        module: holds them.
        job: what is trained.
        images: its data.
        starts: whether training begins with them; only then are they reconstructed.

    Returns:
        The new order of filters, None where there is none.

    Raises:
        UsageError: there are no trained weights.
        RunError: the rearranged module computes something else.
    """
    recipe = job.recipe
    wanted = recipe.rearrange != "none" or recipe.reconstruct
    if wanted and (recipe.from_scratch or job.weights is None):
        raise UsageError(
            "filters are rearranged and layers reconstructed by what trained weights are, but the "
            "training starts from scratch; name weights, or set rearrange to none and reconstruct to "
            "false"
        )
    found = None
    if recipe.rearrange != "none":
        found = rearranged(module, job.plan, images, recipe.rearrange)
    if recipe.reconstruct and starts:
        reconstructed(module, job.plan, images, seed=recipe.seed)
    return found


def rearranged(module: nn.Module, plan: Plan, images: ImageData, by: By) -> Rearrangement:
    """Makes similar filters of a plan's layers neighbours, in place; the function stays.

    Raises:
        RunError: the module would compute something else; it is as it was.
    """
    sample, _ = next(iter(images.validation.batches(2, limit=2)))
    sparse = {name: choice for name, choice in plan.layers.items() if choice.sparsity > 0}
    return rearrange(
        module,
        (sample.to(device_of(module)),),
        {name: choice.pattern for name, choice in sparse.items()},
        by=by,
        sparsity={name: choice.sparsity for name, choice in sparse.items()},
    )


def reconstructed(
    module: nn.Module,
    plan: Plan,
    images: ImageData,
    *,
    seed: int = 0,
    settings: ReconstructionSettings | None = None,
    recalibrate_batches: int = _RECALIBRATION_BATCHES,
    progress: Progress | None = None,
) -> Reconstruction:
    """Prunes a trained module by second-order error, and recomputes batch-norm statistics, in place."""
    settings = settings or ReconstructionSettings(seed=seed)
    device = device_of(module)
    batches = images.train.batches(_BATCH_SIZE, shuffle_seed=seed, limit=settings.samples)
    there = ((shown.to(device), labels) for shown, labels in batches)
    found = reconstruct(module, plan, there, settings=settings, progress=progress)
    recalibrate_batchnorm(
        module,
        images.train,
        batches=recalibrate_batches,
        batch_size=_BATCH_SIZE,
        seed=seed,
    )
    return found


def save_rearrangement(folder: Path, found: Rearrangement | None) -> None:
    """Writes the order of filters beside the weights that have it."""
    if found is not None:
        write_json(folder / FILE, found.to_json())
