"""Measuring sessions: what is timed how often, and what is told meanwhile."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from autosparse.engine.compiled import LayerReport
from autosparse.pipeline import session
from autosparse.pipeline.session import Contestant, SessionRequest
from autosparse.tuning.stopwatch import WHOLE, Timing


class FakeProgram:
    """A compiled model that counts how often its operators are timed."""

    weight_bytes = 12
    layers = (
        LayerReport(name="conv", shape=None, pattern="1x8", sparsity=0.5, kernel="k", why="fast"),
        LayerReport(name="fc", shape=None, pattern="dense", sparsity=0.0, kernel="d", why="small"),
    )

    def __init__(self) -> None:
        self.calls = 0

    def measure_operators(self) -> dict[str, float]:
        self.calls += 1
        return {"conv": 5.0 * self.calls, "relu": 1.0, "fc": 2.0, "add": 0.5}


def request_of(**changes: Any) -> SessionRequest:
    request = SessionRequest(
        model="net", classes=10, input_shape=(3, 32, 32), batch_size=1, threads=1, dtype="f32",
        contestants=(), policy=WHOLE,
    )  # fmt: skip
    return dataclasses.replace(request, **changes)


def test_operators_are_timed_once_and_all_told_apart() -> None:
    program = FakeProgram()
    timing = Timing(median_us=9.0, ci_low_us=8.9, ci_high_us=9.1, repeats=9, settled=True)
    result = session._result(request_of(), Contestant(name="p"), timing, program)  # type: ignore[arg-type]
    assert program.calls == 1
    assert [(layer.name, layer.label, layer.median_us) for layer in result.layers] == [
        ("conv", "1x8@0.5", 5.0),
        ("fc", "dense", 2.0),
    ]
    assert result.other_us == pytest.approx(1.5)
    assert result.weight_bytes == 12
