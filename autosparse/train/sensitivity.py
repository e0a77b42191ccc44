"""What each choice of each layer costs in accuracy, found by really masking that layer alone.

A validation set of a few hundred samples cannot see a loss below half a percent, yet twenty layers
of such losses decide a plan. Cross-entropy sees them. So the loss of a choice is

    max(drop of accuracy, kappa * rise of cross-entropy),   both against the un-pruned model,
    kappa = (dense accuracy - 1 / classes) / (log(classes) - dense cross-entropy)

with kappa, which has no setting, the line from the dense model to one that knows nothing. Over 80
random mixed plans of a ResNet-18 on the digits, sums of these losses had a rank correlation of 0.92
with the accuracy really lost on the test split; sums of accuracy drops alone had 0.73.

Blocks are ranked by the evaluator's criterion, L1 unless told otherwise, as the configurations are that
run without training and those of a short one. Full training ranks by BPAR (`presets.full`), but of
weights that it draws anew: no mask on the dense model's weights could be that of its end, and on
trained weights BPAR's losses would say more of the criterion than of the layer (`presets.short` has
figures).

Not every choice is measured: per layer and kind of pattern the finest and the coarsest, each at a few
sparsities; the rest is interpolated, never extrapolated. In sparsity by a monotone cubic through the
measured points and (0, 0), between patterns of a kind linearly in their rank (for 1xN log2 N). What may
stand for what is the family's to say (`AbstractFamily.kind`, `rank`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from scipy.interpolate import PchipInterpolator

from autosparse.errors import AutosparseError, UsageError
from autosparse.patterns.family import family_of, finest_first
from autosparse.plans.plan import Plan
from autosparse.progress import Progress, Step
from autosparse.records import LayerChoice, Pattern, Record
from autosparse.storage.files import append_jsonl, finite, read_jsonl
from autosparse.train.evaluate import Score

log = logging.getLogger(__name__)

Losses = dict[str, dict[str, float]]
_REFERENCE = ("", "dense")
_POLL_S = 0.5


class Evaluator(Protocol):
    """What scores a plan; `OneShotEvaluator` does."""

    def reference(self, dtype: str = "f32") -> Score:
        """Scores the un-pruned model in a dtype, treated as pruned ones are."""
        ...

    def score(self, plan: Plan) -> Score:
        """Scores a plan."""
        ...

    def fingerprint(self) -> str:
        """Tells apart evaluators whose scores may differ."""
        ...


class WorkPool(Protocol):
    """What runs calls in parallel: hands back handles whose `outcome` has a status and a value."""

    cores: int

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """Starts a call."""
        ...

    def wait(
        self, handles: Sequence[Any], timeout_s: float | None = None
    ) -> tuple[list[Any], list[Any]]:
        """Waits for at least one or for so long; gives those that ended and those that did not."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivitySettings(Record):
    """How much is measured.

    Attributes:
        sparsities: sparsities measured per pattern, spread evenly over those offered, ends included; 0
            measures all.
        patterns: of every kind, ``ends`` measures the finest and the coarsest, ``all`` each.
    """

    sparsities: int = 3
    patterns: Literal["ends", "all"] = "ends"

    def __post_init__(self) -> None:
        if self.sparsities < 0 or self.sparsities == 1:
            raise UsageError(f"sparsities must be 0 or at least 2, but got {self.sparsities}")
        if self.patterns not in ("ends", "all"):
            raise UsageError(f"patterns must be ends or all, but got {self.patterns!r}")


ALL = SensitivitySettings(sparsities=0, patterns="all")


def measured_choices(
    choices: Mapping[str, Sequence[LayerChoice]], settings: SensitivitySettings
) -> list[tuple[str, LayerChoice]]:
    """Gives what `measure` evaluates, layer by layer, besides the un-pruned model."""
    wanted: list[tuple[str, LayerChoice]] = []
    for layer, offered in choices.items():
        for patterns, sparsities in _grids(offered):
            ends = dict.fromkeys((patterns[0], patterns[-1]))
            for pattern in patterns if settings.patterns == "all" else ends:
                for sparsity in _spread(sparsities, settings.sparsities):
                    wanted.append((layer, LayerChoice(pattern=pattern, sparsity=sparsity)))
    return wanted


