"""Measuring sessions: what is timed how often, and what is told meanwhile."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from autosparse.engine.compiled import LayerReport
from autosparse.errors import AutosparseError
from autosparse.pipeline import session
from autosparse.pipeline.session import Contestant, SessionRequest
from autosparse.progress import Progress, ProgressEvent
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
        model="net", classes=10, input_shape=(3, 32, 32), batch_size=1, threads=1,
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


def test_a_session_tells_how_far_it_is(shop: Any) -> None:
    events: list[ProgressEvent] = []
    talkative = shop.folder / "talkative.py"
    talkative.write_text((shop.folder / "net.py").read_text() + "\nprint('hello')\n")
    request = request_of(
        model=f"{talkative}:build",
        contestants=(Contestant(name="dense"), Contestant(name="torch", engine="torch")),
        policy=dataclasses.replace(WHOLE, time_cap_us=200_000.0),
    )
    result = session.run_apart(request, Progress(events.append))
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


def test_a_session_that_fails_names_its_last_words(tmp_path: Path) -> None:
    request = request_of(model=f"{tmp_path}/absent.py:build", contestants=(Contestant(name="dense"),))
    with pytest.raises(AutosparseError, match=r"the session ended with: .*absent.py"):
        session.run_apart(request, Progress())


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
        session.run_apart(request, Progress(leave))
