"""What a dry run says of a budget: bounds can refuse it, only measured layers can promise it."""

from __future__ import annotations

import dataclasses

import pytest

from autosparse.pipeline.results.outcomes import Forecast, TypeForecast
from autosparse.pipeline.verbs.forecast import _is_met

MEASURED = TypeForecast(
    dtype="f32",
    considered=9,
    to_time=0,
    reused=9,
    tuning_s=0.0,
    fastest_ms=2.0,
    dense_ms=5.0,
    slowest_ms=6.0,
    basis="measured",
)
BOUND = dataclasses.replace(MEASURED, dtype="bf16", basis="roofline", fastest_ms=1.0, slowest_ms=None)


@pytest.mark.parametrize(
    ("types", "budget_ms", "met"),
    [
        ((MEASURED,), None, None),
        ((MEASURED,), 2.0, True),
        ((MEASURED,), 1.9, False),
        ((BOUND,), 1.0, None),
        ((BOUND,), 0.9, False),
        ((MEASURED, BOUND), 2.0, True),
        ((MEASURED, BOUND), 1.5, None),
        ((MEASURED, BOUND), 0.5, False),
    ],
)
def test_only_measured_layers_promise(
    types: tuple[TypeForecast, ...], budget_ms: float | None, met: bool | None
) -> None:
    assert _is_met(types, budget_ms) is met


def text(each: TypeForecast, budget_ms: float, met: bool | None) -> str:
    own = {field.name: getattr(each, field.name) for field in dataclasses.fields(TypeForecast)}
    del own["dtype"]
    return Forecast(
        model="net",
        layers=3,
        sparse_layers=2,
        configurations_log10=1.8,
        trials=4,
        budget_ms=budget_ms,
        met=met,
        types=(each,),
        **own,
    ).text()


def test_a_bound_is_called_one() -> None:
    said = text(BOUND, 3.0, None)
    assert "latency in bf16, by the machine's limits alone: fastest above 1.000 / dense above" in said
    assert "come on top" in said
    assert "budget 3 ms: the machine's limits allow it; whether it can be met only a search" in said
    assert "budget 0.5 ms: cannot be met, by the machine's limits" in text(BOUND, 0.5, False)


def test_measured_layers_are_called_so() -> None:
    said = text(MEASURED, 3.0, True)
    assert "latency in f32, layers as measured: fastest 2.000 / dense 5.000 / slowest 6.000 ms" in said
    assert "operators without weights come on top" in said
    assert "budget 3 ms: can be met, by the layers as measured" in said
    assert "budget 1 ms: cannot be met, by the layers as measured" in text(MEASURED, 1.0, False)
