"""Prune a trained module without training: layer by layer, what is kept makes up for what is not."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparse_layers
from autosparse.progress import Progress
from autosparse.reconstruct.choosing import Solution, solve
from autosparse.reconstruct.hessians import Calibration, calibration_batches
from autosparse.reconstruct.inputs import Layer
from autosparse.reconstruct.problem import problem_of
from autosparse.reconstruct.settings import ReconstructionSettings
from autosparse.records import LayerChoice, Record

Batch = Tensor | tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport(Record):
    """How well one layer could be reconstructed.

    Attributes:
        layer: its name.
        label: its pattern and sparsity, such as ``1x16@0.75``.
        masked_error: squared error of its output per position, summed over outputs, by plain masking.
        error: the same of the weights that it got.
        rows: positions that its inputs were seen at.
        seconds: spent on it.
    """

    layer: str
    label: str
    masked_error: float
    error: float
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """What `reconstruct` did.

    Attributes:
        masks: layer name to bool mask of the weight's shape.
        layers: one report per sparse layer, in the order in which they ran.
    """

    masks: Mapping[str, Tensor]
    layers: tuple[LayerReport, ...]


def reconstruct(
    module: nn.Module,
    plan: Plan,
    batches: Iterable[Batch],
    *,
    settings: ReconstructionSettings | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Prunes a module in place as a plan says, and sets what is kept anew; no label is needed.

    Layers follow each other as they run, so that each sees the inputs that pruned ones before it give.
    Batch-norm statistics are those of each batch meanwhile; recompute them afterwards, as the tracked
    ones are those of the dense model still. Should the work end early, layers already done are pruned.

    Args:
        module: any trained module; its mode is as before afterwards.
        plan: pattern and sparsity per layer.
        batches: images of the training split, or pairs of images and labels.
        settings: the defaults if None.
        progress: one unit per layer; asked whether to stop.

    Returns:
        Masks, and how well each layer could be reconstructed.

    Raises:
        DataError: there are no images, or a layer's inputs are not finite.
        PlanError: the plan does not fit the module, or names a layer that does not run.
        UsageError: the damping is too small.
        Stopped: a stop was requested.
    """
    settings, progress = settings or ReconstructionSettings(), progress or Progress()
    choices = {name: (layer, choice) for name, layer, choice in sparse_layers(module, plan)}
    if not choices:
        return Reconstruction({}, ())
    calibration = calibration_of(module, batches, settings, progress)
    calls = calibration.calls(module, {name: layer for name, (layer, _) in choices.items()})
    dense = copy.deepcopy(module) if settings.target == "dense" else None
    masks: dict[str, Tensor] = {}
    reports: list[LayerReport] = []
    with progress.step("reconstruction", len(calls)) as step:
        for name, count in calls.items():
            started = time.perf_counter()
            moments = calibration.collect_one(module, name, count, dense)
            layer, choice = choices[name]
            problem = problem_of(layer.weight, moments, settings.damping)
            found = solve(problem, choice.pattern, [choice.sparsity], settings, step.check)
            solution = found[choice.sparsity]
            masks[name] = put(layer, solution.weight, torch.from_numpy(solution.mask))
            seconds = time.perf_counter() - started
            reports.append(_report(name, choice, solution, moments.rows, seconds))
            step.advance()
    return Reconstruction(masks, tuple(reports))


def calibration_of(
    module: nn.Module,
    batches: Iterable[Batch],
    settings: ReconstructionSettings,
    progress: Progress,
) -> Calibration:
    """Takes the images to look at.

    Raises:
        DataError: there are none.
    """
    images = calibration_batches(module, batches, settings.samples)
    return Calibration(images, settings.positions, settings.seed, progress.check)


@torch.no_grad()
def put(layer: Layer, weight: Tensor, mask: Tensor) -> Tensor:
    """Gives a layer its new weight, and the mask on the layer's device."""
    layer.weight.copy_(weight)
    return mask.to(layer.weight.device)


def _report(
    name: str, choice: LayerChoice, solution: Solution, rows: int, seconds: float
) -> LayerReport:
    return LayerReport(
        layer=name,
        label=choice.label,
        masked_error=solution.masked_error,
        error=solution.error,
        rows=rows,
        seconds=seconds,
    )
