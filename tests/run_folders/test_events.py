"""Progress says of which job and of which of its stages it is; a run keeps all of it on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autosparse.errors import Stopped
from autosparse.progress import Progress, ProgressEvent
from autosparse.run_folders.event_log import EventLog
from autosparse.workers.worker import Worker

pytestmark = pytest.mark.smoke


def test_every_event_carries_job_and_stage() -> None:
    events: list[ProgressEvent] = []
    progress = Progress(events.append).of("search")
    progress.log("before all")
    with progress.at("survey"), progress.step("read", 1) as step:
        progress.name("search a-run")
        with progress.at("tune"):
            step.advance()
    progress.log("after all")
    assert [(event.job, event.stage) for event in events] == [
        ("search", "start"),
        ("search", "survey"),
        ("search a-run", "tune"),
        ("search a-run", "survey"),
        ("search a-run", "start"),
    ]


def test_a_job_within_another_is_a_part_of_it() -> None:
    events: list[ProgressEvent] = []
    outer = Progress(events.append).of("search a-run")
    with outer.at("measure"):
        outer.of("bench").log("within")
    assert [(event.job, event.stage) for event in events] == [("search a-run", "measure")]


def test_a_stage_that_is_stopped_ends() -> None:
    events: list[ProgressEvent] = []
    progress = Progress(events.append, should_stop=lambda: True).of("tune")
    with pytest.raises(Stopped), progress.at("tune"):
        progress.check()
    progress.log("told")
    assert events[-1].stage == "start"


def test_what_comes_before_the_folder_is_kept(tmp_path: Path) -> None:
    log = EventLog()
    progress = Progress().of("search", log)
    with progress.at("survey"):
        progress.log("known early")
    path = tmp_path / "logs" / "events.jsonl"
    assert not path.exists()
    log.begin(path, "search a-run")
    progress.name("search a-run")
    with progress.at("tune"):
        progress.log("later")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = [(line["job"], line["stage"], line["message"]) for line in lines]
    assert told == [
        ("search a-run", "survey", "known early"),
        ("search a-run", "tune", "later"),
    ]


def staged(job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """What a child process runs here: tells of the stage it is at, if it is given one."""
    if job["stage"]:
        with progress.at(job["stage"]):
            progress.log("in the child")
    else:
        progress.log("in the child")
    return {}


@pytest.mark.parametrize(("named", "told"), [("", "measure"), ("compile", "compile")])
def test_events_of_a_child_are_of_the_job_too(named: str, told: str) -> None:
    events: list[ProgressEvent] = []
    progress = Progress(events.append).of("bench resnet18")
    with Worker(f"{Path(__file__).stem}:staged", import_path=[Path(__file__).parent]) as worker:
        with progress.at("measure"):
            answer = worker.call({"stage": named}, 60, progress)
    assert answer.ending == "done", answer.message
    assert [(event.job, event.stage) for event in events] == [("bench resnet18", told)]
    assert events[0].at_s > 0