def _grids(offered: Iterable[LayerChoice]) -> list[tuple[list[Pattern], list[float]]]:
    """Gives, kind by kind, the patterns among choices, finest first, and their sparsities."""
    kinds: dict[tuple[str, ...], list[LayerChoice]] = {}
    for choice in offered:
        if not choice.pattern.is_dense and choice.sparsity > 0:
            kinds.setdefault(_kind(choice.pattern), []).append(choice)
    return [
        (finest_first(c.pattern for c in of), sorted({c.sparsity for c in of})) for of in kinds.values()
    ]


def _kind(pattern: Pattern) -> tuple[str, ...]:
    return family_of(pattern).kind(pattern)


def _spread(values: list[float], count: int) -> list[float]:
    if not count or count >= len(values):
        return values
    positions = np.unique(np.linspace(0, len(values) - 1, count).round().astype(int))
    return [values[position] for position in positions]


def measure(
    evaluator: Evaluator,
    choices: Mapping[str, Sequence[LayerChoice]],
    *,
    cache: Path,
    progress: Progress,
    settings: SensitivitySettings | None = None,
    pool: WorkPool | None = None,
) -> Losses:
    """Gives the accuracy loss of every sparse choice of every layer.

    Every score is on disk the moment it is known; a second call measures only what is missing.

    Args:
        evaluator: scores plans; its fingerprint keeps scores of different evaluators apart.
        choices: what each layer may become; dense choices are passed over.
        cache: JSON lines, made if need be; may hold scores of many models.
        progress: one unit per evaluation.
        settings: how much to measure, the defaults if None.
        pool: runs evaluations in parallel; None runs them here, one by one.

    Returns:
        Layer name to choice label (``1x16@0.75``) to loss, a fraction of samples: at least 0, not
        falling with sparsity.

    Raises:
        AutosparseError: an evaluation failed in the pool.
        Stopped: a stop was requested; the same call resumes.
    """
    scores = _Scores(cache, evaluator.fingerprint())
    wanted = measured_choices(choices, settings or SensitivitySettings())
    with progress.step("sensitivity", len(wanted) + 1) as step:
        _reference(evaluator, scores, "f32")
        missing = [(k, c) for k, c in wanted if (k, c.label) not in scores.known]
        step.advance(len(wanted) + 1 - len(missing))
        if pool is None:
            _run_here(evaluator, missing, scores, step)
        else:
            _run_in_pool(evaluator, missing, scores, step, pool)
    return _losses(choices, wanted, scores.known)


def reference(evaluator: Evaluator, *, cache: Path, dtype: str = "f32") -> Score:
    """Gives the un-pruned model's score, evaluated if it is not on disk; `measure` counts from f32."""
    return _reference(evaluator, _Scores(cache, evaluator.fingerprint()), dtype)


def _reference(evaluator: Evaluator, scores: _Scores, dtype: str) -> Score:
    key = _REFERENCE if dtype == "f32" else (_REFERENCE[0], f"{_REFERENCE[1]}/{dtype}")
    if key not in scores.known:
        scores.put(key, evaluator.reference(dtype))
    return scores.known[key]


def _plan(layer: str, choice: LayerChoice) -> Plan:
    return Plan(model="", layers={layer: choice}, note="sensitivity of one layer")


def _run_here(
    evaluator: Evaluator, missing: Sequence[tuple[str, LayerChoice]], scores: _Scores, step: Step
) -> None:
    for layer, choice in missing:
        scores.put((layer, choice.label), evaluator.score(_plan(layer, choice)))
        step.advance(1, f"{layer} {choice.label}")


