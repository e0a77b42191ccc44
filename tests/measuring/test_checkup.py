"""What `doctor` says of a host's states."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest

from autosparse import hardware
from autosparse.measuring import checkup
from autosparse.measuring.checkup import check_states
from autosparse.measuring.histories import load_histories, save_history
from autosparse.measuring.pace import Pace
from autosparse.measuring.states import History, Prober

KNOWN = History(handovers_ns=(40.0,) * 60 + (200.0,) * 20, split_ns=90.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_WATCHED_S", 0.05)


def prober(probe: Callable[[int], float], history: History = KNOWN) -> Prober:
    return Prober(2, history, probe, lambda seconds: None)


def test_one_processor_has_no_states() -> None:
    (found,) = check_states(1)
    assert (found.severity, found.message) == ("ok", "one processor has no states")


def test_a_host_of_one_state_is_said_to_be_one() -> None:
    calm = History(handovers_ns=(200.0,) * 40)
    found, pace = check_states(2, prober=prober(lambda threads: 200.0, calm), run_us=lambda: 1_000.0)
    assert pace.message == "the processors' pace is not watched"
    assert found.severity == "ok"
    assert "one state seen on 2 threads" in found.message
    assert "takes 200 ns from one processor to the next" in found.message


def test_two_states_are_named_with_shares_and_cost() -> None:
    now = {"ns": 40.0}
    probes = itertools.count()

    def probe(threads: int) -> float:
        if next(probes) == 10:  # it changes once, and between the two the work is of neither
            now["ns"] = 200.0
        return now["ns"]

    def work() -> float:
        time.sleep(0.001)
        return 1_600.0 if now["ns"] > 90 else 1_000.0

    found, _ = check_states(2, prober=prober(probe), run_us=work)
    assert found.severity == "warn"
    assert "processors sharing a cache in " in found.message
    assert "processors apart in " in found.message
    assert "now: processors apart" in found.message
    assert "convolutions take 1.60 times as long apart (1600 us, else 1000)" in found.message
    assert "--judged" in found.remedy
    kept = load_histories(hardware.hardware_id())[2]
    assert dict(kept.work_us) == {"shared": 1_000.0, "apart": 1_600.0}


def test_what_was_seen_on_another_day_is_remembered() -> None:
    save_history(hardware.hardware_id(), 2, History(**{**_fields(KNOWN), "work_us": {"shared": 900.0}}))
    found, _ = check_states(2, prober=prober(lambda threads: 200.0), run_us=lambda: 1_800.0)
    assert "convolutions take 2.00 times as long apart" in found.message


def test_a_cost_is_not_told_before_both_states_were_seen_at_work() -> None:
    found, _ = check_states(2, prober=prober(lambda threads: 200.0), run_us=lambda: 1_800.0)
    assert found.severity == "ok"
    assert "what that costs is not known" in found.message


def test_this_host_can_be_looked_at() -> None:
    if hardware.usable_cores() < 2:
        pytest.skip("one processor has no states")
    found, pace = check_states(2)
    assert (found.name, pace.name) == ("host state", "host pace")
    history = load_histories(hardware.hardware_id())[2]
    assert len(history.paces) >= 40
    assert f"of {len(history.paces)} probes " in pace.message
    assert all(us > 0 for us in history.work_us.values())


def test_a_core_that_somebody_else_uses_is_told_of() -> None:
    full = Pace(gflops=100.0, gbytes_per_s=90.0, gintegers_per_s=9.5)
    slow = Pace(gflops=99.0, gbytes_per_s=70.0, gintegers_per_s=9.4)
    often = History(handovers_ns=(40.0,) * 60, paces=(full,) * 30 + (slow,) * 10)
    _, found = check_states(2, prober=prober(lambda threads: 40.0, often), run_us=lambda: 1_000.0)
    assert found.severity == "warn"
    assert "of 40 probes 25% found a core that did less than 90% of what it can" in found.message
    assert "100 GFLOP/s in f32, 90 GB/s from its cache and 9.5 integer instructions" in found.message
    seldom = History(handovers_ns=(40.0,) * 60, paces=(full,) * 50 + (slow,))
    _, found = check_states(2, prober=prober(lambda threads: 40.0, seldom), run_us=lambda: 1_000.0)
    assert (found.severity, found.remedy) == ("ok", "")


def test_a_busy_moment_does_not_replace_a_quiet_one() -> None:
    for us in (1_800.0, 9_000.0, 1_700.0, 4_000.0):
        list(check_states(2, prober=prober(lambda threads: 200.0), run_us=lambda us=us: us))
    assert dict(load_histories(hardware.hardware_id())[2].work_us) == {"apart": 1_700.0}


def _fields(history: History) -> dict[str, object]:
    return {name: getattr(history, name) for name in ("handovers_ns", "split_ns")}
