"""The measured table a search works on: latency options from the tuner, losses from real masking."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TypeVar

from autosparse.database import TuningDatabase
from autosparse.errors import UsageError
from autosparse.pipeline.measured.ledger import Ledger, Measured
from autosparse.pipeline.subject.arithmetic import Arithmetic
from autosparse.pipeline.subject.survey import Survey
from autosparse.progress import Progress
from autosparse.records import LatencyOption, LayerChoice
from autosparse.searching.pool import AbstractPool
from autosparse.searching.problem import Problem, Terms
from autosparse.storage import paths
from autosparse.train.evaluate import OneShotEvaluator, Score
from autosparse.train.sensitivity import loss_of, measure, reference
from autosparse.tuning.autotune import Skip, TuneResult

_T = TypeVar("_T")


def measure_options(survey: Survey, time_budget_us: float | None, progress: Progress) -> TuneResult:
    """Fills the tuning database with what the run needs, and gives the options per layer.

    One type is tuned after the other; each gets an equal share of the time that is left by then.
    """
    begun, found = time.monotonic(), {}
    with TuningDatabase(survey.database) as database:
        for place, dtype in enumerate(survey.dtypes):
            share_us = None
            if time_budget_us is not None:
                left_us = time_budget_us - 1e6 * (time.monotonic() - begun)
                share_us = max(left_us, 1.0) / (len(survey.dtypes) - place)
            request = survey.tune_request(dtype, share_us)
            found[dtype] = survey.host.measure(request, survey.device, database, progress=progress)
    return combined(found)


def check_rows(survey: Survey) -> None:
    """Refuses a host that is not there and of which too few rows are known, before any work.

    Raises:
        UsageError: a layer has no dense row; names all of them.
    """
    if survey.host.runs:
        return
    with TuningDatabase(survey.database) as database:
        for dtype in survey.dtypes:
            request = survey.tune_request(dtype)
            found = survey.host.measure(request, survey.device, database)
            if lacking := found.unmeasured:
                raise UsageError(
                    f"a recorded device must have rows of every layer, but {survey.device.name} "
                    f"({survey.device.id}) has none in {dtype} of {', '.join(lacking)} in "
                    f"{survey.database}; tune the model there and bring its database: autosparse tune "
                    f"--model {survey.config.model}, autosparse db export"
                )


def combined(results: Mapping[str, TuneResult]) -> TuneResult:
    """Puts the results of several types, type to result, together in the order given."""
    if len(results) == 1:
        return next(iter(results.values()))
    skipped: Counter[str] = Counter()
    options: dict[str, tuple[LatencyOption, ...]] = {}
    unmeasured: dict[str, list[str]] = {}
    for dtype, result in results.items():
        skipped.update({skip.reason: skip.count for skip in result.skipped})
        for layer, found in result.options.items():
            options[layer] = (*options.get(layer, ()), *found)
        for layer, why in result.unmeasured.items():
            unmeasured.setdefault(layer, []).append(f"in {dtype}: {why}")
    every = tuple(results.values())
    return TuneResult(
        options=options,
        considered=sum(result.considered for result in every),
        timed=sum(result.timed for result in every),
        reused=sum(result.reused for result in every),
        beaten=sum(result.beaten for result in every),
        skipped=tuple(Skip(reason=reason, count=count) for reason, count in skipped.most_common()),
        failed=_joined(result.failed for result in every),
        rows=_joined(result.rows for result in every),
        unmeasured={layer: "; ".join(reasons) for layer, reasons in unmeasured.items()},
        unfinished=tuple(dict.fromkeys(_joined(result.unfinished for result in every))),
        seconds=sum(result.seconds for result in every),
    )


def _joined(parts: Iterable[tuple[_T, ...]]) -> tuple[_T, ...]:
    return tuple(itertools.chain.from_iterable(parts))


def measured_arithmetic(arithmetic: Arithmetic, tuning: TuneResult) -> Arithmetic:
    """Gives the types that every layer of the table was measured in.

    The table holds the layers that the first type was measured in. A plan has one type over all of
    them, so that another type which one layer lacks is of no use.
    """
    first, *others = arithmetic.dtypes
    layers = [layer for layer, options in tuning.options.items() if _dtypes(options) >= {first}]
    for dtype in others:
        lacking = next((name for name in layers if dtype not in _dtypes(tuning.options[name])), None)
        if lacking is not None:
            why = tuning.unmeasured.get(lacking, "it has no row")
            arithmetic = arithmetic.without(dtype, f"layer {lacking} could not be measured {why}")
    return arithmetic


def _dtypes(options: Iterable[LatencyOption]) -> set[str]:
    return {option.choice.dtype for option in options}


def choices(survey: Survey) -> dict[str, tuple[LayerChoice, ...]]:
    """Gives the sparse choices per layer that the space allows, in f32."""
    return {scope.name: scope.choices for scope in survey.scopes if scope.choices}


def measure_losses(
    survey: Survey, evaluator: OneShotEvaluator, pool: AbstractPool, progress: Progress
) -> tuple[dict[str, dict[str, float]], dict[str, Score]]:
    """Masks each layer alone and evaluates, in f32: what pruning costs hardly depends on the type.

    Returns:
        The accuracy lost per layer and choice, and by dtype the score of the un-pruned model, f32
        always among them.
    """
    cache = paths.home() / "sensitivity" / f"{evaluator.fingerprint()}.jsonl"
    losses = measure(evaluator, choices(survey), cache=cache, progress=progress, pool=pool)
    wanted = dict.fromkeys(("f32", *survey.dtypes))
    return losses, {dtype: reference(evaluator, cache=cache, dtype=dtype) for dtype in wanted}


def to_problem(
    survey: Survey,
    tuning: TuneResult,
    losses: Mapping[str, Mapping[str, float]],
    references: Mapping[str, Score],
    ledger: Ledger,
) -> Problem:
    """Puts the table together.

    A type's overhead is what the dense model spends outside the table's layers in it, its loss what the
    dense model loses by it.

    Args:
        survey: whose dtypes are taken from the tuner's options.
        tuning: the options.
        losses: per layer and choice.
        references: the un-pruned model's score by dtype, f32 among them.
        ledger: where the dense model was measured in every dtype.
    """
    first = survey.dtypes[0]
    layers = tuple(
        layer.name for layer in survey.layers if _dtypes(tuning.options.get(layer.name, ())) >= {first}
    )
    pixels = {
        layer.name: layer.shape.out_height * layer.shape.out_width
        for layer in survey.layers
        if layer.shape
    }
    return Problem(
        model=survey.config.model,
        layers=layers,
        options={name: _offered(survey, name, tuning.options[name]) for name in layers},
        losses=losses,
        overhead_us=outside_us(ledger.dense(first), layers),
        budget_us=survey.config.latency_budget,
        terms={
            dtype: Terms(
                overhead_us=outside_us(ledger.dense(dtype), layers),
                loss=loss_of(references[dtype], references["f32"]),
            )
            for dtype in survey.dtypes
            if dtype != "f32"
        },
        dense_accuracy=references["f32"].accuracy,
        extents={name: pixels[name] for name in layers},
    )


def _offered(survey: Survey, layer: str, options: Sequence[LatencyOption]) -> tuple[LatencyOption, ...]:
    """Gives the options that the space has for a layer; the tuner knows all patterns of all layers."""
    labels = {choice.label for choice in choices(survey).get(layer, ())}
    return tuple(
        option
        for option in options
        if option.choice.dtype in survey.dtypes
        and (option.choice.pattern.is_dense or option.choice.label in labels)
    )


def outside_us(dense: Measured, layers: Container[str]) -> float:
    """Gives the time of operators without weights, and of layers that no kernel of the table runs.

    Operators are timed after the whole, when a busy host may be slower: if together they take longer
    than the whole did, only their share in it counts.
    """
    unlisted_us = math.fsum(layer.median_us for layer in dense.layers if layer.name not in layers)
    outside = dense.other_us + unlisted_us
    every_us = dense.other_us + math.fsum(layer.median_us for layer in dense.layers)
    return outside * min(1.0, 1e3 * dense.latency.median_ms / every_us) if every_us else 0.0
