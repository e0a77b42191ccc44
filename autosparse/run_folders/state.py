"""What a run says of itself: the state file, and the summary made from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autosparse.errors import RunError, UsageError
from autosparse.records import Record
from autosparse.storage.files import read_json
from autosparse.storage.serial import added

STATE_SCHEMA = 1
STATE_FILE = "state.json"
LOCK_FILE = "lock"

RunStatus = Literal["running", "stopped", "done", "failed", "infeasible"]
FINISHED = ("done", "infeasible")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState(Record):
    """What `state.json` holds.

    Attributes:
        model: the model as the user named it.
        hardware_id: the host.
        fingerprint: hash of everything that decides the run's results; equal means resumable.
        created_at: UTC, ISO 8601.
        updated_at: UTC, ISO 8601.
        status: ``running`` until one of the others is recorded.
        stage: the stage at work, or the last one.
        exit_code: what the shell saw, None while running.
        pid: process that wrote this.
        budget_ms: latency budget in milliseconds, None without.
        message: why it stopped or failed; empty otherwise.
        job: number of the daemon's job that made it; empty if a person did. It goes on for that job
            alone.
        schema: version of this format.
    """

    model: str
    hardware_id: str
    fingerprint: str
    created_at: str
    updated_at: str
    status: RunStatus = "running"
    stage: str = "start"
    exit_code: int | None = None
    pid: int = 0
    budget_ms: float | None = None
    message: str = ""
    schema: int = STATE_SCHEMA
    job: str = added("")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary(Record):
    """One line of `autosparse runs list`.

    Attributes:
        name: name of the folder.
        path: the folder.
        model: the model as the user named it.
        created_at: UTC, ISO 8601.
        state: a status of `RunState`, ``interrupted`` when nobody works on a running one, or
            ``damaged`` when its state cannot be read.
        stage: the stage at work, or the last one.
        budget_ms: latency budget in milliseconds, None without.
        verdict: the result in one sentence, or why there is none yet.
    """

    name: str
    path: Path
    model: str
    created_at: str
    state: str
    stage: str = ""
    budget_ms: float | None = None
    verdict: str = ""

    def to_json(self) -> dict[str, Any]:
        """Gives the summary as plain values, the path as text."""
        return {**Record.to_json(self), "path": str(self.path)}


def read_state(path: Path) -> RunState:
    """Reads a run's state.

    Raises:
        RunError: the folder is no run, or its state is damaged or of another version.
    """
    file = path / STATE_FILE
    if not os.path.isfile(file):
        raise RunError(
            f"{path} must be a run's folder, but it has no {STATE_FILE}; see `autosparse runs list`"
        )
    values = read_json(file)
    if not isinstance(values, dict) or values.get("schema") != STATE_SCHEMA:
        raise RunError(f"{file} must have schema {STATE_SCHEMA}; it is damaged or from another version")
    try:
        return RunState.from_json(values)
    except UsageError as error:
        raise RunError(f"{file} is damaged: {error}") from None
