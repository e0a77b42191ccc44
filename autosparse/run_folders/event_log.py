"""A sink that keeps progress on disk: one JSON object per line, for whoever looks later."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from autosparse.progress import ProgressEvent
from autosparse.storage.files import append_jsonl

ADVANCE_EVERY_S = 1.0


class EventLog:
    """Appends progress events to a file such as ``logs/events.jsonl``.

    Starts, ends and log lines are all kept; of one step's advances, one a second.

    Args:
        path: the file; it and its folder are made when the first event comes. None keeps events in
            memory until `begin` names the file: a run has a folder once it is known what it is about.

    Raises:
        RunError: the file cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._early: list[ProgressEvent] = []
        self._written_at_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, event: ProgressEvent) -> None:
        """Keeps one event."""
        with self._lock:
            if not self._is_due(event):
                return
            if self._path is None:
                self._early.append(event)
            else:
                append_jsonl(self._path, _as_json(event))

    def begin(self, path: Path, job: str) -> None:
        """Names the file, and writes there what has come so far, as events of the job."""
        with self._lock:
            self._path = path
            early, self._early = self._early, []
            for event in early:
                append_jsonl(path, _as_json(replace(event, job=job)))

    def _is_due(self, event: ProgressEvent) -> bool:
        if event.kind != "advance":
            self._written_at_s.pop(event.step, None)
            return True
        if event.at_s - self._written_at_s.get(event.step, float("-inf")) < ADVANCE_EVERY_S:
            return False
        self._written_at_s[event.step] = event.at_s
        return True


def _as_json(event: ProgressEvent) -> dict[str, object]:
    line: dict[str, object] = {"at_s": round(event.at_s, 3), "kind": event.kind}
    line |= {key: value for key, value in (("job", event.job), ("stage", event.stage)) if value}
    if event.step:
        line |= {"step": event.step, "done": event.done, "total": event.total}
    if event.message:
        line["message"] = event.message
    return line