def _run_in_pool(
    evaluator: Evaluator,
    missing: Sequence[tuple[str, LayerChoice]],
    scores: _Scores,
    step: Step,
    pool: WorkPool,
) -> None:
    waiting = list(reversed(missing))
    running: dict[Any, tuple[str, str]] = {}
    while waiting or running:
        while waiting and len(running) < 2 * pool.cores:  # short queue: a stop is soon obeyed
            layer, choice = waiting.pop()
            running[pool.submit(evaluator.score, _plan(layer, choice))] = (layer, choice.label)
        for handle in pool.wait(list(running), _POLL_S)[0]:
            key = running.pop(handle)
            if handle.outcome.status != "ok":
                raise AutosparseError(
                    f"every evaluation must end, but that of {key[1]} in layer {key[0]!r} did not: "
                    f"{handle.outcome.reason or handle.outcome.status}; run again to continue"
                )
            scores.put(key, handle.outcome.value)
            step.advance(1, f"{key[0]} {key[1]}")
        step.check()


class _Scores:
    """Append-only scores by (layer, label), one JSON line each; a damaged line is measured again."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self.known: dict[tuple[str, str], Score] = {}
        for row in read_jsonl(path, strict=False):
            self._read(row)

    def _read(self, row: Mapping[str, Any]) -> None:
        try:
            if row["key"] == self._key:
                score = {name: math.nan if v is None else v for name, v in row["score"].items()}
                self.known[row["layer"], row["label"]] = Score.from_json(score)
        except (KeyError, TypeError, AttributeError, UsageError) as error:
            log.warning("a row of %s cannot be read (%s) and will be measured again", self._path, error)

    def put(self, key: tuple[str, str], score: Score) -> None:
        """Writes one score down; what is not finite becomes None, and NaN when it is read."""
        row = {"key": self._key, "layer": key[0], "label": key[1], "score": finite(score.to_json())}
        append_jsonl(self._path, row)
        self.known[key] = score


# ------------------------------------------------------------------------------- scores to losses


def loss_of(score: Score, reference: Score) -> float:
    """Gives the loss of a score against the un-pruned model's; see the head of this file.

    An output that is not finite counts as knowing nothing.
    """
    worst = max(reference.accuracy - 1 / reference.classes, 0.0)
    if not math.isfinite(score.cross_entropy):
        return worst
    ignorance = math.log(reference.classes) - reference.cross_entropy
    # A model no better than ignorance has no such line; then only accuracy counts.
    kappa = worst / ignorance if ignorance > 1e-3 else 0.0
    rise = score.cross_entropy - reference.cross_entropy
    return max(reference.accuracy - score.accuracy, kappa * rise, 0.0)


# By layer and kind of pattern: pattern to sparsities and losses.
_Curves = dict[tuple[str, tuple[str, ...]], dict[Pattern, list[tuple[float, float]]]]


def _losses(
    choices: Mapping[str, Sequence[LayerChoice]],
    wanted: Sequence[tuple[str, LayerChoice]],
    scores: Mapping[tuple[str, str], Score],
) -> Losses:
    curves: _Curves = {}
    for layer, choice in wanted:
        loss = loss_of(scores[layer, choice.label], scores[_REFERENCE])
        alike = curves.setdefault((layer, _kind(choice.pattern)), {})
        alike.setdefault(choice.pattern, []).append((choice.sparsity, loss))
    return {
        layer: {
            choice.label: _interpolate(curves, layer, choice)
            for choice in offered
            if not choice.pattern.is_dense
        }
        for layer, offered in choices.items()
    }


def _interpolate(curves: _Curves, layer: str, choice: LayerChoice) -> float:
    if choice.sparsity == 0:
        return 0.0
    alike = curves[layer, _kind(choice.pattern)]
    if choice.pattern in alike:
        return _at(alike[choice.pattern], choice.sparsity)
    family = family_of(choice.pattern)
    measured = finest_first(alike)
    ranks = [family.rank(pattern) for pattern in measured]
    values = [_at(alike[pattern], choice.sparsity) for pattern in measured]
    return float(np.interp(family.rank(choice.pattern), ranks, values))


def _at(points: Sequence[tuple[float, float]], sparsity: float) -> float:
    """Gives a monotone curve through (0, 0) and the points, at one sparsity within them."""
    x, y = zip((0.0, 0.0), *sorted(points), strict=True)
    return float(PchipInterpolator(x, np.maximum.accumulate(y))(sparsity))
