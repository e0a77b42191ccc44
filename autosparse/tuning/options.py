"""The options of every layer, from the rows of its shape."""

from __future__ import annotations

from collections.abc import Iterable

from autosparse.records import (
    DENSE,
    LatencyOption,
    LayerChoice,
    LayerInfo,
    Measurement,
    Pattern,
    Status,
)
from autosparse.tuning.narrowing import Narrowing, fastest, steps
from autosparse.tuning.request import TuneRequest, Work


def options_of(
    request: TuneRequest, works: Iterable[Work], narrowing: Narrowing
) -> dict[str, tuple[LatencyOption, ...]]:
    """Gives every layer's options: the fastest row per structure, dense first."""
    patterns = {layer.name: request.patterns_of(layer) for layer in request.layers}
    found: dict[str, tuple[LatencyOption, ...]] = {}
    for work in works:
        options = _options(request, work, narrowing)
        for name in work.layers:
            own = tuple(o for o in options if o.choice.pattern in (DENSE, *patterns[name]))
            if own and own[0].choice.pattern.is_dense:
                found[name] = own
    order = [layer.name for layer in request.layers]
    return {name: found[name] for name in order if name in found}


def _options(request: TuneRequest, work: Work, narrowing: Narrowing) -> tuple[LatencyOption, ...]:
    shape = work.shape
    rows = narrowing.rows[shape.key].by_structure
    options = [_option(request, DENSE, 0.0, narrowing.rows[shape.key].dense)]
    for pattern in work.patterns:
        for step in reversed(steps(shape, pattern, request.sparsities)):
            best = fastest(rows.get((pattern, step.kept), ()))
            options += [_option(request, pattern, value, best) for value in step.sparsities]
    return tuple(option for option in options if option is not None)


def _option(
    request: TuneRequest, pattern: Pattern, sparsity: float, row: Measurement | None
) -> LatencyOption | None:
    if row is None or row.median_us is None:
        return None
    return LatencyOption(
        choice=LayerChoice(
            pattern=pattern,
            sparsity=sparsity,
            dtype=request.dtype,  # type: ignore[arg-type]
            kernel=row.key.runs,
        ),
        median_us=row.median_us,
        ci_low_us=row.median_us if row.ci_low_us is None else row.ci_low_us,
        ci_high_us=row.median_us if row.ci_high_us is None else row.ci_high_us,
        flops_kept=row.flops_kept,
    )


def why_unmeasured(layer: LayerInfo, rows: Iterable[Measurement]) -> str:
    """Gives the reason why a layer has no options."""
    if layer.shape is None:
        return "; ".join(layer.why_dense) or "its operator has no shape that kernels know"
    failures = [
        f"{row.key.runs} {row.status}: {row.message}"
        for row in rows
        if row.key.shape == layer.shape.key and row.status is not Status.OK
    ]
    return "; ".join(failures) or "no dense kernel of the table runs it"
