"""Every layer alone, in many patterns and sparsities: weights that plans are stitched from.

One look at the dense model serves all. What layers do to each other is left out, so a stitched model
loses more than one that `reconstruct` prunes layer by layer. But stitching takes no time, and so
thousands of plans can be tried.

Source: Frantar, Singh, Alistarh, "Optimal Brain Compression", arXiv 2208.11580, section 5: a database
of layers from which non-uniform models are stitched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from autosparse.errors import PlanError, got
from autosparse.patterns.pattern import Pattern
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import prunable, sparse_layers
from autosparse.progress import Progress, Step
from autosparse.reconstruct.choosing import Solution, solve
from autosparse.reconstruct.inputs import Layer, width
from autosparse.reconstruct.layers import Batch, calibration_of, put
from autosparse.reconstruct.problem import Problem, problem_of
from autosparse.reconstruct.settings import ReconstructionSettings
from autosparse.records import LayerChoice, Record
from autosparse.storage.files import read_bytes, write_bytes

Key = tuple[str, str]

# Moments of so many bytes are collected in one pass over the images; more layers take more passes.
_PASS_BYTES = 1 << 30
_SCHEMA = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors(Record):
    """How well a layer's output can be given back.

    Attributes:
        masked: squared error per position, summed over outputs, by plain masking.
        best: the same of the weights found.
    """

    masked: float
    best: float


@dataclass(frozen=True, slots=True, eq=False)
class Alternatives:
    """What layers may become, ready to be put into a module.

    Keys are a layer's name and a choice's label, such as ``1x16@0.75``.

    Attributes:
        weights: float32 of the layer's shape.
        masks: bool of the same shape; a kept weight may be 0.
        errors: of each.
    """

    weights: Mapping[Key, Tensor]
    masks: Mapping[Key, Tensor]
    errors: Mapping[Key, Errors]

    def stitch(self, module: nn.Module, plan: Plan) -> dict[str, Tensor]:
        """Gives the sparse layers of a plan their weights, in place; recompute batch-norm after.

        Nothing is changed if one of them is not at hand.

        Args:
            module: as it was when these were made, or with other layers stitched.
            plan: pattern and sparsity per layer; layers that it leaves dense are not touched.

        Returns:
            Layer name to bool mask of the weight's shape.

        Raises:
            PlanError: a layer's choice is not at hand, or of another shape.
        """
        found = [
            (name, layer, self._key(name, layer, choice))
            for name, layer, choice in sparse_layers(module, plan)
        ]
        return {name: put(layer, self.weights[key], self.masks[key]) for name, layer, key in found}

    def _key(self, name: str, layer: Layer, choice: LayerChoice) -> Key:
        key = (name, choice.label)
        if key not in self.weights:
            known = ", ".join(label for of, label in self.weights if of == name) or "none"
            raise PlanError(
                f"a stitched plan may ask only for what was reconstructed, but {name!r} has no "
                f"{choice.label}; it has: {known}"
            )
        if self.weights[key].shape != layer.weight.shape:
            raise PlanError(
                f"weights must fit their layer, but {name!r} is {tuple(layer.weight.shape)} and "
                f"{choice.label} is {tuple(self.weights[key].shape)}; reconstruct this model's layers"
            )
        return key

    def save(self, path: Path) -> None:
        """Writes all as one safetensors file.

        Raises:
            RunError: the file cannot be written.
        """
        tensors = {f"{kind}/{name}/{label}": value for kind, (name, label), value in self._tensors()}
        errors = {f"{name}/{label}": value.to_json() for (name, label), value in self.errors.items()}
        metadata = {"schema": _SCHEMA, "errors": json.dumps(errors, sort_keys=True)}
        write_bytes(path, safetensors.torch.save(tensors, metadata=metadata))

    def _tensors(self) -> Iterator[tuple[str, Key, Tensor]]:
        for kind, of in (("weight", self.weights), ("mask", self.masks)):
            for key, value in of.items():
                yield kind, key, value.contiguous()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            PlanError: the file is missing or damaged, or holds something else.
        """
        try:
            tensors = safetensors.torch.load(read_bytes(path))
            with safetensors.safe_open(path, framework="pt") as opened:
                metadata = opened.metadata() or {}
            told = json.loads(metadata["errors"]) if metadata.get("schema") == _SCHEMA else None
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            raise PlanError(f"alternatives must be a readable file, but got {path}: {error}") from None
        keys = {} if told is None else {tuple(key.rsplit("/", 1)): key for key in told}
        if told is None or set(tensors) != {f"{of}/{k}" for k in told for of in ("weight", "mask")}:
            raise PlanError(
                f"alternatives must be what Alternatives.save wrote, but {path} holds "
                f"{got(sorted(tensors))}; make them anew with reconstruct_alone"
            )
        return cls(
            weights={(k[0], k[1]): tensors[f"weight/{text}"] for k, text in keys.items()},
            masks={(k[0], k[1]): tensors[f"mask/{text}"] for k, text in keys.items()},
            errors={(k[0], k[1]): Errors.from_json(told[text]) for k, text in keys.items()},
        )


