"""Tuning on a host that changes from one of its states into the other and back meanwhile."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tuning_bench import REQUEST, Bench
from tuning_layers import HOST, MadeUp

from autosparse.measuring.states import APART, NEAR, History, Prober
from autosparse.records import Status
from autosparse.tuning.autotune import TuneResult, tune
from autosparse.workers.worker import Worker

THREADS = 2


@dataclass(frozen=True)
class OfTwoStates(MadeUp):
    """A processor whose two states are known, and are seen equally often."""

    def prober(self, threads: int) -> Prober:
        history = History(handovers_ns=(60.0,) * 21 + (230.0,) * 20, split_ns=120.0)
        return Prober(threads, history, probe=lambda threads: 60.0)

    def keep(self, prober: Prober | None) -> None:
        return


def tuned(bench: Bench) -> TuneResult:
    device = OfTwoStates(HOST, bench.hashes)
    request = replace(REQUEST, threads=THREADS)
    return tune(request, device, bench.database(), worker=bench.shared)


@pytest.fixture(scope="module")
def needed(tmp_path_factory: pytest.TempPathFactory, control: Path, shared: Worker) -> int:
    """How many jobs the same tuning takes on a host that stays in one state."""
    bench = Bench(tmp_path_factory.mktemp("alone"), control, shared)
    bench.settings(changes_after=10**6)
    assert {row.key.state for row in tuned(bench).rows if row.status is Status.OK} == {NEAR}
    return len(bench.jobs)


@pytest.mark.parametrize("changes_after", [7, 30])
def test_rows_are_of_one_state_and_changes_cost_a_row_at_most(
    bench: Bench, needed: int, changes_after: int
) -> None:
    bench.settings(changes_after=changes_after)
    result = tuned(bench)
    assert len({row.key.state for row in result.rows if row.status is Status.OK}) == 1
    assert result.options.keys() == {layer.name for layer in REQUEST.layers if layer.shape}
    taken = bench.database().rows()
    assert {row.key.state for row in taken} == {NEAR, APART}
    assert set(Counter(row.key for row in taken).values()) == {1}
    # The rows of both states; what a change finds may be known there.
    assert needed <= len(taken) <= 2 * needed
    assert len(bench.jobs) - len(taken) <= len(bench.jobs) / changes_after


def test_a_host_that_is_always_in_the_other_state_is_waited_for(bench: Bench, needed: int) -> None:
    bench.settings(changes_after=1, away_s=5.0)
    assert len({row.key.state for row in tuned(bench).rows if row.status is Status.OK}) == 1
    assert len(bench.jobs) <= 3 * needed


def test_what_is_complete_is_not_asked_for_in_the_other_state(bench: Bench, needed: int) -> None:
    bench.settings(changes_after=needed)
    tuned(bench)
    assert len(bench.jobs) == needed
