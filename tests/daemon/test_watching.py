"""Watches as a daemon keeps them: real processes, real rows, daemons that die in between."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from telling import Desk, as_json, checked, desk_at

from autosparse.daemon.supervisor import Supervisor
from autosparse.jobs import alerts, daemons
from autosparse.jobs.records import JobOptions
from autosparse.jobs.states import State
from autosparse.pipeline.results.checked import Verdict

PROGRAM = (sys.executable, str(Path(__file__).parent / "checking.py"))
LIMIT_S = 60.0


@pytest.fixture
def desk(database_url: str, tmp_path: Path) -> Iterator[Desk]:
    with desk_at(database_url, tmp_path) as desk:
        yield desk


def will_be(path: Path, found: str) -> None:
    """Has the next check of an artifact find something, or fail."""
    if found == "fail":
        path.write_text("2\nautosparse: an artifact must be sound, but this one is not\n")
        return
    outcome = checked(cast(Verdict, found))
    path.write_text(f"{int(outcome.exit_code)}\n{as_json(outcome)}")


def supervisor(desk: Desk) -> Supervisor:
    daemon = daemons.this_daemon("hw")
    daemons.give_word(desk.store, daemon)
    made = Supervisor(
        desk.queue, daemon, desk.service.place, program=PROGRAM, retry_s=0.01, tick_s=0.01
    )
    made.beside(desk.service.schedules.make_due_jobs)
    return made


def until_idle(desk: Desk, working: Supervisor) -> None:
    """Makes rounds until every job has ended."""
    until_s = time.monotonic() + LIMIT_S
    while True:
        working.look_at_once()
        working.round()
        if not any(job.is_open for job in desk.queue.jobs()):
            return
        assert time.monotonic() < until_s, desk.queue.jobs()
        time.sleep(0.01)


def test_verdicts_come_from_real_processes(desk: Desk) -> None:
    path = desk.artifact()
    desk.service.add_watch(str(path), "5ms", JobOptions(), jitter_s=0.0)
    with supervisor(desk) as working:
        for found in ("met", "open", "missed", "fail", "fail", "missed", "met"):
            will_be(path, found)
            desk.to_the_hour()
            until_idle(desk, working)
            watch = desk.service.watches()[0]
            assert watch.verdict == ("unknown" if found == "fail" else found)
    assert watch.checked is not None and watch.checked.median_ms == 4.0
    assert desk.kinds() == ["watch.missed", "job.failed", "watch.met"]
    failed = desk.service.alerts()[1]
    assert failed.body["message"] == "an artifact must be sound, but this one is not"
    states = [job.state for job in desk.queue.jobs()][::-1]
    assert states[:4] == [State.DONE, State.INFEASIBLE, State.INFEASIBLE, State.FAILED]


def test_an_artifact_that_is_gone_is_unknown(desk: Desk) -> None:
    path = desk.artifact()
    desk.service.add_watch(str(path), "5ms", JobOptions(), jitter_s=0.0)
    path.unlink()
    with supervisor(desk) as working:
        desk.to_the_hour()
        until_idle(desk, working)
    watch = desk.service.watches()[0]
    assert watch.verdict == "unknown" and "must be a file" in watch.problem
    assert desk.kinds() == ["job.failed"]


@pytest.mark.parametrize("seed", range(3))
def test_one_alert_for_each_happening_however_daemons_die(
    desk: Desk, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon dies before, in and after the transaction that records an end."""
    path = desk.artifact()
    desk.service.add_watch(str(path), "5ms", JobOptions(retries=100), jitter_s=0.0)
    chance, deaths = random.Random(seed), 0

    class Died(BaseException):
        """Nothing further of that daemon happens."""

    def dying(real: object) -> object:
        def call(*args: object, **how: object) -> object:
            nonlocal deaths
            moment = chance.choice(["before", "after", "never", "never"])
            if moment == "before":
                deaths += 1
                raise Died
            found = real(*args, **how)  # type: ignore[operator]
            if moment == "after":
                deaths += 1
                raise Died
            return found

        return call

    for where, name in ((desk.queue, "end"), (alerts, "_add"), (alerts, "_ended")):
        monkeypatch.setattr(where, name, dying(getattr(where, name)))
    for found in ("met", "missed", "met", "missed"):
        will_be(path, found)
        desk.to_the_hour()
        while True:
            with supervisor(desk) as working:
                try:
                    until_idle(desk, working)
                    break
                except Died:
                    # As another daemon finds it, once it knows that this one is gone.
                    desk.queue.take_from([working.daemon.id], "another")
    assert deaths
    assert desk.kinds() == ["watch.missed", "watch.met", "watch.missed"]
    assert [job.state for job in desk.queue.jobs()] == [
        State.INFEASIBLE,
        State.DONE,
        State.INFEASIBLE,
        State.DONE,
    ]
