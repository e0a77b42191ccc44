"""An earlier job that did what a job does, by whose time can be told how long that one takes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autosparse.daemon.left import Spent, spent
from autosparse.daemon.place import Events, folder_of
from autosparse.errors import RunError
from autosparse.jobs.queue import Queue
from autosparse.jobs.records import Job
from autosparse.jobs.states import State
from autosparse.run_folders.shelf import run_folders
from autosparse.run_folders.state import read_state
from autosparse.storage.for_job import EVENTS
from autosparse.storage.yaml_text import YamlError, read_yaml

_LOOKED_AT = 200
# Settings without which being equal a search spends its time on something else. How many it tries is
# none of them: the study's own speed tells that.
_SAME = (
    *("data", "data_resolution", "dtype", "space", "one_shot", "train", "recipe"),
    *("threads", "top_k", "share_training"),
)


def earlier_run(results: Path, run: str, verb: str) -> Spent | None:
    """Gives where the time of the newest finished run like another one went; None if there is none.

    Like it is one of the same model, host and settings that decide what takes long.

    Args:
        results: folder of all runs.
        run: name of the other one.
        verb: that works on it.
    """
    try:
        state, settings = read_state(results / run), _settings(results / run)
    except RunError:
        return None
    for path in itertools.islice(run_folders(results), _LOOKED_AT):
        try:
            other = read_state(path)
        except RunError:
            continue
        is_done = other.status == "done" and path.name != run
        same = (other.model, other.hardware_id) == (state.model, state.hardware_id)
        if is_done and same and settings == _settings(path):
            found = spent(path.name, _events_of(path / "logs" / EVENTS, verb))
            if found.stages:
                return found
    return None


def earlier_job(results: Path, queue: Queue, job: Job) -> Spent | None:
    """Gives where the time of the newest job went that did the very same; None if there is none here.

    Args:
        results: folder of all runs.
        queue: of all jobs.
        job: the one that is now done.
    """
    for other in queue.jobs(states=[State.DONE], before_id=job.id, limit=_LOOKED_AT):
        asked, now = other.request, job.request
        if (asked.verb, asked.settings) == (now.verb, now.settings):
            events = _events_of(folder_of(results, other.id) / EVENTS, asked.verb)
            return spent(f"job {other.id}", events)
    return None


def _settings(run: Path) -> Mapping[str, Any] | None:
    try:
        held = read_yaml(run / "config.yaml")
    except (OSError, YamlError):
        return None
    return {key: held.get(key) for key in _SAME} if isinstance(held, Mapping) else None


def _events_of(path: Path, verb: str) -> list[dict[str, Any]]:
    """Gives the events of one verb: others may have worked on a run afterwards."""
    every = Events(path).new()
    return [event for event in every if str(event.get("job", verb)).partition(" ")[0] == verb]
