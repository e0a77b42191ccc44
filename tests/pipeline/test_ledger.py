"""A run's whole-model figures: which state of the host counts, and what a disturbed host costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from autosparse.measuring.stopwatch import WHOLE
from autosparse.pipeline.measured import ledger as ledgers
from autosparse.pipeline.measured.ledger import Ledger
from autosparse.pipeline.measured.session import (
    Contestant,
    ContestantResult,
    SessionRequest,
    SessionResult,
)
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import LayerChoice, WholeLatency, onexn
from autosparse.searching.pool import SerialPool
from autosparse.sessions.in_turn import Circumstances

REQUEST = SessionRequest(
    model="net", classes=10, input_shape=(3, 32, 32), batch_size=1, threads=2, contestants=(),
    policy=WHOLE,
)  # fmt: skip
PLANS = [
    Plan(model="net", layers={"conv": LayerChoice(pattern=onexn(8), sparsity=sparsity)})
    for sparsity in (0.5, 0.75)
]


def latency(ms: float, state: str = "") -> WholeLatency:
    return WholeLatency(
        median_ms=ms, ci_low_ms=0.99 * ms, ci_high_ms=1.01 * ms, repeats=9, threads=2, batch_size=1,
        dtype="f32", state=state,
    )  # fmt: skip


@dataclass
class Host:
    """A host of which every session sees some states, each as fast as said, with something beside it.

    Attributes:
        seen: per session the time of everybody in each state, the slowest first; the last one repeats.
        beside: what runs beside every session.
        takes_s: of one session.
        undisturbed_share: of the time in which it was left alone before.
    """

    seen: Sequence[Mapping[str, float]]
    beside: str = ""
    takes_s: float = 20.0
    undisturbed_share: float = 1.0
    at_s: float = 0.0
    asked: list[SessionRequest] = field(default_factory=list)

    def session(self, request: SessionRequest, *_: Any) -> SessionResult:
        states = self.seen[min(len(self.asked), len(self.seen) - 1)]
        self.asked.append(request)
        self.at_s += self.takes_s
        return SessionResult(
            results=tuple(_figure(each, states) for each in request.contestants),
            disturbed=self.beside,
            circumstances=Circumstances(undisturbed_share=self.undisturbed_share),
        )

    def sleep(self, seconds: float) -> None:
        self.at_s += seconds

    def monotonic(self) -> float:
        return self.at_s


def _figure(contestant: Contestant, states: Mapping[str, float]) -> ContestantResult:
    found = {state: latency(ms, state) for state, ms in states.items()}
    return ContestantResult(name=contestant.name, latency=next(iter(found.values())), states=found)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.delenv("AUTOSPARSE_BUSY_HOST")

    def put(host: Host) -> Host:
        monkeypatch.setattr(ledgers, "run_apart", host.session)
        monkeypatch.setattr(ledgers, "time", host)
        return host

    return put


def ledger(folder: Path, **changes: Any) -> Ledger:
    request = replace(REQUEST, **changes)
    return Ledger(folder / "sessions.jsonl", request, "w", SerialPool(), None, Progress())  # type: ignore[arg-type]


def test_a_host_that_is_never_quiet_is_given_up_on(on: Any, tmp_path: Path) -> None:
    host = on(Host([{"": 5.0}], beside="other processes took 40% of all processors' time"))
    found = ledger(tmp_path)
    found.measure_references()
    assert len(host.asked) == 3
    for plan in PLANS * 4:
        found.measure([plan])
    # Ninety seconds in all for repeating sessions of twenty: five, and then none is repeated any more.
    assert len(host.asked) == 9 + 5
    assert len(found.disturbances) == 9
    assert found.disturbances[0].endswith("sessions tried: 3")
    assert found.disturbances[-1].endswith("sessions tried: 1")
    # Nothing of it is taken for good by who continues the run.
    again = ledger(tmp_path)
    assert not again.measured and not again.references


def test_no_session_is_repeated_on_a_host_that_is_seldom_left_alone(on: Any, tmp_path: Path) -> None:
    host = on(Host([{"": 5.0}, {"": 6.0}], undisturbed_share=0.3))
    found = ledger(tmp_path)
    for plan in PLANS:
        found.measure([plan])
    assert len(host.asked) == 2
    assert found.disturbances == ["dense took 6 ms, but 5 ms in another session; sessions tried: 1"]


def test_a_user_may_take_a_busy_host(on: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = on(Host([{"": 5.0}, {"": 9.0}], beside="the hypervisor took 30% of all processors' time"))
    monkeypatch.setenv("AUTOSPARSE_BUSY_HOST", "accept")
    found = ledger(tmp_path)
    for plan in PLANS:
        found.measure([plan])
    assert len(host.asked) == 2 and not found.disturbances


def test_a_session_is_repeated_until_the_host_is_as_fast_as_before(on: Any, tmp_path: Path) -> None:
    host = on(Host([{"": 5.0}, {"": 6.0}, {"": 5.1}]))
    found = ledger(tmp_path)
    found.measure(PLANS[:1])
    found.measure(PLANS[1:])
    assert len(host.asked) == 3 and not found.disturbances
    assert found.measured[PLANS[1].id].latency.median_ms == 5.1
    assert ledger(tmp_path).measured == found.measured


@pytest.mark.parametrize(("judged", "state", "ms"), [("worst", "apart", 7.0), ("best", "shared", 4.0)])
def test_one_of_the_states_counts(on: Any, tmp_path: Path, judged: str, state: str, ms: float) -> None:
    on(Host([{"apart": 7.0, "shared": 4.0}]))
    found = ledger(tmp_path, judged=judged)
    found.measure(PLANS)
    for figure in (*found.references.values(), *found.measured.values()):
        assert (figure.latency.state, figure.latency.median_ms) == (state, ms)
        assert {name: each.median_ms for name, each in figure.states.items()} == {
            "apart": 7.0,
            "shared": 4.0,
        }
    again = ledger(tmp_path, judged=judged)
    assert (again.state, again.measured, again.references) == (state, found.measured, found.references)


def test_figures_of_another_state_alone_do_not_stand_beside_those_that_count(
    on: Any, tmp_path: Path
) -> None:
    host = on(Host([{"shared": 4.0}, {"apart": 7.0, "shared": 4.0}]))
    found = ledger(tmp_path)
    found.measure(PLANS[:1])
    assert found.state == "shared"
    found.measure(PLANS[1:])
    assert found.state == "apart"
    assert PLANS[0].id not in found.measured, "it is measured again when it is asked for"
    found.measure(PLANS[:1])
    assert {each.latency.state for each in found.measured.values()} == {"apart"}
    assert len(host.asked) == 3


def test_a_session_that_does_not_see_the_state_that_counts_is_repeated(on: Any, tmp_path: Path) -> None:
    host = on(Host([{"apart": 7.0, "shared": 4.0}, {"shared": 4.0}, {"apart": 7.0}]))
    found = ledger(tmp_path)
    found.measure(PLANS[:1])
    found.measure(PLANS[1:])
    assert len(host.asked) == 3 and not found.disturbances
    assert found.measured[PLANS[1].id].latency.median_ms == 7.0


def test_figures_from_before_states_were_known_are_of_neither(on: Any, tmp_path: Path) -> None:
    on(Host([{"": 5.0}, {"apart": 7.0, "shared": 4.0}]))
    found = ledger(tmp_path)
    found.measure(PLANS[:1])
    found.measure(PLANS[1:])
    assert found.state == "apart"
    assert list(found.measured) == [PLANS[1].id]
