"""A daemon's store with jobs in all states, runs, fronts and schedules, some with hostile names."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from talking import a_run

from autosparse.daemon.place import LOG
from autosparse.daemon.service import Service
from autosparse.jobs.records import Job, JobOptions, JobRequest, Snapshot
from autosparse.jobs.states import State
from autosparse.records import Accuracy
from autosparse.report import build
from autosparse.searching import told
from autosparse.storage.files import append_jsonl, write_json
from autosparse.storage.for_job import EVENTS

sys.path.insert(0, str(Path(__file__).parent.parent / "report"))
from made_up_run import write_run

SCRIPT = "<script>alert(1)</script>"
HOSTILE = f"\"'><img src=x onerror=alert(1)>{SCRIPT}{{{{99991*7}}}}"
OLDER, NEWER = "20260301T100000Z-resnet18-9f3ab2c4", "20260302T100000Z-resnet18-9f3ab2c4"
UNFINISHED = "20260303T100000Z-resnet20-9f3ab2c4"
ENDS = (State.DONE, State.INFEASIBLE, State.FAILED, State.CANCELLED, State.STOPPED)


def submitted(service: Service, label: str = "", **settings: object) -> Job:
    request = JobRequest(
        verb="search",
        settings={"model": "resnet20", **settings},
        options=JobOptions(label=label),
    )
    return service.queue.submit(request)[0]


def running(service: Service, label: str = "", **settings: object) -> Job:
    number = submitted(service, label, **settings).id
    service.queue.admit(service.daemon_id)
    job = service.queue.claim(service.daemon_id, [])
    assert job is not None and job.id == number
    return job


def ended(service: Service, state: State, message: str = "", run: str = "", **settings: object) -> Job:
    job = running(service, **settings)
    return service.queue.end(
        job, state, exit_code=0, message=message, run=run, ran_s=61.0, reason=message
    )


def fill(service: Service) -> Job:
    """Puts jobs of all states into a store; gives the one that runs."""
    for state in ENDS:
        ended(service, state, f"it was {state}", model="resnet18")
    ended(service, State.FAILED, HOSTILE, run=HOSTILE, model=HOSTILE, include=[HOSTILE])
    job = at_work(service)
    submitted(service, HOSTILE, model=HOSTILE)
    service.queue.admit(service.daemon_id)
    submitted(service)
    return job


def at_work(service: Service) -> Job:
    """Makes a job that runs: with a run, a front, progress and a log."""
    job = running(service, "nightly")
    folder = service.folder(job.id)
    folder.mkdir(parents=True)
    (folder / LOG).write_text(f"stage: search\n\x1b[31mred\x1b[0m {HOSTILE}\n\x00\u202eodd\n")
    now_s = time.time()
    event = {"at_s": now_s, "kind": "advance", "job": f"search {UNFINISHED}", "stage": "search"}
    append_jsonl(folder / EVENTS, {**event, "step": "search", "done": 27, "total": 64})
    a_run(service.place.results, UNFINISHED, status="running", job=str(job.id), budget_ms=5.0)
    study = service.place.results / UNFINISHED / "study"
    for each in plans():
        told.add(study, each)
    service.queue.name_run(job, UNFINISHED)
    snapshot = Snapshot(
        at_s=now_s, stage="search", step="search", done=27.0, total=64.0, message=HOSTILE,
        left_s=754.0, left_as=OLDER,
    )  # fmt: skip
    service.queue.renew(service.daemon_id, {job.id: (job.attempt, snapshot)})
    return service.queue.get(job.id)


def plans(count: int = 27) -> list[told.Told]:
    found = []
    for number in range(count):
        latency_ms = 6.0 if not number else 2.0 + 4.0 * ((number * 7) % count) / count
        value = 0.97 if not number else 0.95 - 0.3 * (1 - latency_ms / 6.0) ** 2 - 0.01 * (number % 3)
        accuracy = Accuracy(value=value, kind="one-shot", split="validation", samples=500)
        found.append(
            told.Told(
                number=number,
                kind="policy" if number else "dense",
                plan_id=f"{number:08x}",
                dtype="f32",
                latency_ms=latency_ms,
                accuracy=accuracy,
                excess_ms=latency_ms - 5.0,
            )
        )
    return found


def reported(
    results: Path, name: str, *, seed: int = 0, report: bool = False, **values: object
) -> Path:
    """Makes a finished run of the report's made-up ones."""
    made = write_run(results / f".{name}", seed=seed)
    run = results / name
    shutil.move(made, run)
    shutil.rmtree(results / f".{name}")
    state = a_run(results, f"{name}-state", model="resnet18", budget_ms=14.0, **values)
    shutil.move(state / "state.json", run / "state.json")
    state.rmdir()
    if report:
        build(run)
    return run


def scheduled(service: Service, name: str = "weekly") -> None:
    service.add_schedule(
        "search",
        {"model": "resnet20"},
        JobOptions(),
        name=name,
        cron="30 2 * * sun",
        timezone="Europe/Berlin",
    )


def hostile_run(results: Path) -> Path:
    """Makes a run whose files say what others may have written into them."""
    run = a_run(results, "20260304T100000Z-odd", model=HOSTILE, message=HOSTILE, status="failed")
    write_json(run / "pareto.json", {"verdict": {"text": HOSTILE}})
    return run
