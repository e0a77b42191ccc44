"""Every layer alone, in many patterns and sparsities: weights that plans are stitched from.

One look at the dense model serves all. What layers do to each other is left out, so a stitched model
loses more than one that `reconstruct` prunes layer by layer. But stitching takes no time, and so
thousands of plans can be tried.

Source: Frantar, Singh, Alistarh, "Optimal Brain Compression", arXiv 2208.11580, section 5: a database
of layers from which non-uniform models are stitched.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from autosparse.errors import PlanError
from autosparse.patterns.pattern import Pattern
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import prunable, sparse_layers
from autosparse.progress import Progress, Step
from autosparse.reconstruct.choosing import Solution, solve
from autosparse.reconstruct.inputs import Layer, width
from autosparse.reconstruct.layers import Batch, calibration_of, put
from autosparse.reconstruct.packed import (
    Key,
    Packed,
    PackedFile,
    Unpacked,
    key_of,
    name_of,
    write_packed,
)
from autosparse.reconstruct.problem import Problem, problem_of
from autosparse.reconstruct.settings import ReconstructionSettings
from autosparse.records import LayerChoice, Record, short_hash

log = logging.getLogger(__name__)

# Moments of so many bytes are collected in one pass over the images; more layers take more passes.
_PASS_BYTES = 1 << 30


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

    Keys are a layer's name and a choice's label, such as ``1x16@0.75``. Those made here hold what is
    kept alone, those loaded are read from their file: each is unpacked when it is asked for.

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
            (name, layer, *self._found(name, layer, choice))
            for name, layer, choice in sparse_layers(module, plan)
        ]
        return {name: put(layer, weight, mask) for name, layer, weight, mask in found}

    def _found(self, name: str, layer: Layer, choice: LayerChoice) -> tuple[Tensor, Tensor]:
        key = (name, choice.label)
        if key not in self.weights:
            known = ", ".join(label for of, label in self.weights if of == name) or "none"
            raise PlanError(
                f"a stitched plan may ask only for what was reconstructed, but {name!r} has no "
                f"{choice.label}; it has: {known}"
            )
        weight = self.weights[key]
        if weight.shape != layer.weight.shape:
            raise PlanError(
                f"weights must fit their layer, but {name!r} is {tuple(layer.weight.shape)} and "
                f"{choice.label} is {tuple(weight.shape)}; reconstruct this model's layers"
            )
        return weight, self.masks[key]

    def save(self, path: Path) -> None:
        """Writes all as one safetensors file: kept values, and masks of a bit a weight.

        Raises:
            RunError: the file cannot be written.
        """
        packed = {key: Packed.of(weight, self.masks[key]) for key, weight in self.weights.items()}
        _write(path, packed, self.errors)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Opens what `save` wrote.

        Raises:
            PlanError: the file is missing or damaged, or holds something else.
        """
        packed, errors = _read(path)
        return cls(Unpacked(packed, Packed.weight), Unpacked(packed, Packed.mask), errors)


def _write(path: Path, packed: Mapping[Key, Packed], errors: Mapping[Key, Errors]) -> None:
    told = {name_of(key): value.to_json() for key, value in errors.items()}
    write_packed(path, packed, {"errors": told})


def _read(path: Path) -> tuple[Mapping[Key, Packed], dict[Key, Errors]]:
    file = PackedFile(path)
    return file, {key_of(name): Errors.from_json(told) for name, told in file.told["errors"].items()}


def reconstruct_alone(
    module: nn.Module,
    choices: Mapping[str, Sequence[LayerChoice]],
    batches: Iterable[Batch],
    *,
    settings: ReconstructionSettings | None = None,
    done: Path | None = None,
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
        done: an existing folder that gets a file of every layer that is done, and whose layers are not
            done again; name it by all that decides them. None keeps nothing.
        progress: one unit per layer and pattern; asked whether to stop.

    Raises:
        DataError: there are no images, or a layer's inputs are not finite.
        PlanError: a layer does not exist, does not run, or cannot have a choice.
        RunError: the folder cannot be written.
        UsageError: the damping is too small.
        Stopped: a stop was requested; with the folder, the same call goes on.
    """
    settings, progress = settings or ReconstructionSettings(), progress or Progress()
    wanted = {name: _by_pattern(offered) for name, offered in choices.items()}
    layers = {name: prunable(module, name) for name, patterns in wanted.items() if patterns}
    found = _Found(done)
    if not layers:
        return found.as_alternatives()
    with progress.step("alternatives", sum(map(len, wanted.values()))) as step:
        calibration = calibration_of(module, batches, settings, progress)
        known = [name for name, patterns in wanted.items() if found.recalls(name, patterns)]
        step.advance(sum(len(wanted[name]) for name in known))
        left = {name: layer for name, layer in layers.items() if name not in known}
        for part in _passes(left):
            for name, moments in calibration.collect(module, part).items():
                problem = problem_of(layers[name].weight, moments, settings.damping)
                found.add(name, dict(_solved(name, problem, wanted[name], settings, step)))
    return found.as_alternatives()


class _Found:
    """What layers may become, as far as it is known; in a folder too, if one is named."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._packed: dict[Key, Packed] = {}
        self._errors: dict[Key, Errors] = {}

    def add(self, name: str, solved: Mapping[Key, Solution]) -> None:
        """Adds all of a layer."""
        packed = {k: Packed.of(s.weight, torch.from_numpy(s.mask)) for k, s in solved.items()}
        errors = {k: Errors(masked=s.masked_error, best=s.error) for k, s in solved.items()}
        if self._folder is not None:
            _write(self._file(self._folder, name), packed, errors)
        self._packed |= packed
        self._errors |= errors

    def recalls(self, name: str, patterns: Mapping[Pattern, Sequence[float]]) -> bool:
        """Takes up what an earlier call has added of a layer; says whether that is all of it."""
        if self._folder is None or not (file := self._file(self._folder, name)).exists():
            return False
        try:
            packed, errors = _read(file)
            if packed.keys() != {_key(name, p, value) for p in patterns for value in patterns[p]}:
                return False
            self._packed |= packed
            self._errors |= errors
        except PlanError as error:
            log.warning("layer %s is reconstructed again: %s", name, error)
            return False
        return True

    @staticmethod
    def _file(folder: Path, name: str) -> Path:
        return folder / f"{short_hash(name, 16)}.safetensors"

    def as_alternatives(self) -> Alternatives:
        """Gives all there is."""
        packed = self._packed
        return Alternatives(
            Unpacked(packed, Packed.weight), Unpacked(packed, Packed.mask), self._errors
        )


def _key(name: str, pattern: Pattern, sparsity: float) -> Key:
    return name, LayerChoice(pattern=pattern, sparsity=sparsity).label


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
            yield _key(name, pattern, sparsity), solution
        step.advance()
