"""Measuring sessions: what is timed how often, and what is told meanwhile."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from autosparse.engine.compiled import LayerReport
from autosparse.errors import ModelError
from autosparse.hosts.here import LocalHost
from autosparse.measuring.stopwatch import WHOLE
from autosparse.pipeline.measured import session
from autosparse.pipeline.measured.session import Contestant, ContestantResult, SessionRequest
from autosparse.progress import Progress, ProgressEvent
from autosparse.records import WholeLatency
from autosparse.sessions.in_turn import UNEVENTFUL, InTurn

LATENCY = WholeLatency(
    median_ms=9.0, ci_low_ms=8.9, ci_high_ms=9.1, repeats=9, threads=1, batch_size=1, dtype="f32"
)


class FakeProgram:
    """A compiled model that counts how often its operators are timed."""

    weight_bytes = 12
    layers = (
        LayerReport(name="conv", shape=None, pattern="1x8", sparsity=0.5, kernel="k", why="fast"),
        LayerReport(name="fc", shape=None, pattern="dense", sparsity=0.0, kernel="d", why="small"),
    )

    def __init__(self) -> None:
        self.calls = 0

    def measure_operators(self, repeats: int) -> dict[str, float]:
        self.calls += 1
        return {"conv": 5.0 * self.calls, "relu": 1.0, "fc": 2.0, "add": 0.5}


def request_of(**changes: Any) -> SessionRequest:
    request = SessionRequest(
        model="net", classes=10, input_shape=(3, 32, 32), batch_size=1, threads=1,
        contestants=(), policy=WHOLE,
    )  # fmt: skip
    return dataclasses.replace(request, **changes)


def test_operators_are_timed_a_few_runs_at_a_time_and_all_told_apart() -> None:
    program = FakeProgram()
    bare = ContestantResult(name="p", latency=LATENCY)
    found = InTurn(
        entrants={}, timings={"": {}}, circumstances=UNEVENTFUL, prober=None, threads=1, batch_size=1
    )
    result = session._with_layers(bare, program, found)  # type: ignore[arg-type]
    assert program.calls == 5
    assert [(layer.name, layer.label, layer.median_us) for layer in result.layers] == [
        ("conv", "1x8@0.5", 15.0),
        ("fc", "dense", 2.0),
    ]
    assert result.other_us == pytest.approx(1.5)
    assert result.weight_bytes == 12


def test_a_session_tells_how_far_it_is(shop: Any) -> None:
    events: list[ProgressEvent] = []
    talkative = shop.folder / "talkative.py"
    talkative.write_text((shop.folder / "net.py").read_text() + "\nprint('hello')\n")
    request = request_of(
        model=f"{talkative}:build",
        contestants=(Contestant(name="dense"), Contestant(name="torch", engine="torch")),
        policy=dataclasses.replace(WHOLE, time_cap_us=200_000.0),
    )
    result = session.run_apart(request, Progress(events.append), LocalHost())
    assert [figure.name for figure in result.results] == ["dense", "torch"]
    ends = {event.step: event for event in events if event.kind == "end"}
    assert list(ends) == [
        "start a measuring session",
        "compile whole models",
        "measure whole models",
        "time layers within whole models",
    ]
    for event in list(ends.values())[1:]:
        assert event.total is not None and event.done == event.total
    rounds = [e for e in events if e.kind == "advance" and e.step == "measure whole models"]
    assert len(rounds) > 1


def test_a_session_that_fails_raises_what_ended_it(tmp_path: Path) -> None:
    request = request_of(model=f"{tmp_path}/absent.py:build", contestants=(Contestant(name="dense"),))
    with pytest.raises(ModelError, match=r"^a factory's file must exist, but got .*absent\.py"):
        session.run_apart(request, Progress(), LocalHost())


def test_a_session_ends_with_its_listener(shop: Any) -> None:
    class Gone(Exception):
        pass

    def leave(event: ProgressEvent) -> None:
        if event.step == "measure whole models":
            raise Gone

    request = request_of(
        model=f"{shop.folder}/net.py:build",
        contestants=(Contestant(name="dense"),),
        policy=dataclasses.replace(WHOLE, time_cap_us=300e6, max_repeats=10**9, target_ci=1e-9),
    )
    with pytest.raises(Gone):  # at once, and not after five minutes
        session.run_apart(request, Progress(leave), LocalHost())