def reconstruct_alone(
    module: nn.Module,
    choices: Mapping[str, Sequence[LayerChoice]],
    batches: Iterable[Batch],
    *,
    settings: ReconstructionSettings | None = None,
    progress: Progress | None = None,
) -> Alternatives:
    """Reconstructs layers of a dense module, each as if it were the only one pruned.

    The module stays as it is. All sparsities of a pattern come of one elimination, where its units are
    known beforehand.

    Args:
        module: any trained module.
        choices: what each layer may become; dense choices are passed over.
        batches: images of the training split, or pairs of images and labels.
        settings: the defaults if None; a layer's own output is the dense one here.
        progress: one unit per layer and pattern; asked whether to stop.

    Raises:
        DataError: there are no images, or a layer's inputs are not finite.
        PlanError: a layer does not exist, does not run, or cannot have a choice.
        UsageError: the damping is too small.
        Stopped: a stop was requested.
    """
    settings, progress = settings or ReconstructionSettings(), progress or Progress()
    wanted = {name: _by_pattern(offered) for name, offered in choices.items()}
    layers = {name: prunable(module, name) for name, patterns in wanted.items() if patterns}
    found: dict[Key, Solution] = {}
    if not layers:
        return _gathered(found)
    with progress.step("alternatives", sum(map(len, wanted.values()))) as step:
        calibration = calibration_of(module, batches, settings, progress)
        for part in _passes(layers):
            for name, moments in calibration.collect(module, part).items():
                problem = problem_of(layers[name].weight, moments, settings.damping)
                found.update(_solved(name, problem, wanted[name], settings, step))
    return _gathered(found)


def _by_pattern(offered: Iterable[LayerChoice]) -> dict[Pattern, list[float]]:
    patterns: dict[Pattern, list[float]] = {}
    for choice in offered:
        if not choice.pattern.is_dense:
            patterns.setdefault(choice.pattern, []).append(choice.sparsity)
    return patterns


def _passes(layers: Mapping[str, Layer]) -> Iterator[dict[str, Layer]]:
    part: dict[str, Layer] = {}
    size = 0
    for name, layer in layers.items():
        needed = 8 * width(layer) ** 2
        if part and size + needed > _PASS_BYTES:
            yield part
            part, size = {}, 0
        part[name] = layer
        size += needed
    if part:
        yield part


def _solved(
    name: str,
    problem: Problem,
    patterns: Mapping[Pattern, Sequence[float]],
    settings: ReconstructionSettings,
    step: Step,
) -> Iterator[tuple[Key, Solution]]:
    for pattern, sparsities in patterns.items():
        for sparsity, solution in solve(problem, pattern, sparsities, settings, step.check).items():
            yield (name, LayerChoice(pattern=pattern, sparsity=sparsity).label), solution
        step.advance()


def _gathered(found: Mapping[Key, Solution]) -> Alternatives:
    return Alternatives(
        weights={key: solution.weight.float() for key, solution in found.items()},
        masks={key: torch.from_numpy(solution.mask) for key, solution in found.items()},
        errors={
            key: Errors(masked=solution.masked_error, best=solution.error)
            for key, solution in found.items()
        },
    )
