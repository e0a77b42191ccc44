"""Schedules whose jobs end as a test says, and what that means."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headed import headed

from autosparse.daemon.alerts import Result, meaning
from autosparse.daemon.service import Service
from autosparse.jobs.alerts import Alerts
from autosparse.jobs.queue import Queue
from autosparse.jobs.records import Job, JobOptions
from autosparse.jobs.roots import Roots
from autosparse.jobs.states import State
from autosparse.jobs.store import Store
from autosparse.jobs.verbs import Place
from autosparse.pipeline.results.checked import CheckOutcome, Verdict
from autosparse.records import WholeLatency
from autosparse.report.moves import ConfigMove, FrontMove, LatencyMove
from autosparse.schedules.schedule import Schedule
from autosparse.schedules.store import Schedules

HOUR_S = 3600.0
NOON_S = 1_767_268_800.0  # 1 January 2026, 12:00 UTC


class FakeClock:
    def __init__(self) -> None:
        self.now_s = NOON_S

    def __call__(self) -> float:
        return self.now_s


class Desk:
    """A daemon's service without a supervisor: due jobs are made, claimed and ended by hand."""

    def __init__(self, url: str, folder: Path) -> None:
        self.clock = FakeClock()
        self.store = Store(url, clock=self.clock)
        self.results = folder / "results"
        self.results.mkdir(parents=True, exist_ok=True)
        queue = Queue(self.store)
        self.service = Service(
            queue=queue,
            schedules=Schedules(queue),
            place=Place(
                results=self.results, database=url, roots=Roots(folders={"results": self.results})
            ),
        )

    @property
    def queue(self) -> Queue:
        return self.service.queue

    def artifact(self, name: str = "net.autosparse") -> Path:
        return headed(self.results / name)

    def watch(self, name: str | None = None, budget: str = "5ms") -> Schedule:
        options = JobOptions()
        made = self.service.add_watch(str(self.artifact()), budget, options, name=name, jitter_s=0.0)
        return made.schedule

    def search(self, name: str = "nightly") -> Schedule:
        return self.service.add_schedule(
            "search",
            {"model": "resnet20"},
            JobOptions(),
            name=name,
            cron="0 * * * *",
            timezone="UTC",
        )

    def begin(self) -> Job:
        """Lets an hour pass, and begins the one job that is due then."""
        self.to_the_hour()
        made = self.service.schedules.make_due_jobs()
        assert len(made) == 1, made
        return self.claim()

    def to_the_hour(self) -> None:
        self.clock.now_s += HOUR_S - self.clock.now_s % HOUR_S + 1

    def claim(self) -> Job:
        self.queue.admit("me")
        job = self.queue.claim("me", [])
        assert job is not None
        return job

    def end(
        self, job: Job, state: State, result: Result = None, message: str = "", run: str = ""
    ) -> Job:
        self.clock.now_s += 60
        noting = Alerts(self.store).noting(lambda ended: meaning(ended, result))
        return self.queue.end(job, state, message=message, run=run, then=noting)

    def checks(self, verdict: Verdict, median_ms: float | None = None) -> Job:
        found = checked(verdict, median_ms)
        state = State.DONE if verdict == "met" else State.INFEASIBLE
        return self.end(self.begin(), state, found)

    def fails(self, message: str = "no such file") -> Job:
        return self.end(self.begin(), State.FAILED, message=message)

    def kinds(self) -> list[str]:
        """Kinds of all alerts, oldest first."""
        return [alert.kind for alert in self.service.alerts()][::-1]


@contextmanager
def desk_at(url: str, folder: Path) -> Iterator[Desk]:
    made = Desk(url, folder)
    with made.store:
        yield made


_MEDIANS = {"met": 4.0, "missed": 6.0, "open": 5.0}


def checked(verdict: Verdict, median_ms: float | None = None, **how: object) -> CheckOutcome:
    median = _MEDIANS[verdict] if median_ms is None else median_ms
    made = CheckOutcome(
        artifact="/a/net.autosparse",
        model="net",
        hardware_id="0" * 12,
        budget_ms=5.0,
        verdict=verdict,
        latency=WholeLatency(
            median_ms=median,
            ci_low_ms=median - 0.1,
            ci_high_ms=median + 0.1,
            repeats=100,
            threads=1,
            batch_size=1,
            dtype="f32",
        ),
    )
    return dataclasses.replace(made, **how)  # type: ignore[arg-type]


def moved(is_so: bool = True, configs: int = 1, **how: object) -> FrontMove:
    latency = LatencyMove.of((4.0, (3.9, 4.1)), (5.0, (4.9, 5.1)))
    found = tuple(
        ConfigMove(id=f"c{n}", dtype="f32", fate="stayed", latency=latency) for n in range(configs)
    )
    values = {"sentence": "The front of resnet20 moved: c0.", "configs": found, **how}
    made = FrontMove(model="resnet20", older="before", newer="after", moved=is_so)
    return dataclasses.replace(made, **values)  # type: ignore[arg-type]


def as_json(result: CheckOutcome | FrontMove) -> str:
    return json.dumps(result.to_json())
