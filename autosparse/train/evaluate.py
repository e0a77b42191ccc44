"""How good is a module: accuracy, cross-entropy, batch-norm recalibration, and plans without training.

`OneShotEvaluator` is the search's view of accuracy: a record that travels to any process, loads its
model and data there once, and says for every plan what masking alone leaves of the accuracy.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from autosparse import data, factories, graph, models
from autosparse.data import AnySplit, ImageData
from autosparse.errors import DataError
from autosparse.measuring.lock import making_way
from autosparse.models.outputs import logits_of
from autosparse.patterns import Criterion
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparsify
from autosparse.progress import Step
from autosparse.reconstruct import Alternatives
from autosparse.records import (
    Accuracy,
    AccuracyKind,
    AccuracySource,
    Record,
    SplitName,
    short_hash,
)
from autosparse.train.check import memory_format
from autosparse.train.modes import device_of, mode

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score(Record):
    """How a module does on one split.

    Attributes:
        accuracy: fraction of samples whose largest output is right.
        cross_entropy: mean negative log-likelihood in nats; infinite or NaN if the outputs are.
        samples: samples behind both.
        classes: outputs of the module.
    """

    accuracy: float
    cross_entropy: float
    samples: int
    classes: int

    def as_accuracy(
        self,
        kind: AccuracyKind,
        split: SplitName,
        *,
        dtype: str = "f32",
        through: AccuracySource | None = None,
    ) -> Accuracy:
        """Labels the accuracy with how it came about.

        Args:
            kind: how much training is behind it.
            split: what it was evaluated on.
            dtype: arithmetic type of the evaluated module.
            through: what computed it; None is torch, and its emulation where it is not f32.
        """
        return Accuracy(
            value=self.accuracy,
            kind=kind,
            split=split,
            samples=self.samples,
            dtype=dtype,
            through=through or ("torch" if dtype == "f32" else "emulation"),
        )


@torch.no_grad()
def score(
    module: nn.Module,
    split: AnySplit,
    batch_size: int = 256,
    limit: int | None = None,
    step: Step | None = None,
) -> Score:
    """Evaluates a module on a split, in eval mode; the mode it was in comes back.

    Args:
        module: maps images NCHW to logits ``[B, classes]``, as `logits_of` finds them.
        split: what to evaluate on, in its own order.
        batch_size: samples per forward pass.
        limit: at most so many samples, None for all.
        step: moved on by every sample.

    Raises:
        DataError: the split is empty.
        ModelError: the module returns no logits.
        Stopped: a stop was requested of the step.
    """
    right, loss, samples, classes = 0, 0.0, 0, 0
    device = device_of(module)
    with mode(module, training=False):
        for images, labels in split.batches(batch_size, limit=limit):
            with making_way(None if step is None else step.check):
                logits = logits_of(module(images.to(device))).cpu()
            loss += float(functional.cross_entropy(logits.double(), labels, reduction="sum"))
            right += int((logits.argmax(dim=1) == labels).sum())
            samples, classes = samples + len(labels), logits.shape[1]
            if step is not None:
                step.advance(len(labels))
    if not samples:
        raise DataError("accuracy needs at least one sample, but the split is empty")
    return Score(
        accuracy=right / samples, cross_entropy=loss / samples, samples=samples, classes=classes
    )


def computed_in(dtype: str, module: nn.Module, sample: torch.Tensor) -> nn.Module:
    """Gives what computes a module's outputs in a dtype: the module itself for f32, else an emulation.

    Args:
        dtype: ``f32``, ``bf16`` or ``f16``.
        module: maps images NCHW to logits.
        sample: images of the size that it shall be run on.

    Raises:
        ModelError: torch cannot export the module.
        UsageError: the executor lacks an operator of the module, so that it computes in f32 only.
    """
    return _emulated(dtype, module, lambda: graph.Exported(module, (sample,)))


def _emulated(dtype: str, module: nn.Module, export: Callable[[], graph.Exported]) -> nn.Module:
    if dtype == "f32":
        return module
    return graph.Emulation(graph.fuse(export().graph()), dtype)


def accuracy(
    module: nn.Module, split: AnySplit, batch_size: int = 256, limit: int | None = None
) -> float:
    """Gives the fraction of samples that a module classifies correctly; see `score`."""
    return score(module, split, batch_size, limit).accuracy


@torch.no_grad()
def recalibrate_batchnorm(
    module: nn.Module, split: AnySplit, *, batches: int = 4, batch_size: int = 128, seed: int = 0
) -> None:
    """Recomputes running means and variances in place, as the plain average over some batches.

    Pruning shifts the statistics of every later layer; this repairs them without labels and without
    touching a weight. Images are not augmented, all else stays in eval mode, and equal arguments
    give equal statistics.

    Args:
        module: its batch-norm layers that track statistics are reset and filled.
        split: the training split.
        batches: at most so many.
        batch_size: samples per batch.
        seed: decides which samples.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms or batches < 1:
        return
    momenta, device = [norm.momentum for norm in norms], device_of(module)
    with mode(module, training=False):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
            norm.train()
        source = split.batches(batch_size, shuffle_seed=seed, limit=batches * batch_size)
        for images, _ in itertools.islice(source, batches):
            if len(images) > 1:  # one sample has no variance
                with making_way():
                    module(images.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotEvaluator(Record):
    """Accuracy of a plan without training: masks by importance, or layers reconstructed; batch-norm
    recalibration; validation.

    A bf16 plan is evaluated in bf16, by emulation: pruned and recalibrated in float32, then rounded.
    Plain values only, so it travels to worker processes; each loads model and data on first use and
    keeps those of the last evaluator it ran.

    Attributes:
        model: model source, as `autosparse.models.resolve` takes it.
        weights: file of the dense weights, or None for the model's own.
        data: data set, as `autosparse.data.resolve` takes it.
        resolution: height and width of images, None for the data set's own.
        channels: of the images.
        classes: outputs of the model, None for as many as the data has.
        limit: validation samples, None for all.
        recalibration_batches: training batches for batch-norm statistics; 0 leaves them.
        recalibration_batch_size: samples per such batch.
        batch_size: samples per forward pass of the evaluation.
        criterion: importance of a block.
        alternatives: file of layers that were reconstructed alone (`reconstruct.Alternatives`), which
            plans are stitched from; None masks the dense weights.
        threads: torch threads, None to leave them as they are.
        seed: of the data split and of the recalibration samples.
    """

    model: str
    weights: str | None
    data: str
    resolution: int | None = None
    channels: int = 3
    classes: int | None = None
    limit: int | None = None
    recalibration_batches: int = 4
    recalibration_batch_size: int = 128
    batch_size: int = 256
    criterion: Criterion = "l1"
    alternatives: str | None = None
    threads: int | None = None
    seed: int = 0

    def __call__(self, plan: Plan) -> Accuracy:
        """Gives the one-shot validation accuracy of a plan.

        Raises:
            PlanError: the plan does not fit the model.
        """
        return self.score(plan).as_accuracy("one-shot", "validation", dtype=plan.dtype)

    def on_both(self, plan: Plan) -> tuple[Accuracy, Accuracy]:
        """Gives the accuracies of a plan without training on all of validation and test, for reports.

        Raises:
            PlanError: the plan does not fit the model.
        """
        self.pruned(plan)
        bench = _bench(self)
        module = bench.computed_in(plan.dtype)
        validation, test = (
            score(module, split, self.batch_size)
            for split in (bench.images.validation, bench.images.test)
        )
        return (
            validation.as_accuracy("one-shot", "validation", dtype=plan.dtype),
            test.as_accuracy("one-shot", "test", dtype=plan.dtype),
        )

    def open(self, images: ImageData) -> None:
        """Loads the model in this process now, with images that it has read already.

        Args:
            images: what `data.resolve` gives for this evaluator's fields.
        """
        _BENCHES.clear()
        _BENCHES[self] = _Bench(self, images)

    def dense(self, dtype: str = "f32") -> Score:
        """Evaluates the un-pruned model, its batch-norm statistics as they were saved."""
        bench = _bench(self)
        bench.restore()
        return self._evaluated(bench, dtype)

    def reference(self, dtype: str = "f32") -> Score:
        """Evaluates the un-pruned model after the recalibration that every pruned one gets."""
        bench = _bench(self)
        bench.restore()
        self._recalibrate(bench)
        return self._evaluated(bench, dtype)

    def score(self, plan: Plan) -> Score:
        """Gives accuracy and cross-entropy of a plan; the dense weights come back for the next one.

        Raises:
            PlanError: the plan does not fit the model.
        """
        self.pruned(plan)
        return self._evaluated(_bench(self), plan.dtype)

    def pruned(self, plan: Plan) -> nn.Module:
        """Gives the float32 module that `score` evaluates; the next call changes it.

        Raises:
            PlanError: the plan does not fit the model.
        """
        bench = _bench(self)
        bench.restore()
        if self.alternatives is None:
            masks = sparsify(bench.module, plan, criterion=self.criterion)
        else:
            masks = bench.alternatives(self.alternatives).stitch(bench.module, plan)
        if masks:
            self._recalibrate(bench)
        return bench.module

    def _recalibrate(self, bench: _Bench) -> None:
        recalibrate_batchnorm(
            bench.module,
            bench.images.train,
            batches=self.recalibration_batches,
            batch_size=self.recalibration_batch_size,
            seed=self.seed,
        )

    def _evaluated(self, bench: _Bench, dtype: str) -> Score:
        module = bench.computed_in(dtype)
        return score(module, bench.images.validation, self.batch_size, self.limit)

    def fingerprint(self) -> str:
        """Gives a hash of everything that decides a score: the fields, and the content they name."""
        values = {**self.to_json(), "threads": None, "weights": content_hash(self.weights)}
        values["data"] = _bench(self).images.id
        values["code"] = content_hash(source_file(self.model))
        if self.alternatives is not None:  # named by all that decides it
            values["alternatives"] = Path(self.alternatives).stem
        else:
            del values["alternatives"]
        return short_hash(values, 16)


def source_file(source: str) -> str | None:
    """Gives the file of a ``path/to/file.py:factory`` source, None for any other source."""
    return source.rpartition(":")[0] if factories.is_factory(source) else None


def content_hash(path: str | None) -> str | None:
    """Gives a hash of a file's content, None for None."""
    if path is None:
        return None
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


class _Bench:
    """One model and its data in this process, with the dense weights to go back to."""

    def __init__(self, evaluator: OneShotEvaluator, images: ImageData | None = None) -> None:
        if evaluator.threads is not None:
            torch.set_num_threads(evaluator.threads)
        self.images = images or data.resolve(
            evaluator.data,
            resolution=evaluator.resolution,
            channels=evaluator.channels,
            seed=evaluator.seed,
        )
        loaded = models.resolve(
            evaluator.model,
            classes=evaluator.classes or self.images.classes,
            weights=Path(evaluator.weights) if evaluator.weights else None,
            seed=evaluator.seed,
        )
        order = memory_format(
            loaded.module,
            self.images.validation,
            loaded.classes,
            batch_size=evaluator.batch_size,
            trains=False,
        )
        self.module: nn.Module = loaded.module.to(memory_format=order)  # type: ignore[call-overload]
        self._dense = {k: v.clone() for k, v in self.module.state_dict().items()}
        self._exported: graph.Exported | None = None
        self._alternatives: Alternatives | None = None

    def restore(self) -> None:
        self.module.load_state_dict(self._dense)

    def alternatives(self, file: str) -> Alternatives:
        """Gives reconstructed layers, read once."""
        if self._alternatives is None:
            self._alternatives = Alternatives.load(Path(file))
        return self._alternatives

    def computed_in(self, dtype: str) -> nn.Module:
        """Gives the module as it is now in a dtype; it is exported once, which takes seconds."""
        return _emulated(dtype, self.module, self._export)

    def _export(self) -> graph.Exported:
        if self._exported is None:
            sample, _ = next(iter(self.images.validation.batches(2, limit=2)))
            self._exported = graph.Exported(self.module, (sample,))
        return self._exported


# One entry: a search evaluates one model, and two of them may not fit into memory.
_BENCHES: dict[OneShotEvaluator, _Bench] = {}


def _bench(evaluator: OneShotEvaluator) -> _Bench:
    if evaluator not in _BENCHES:
        _BENCHES.clear()
        log.info("loading %s and %s for one-shot evaluation", evaluator.model, evaluator.data)
        _BENCHES[evaluator] = _Bench(evaluator)
    return _BENCHES[evaluator]
