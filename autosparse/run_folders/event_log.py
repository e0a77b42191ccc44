"""A sink that keeps progress on disk: one JSON object per line, for whoever looks later."""

from __future__ import annotations

import threading
from pathlib import Path

from autosparse.progress import ProgressEvent
from autosparse.storage.files import append_jsonl

ADVANCE_EVERY_S = 1.0


class EventLog:
    """Appends progress events to a file such as ``logs/events.jsonl``.

    Starts, ends and log lines are all kept; of one step's advances, one a second.

    Args:
        path: the file; it and its folder are made when the first event comes.

    Raises:
        RunError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_at_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, event: ProgressEvent) -> None:
        """Keeps one event."""
        with self._lock:
            if self._is_due(event):
                append_jsonl(self._path, _as_json(event))

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
    if event.step:
        line |= {"step": event.step, "done": event.done, "total": event.total}
    if event.message:
        line["message"] = event.message
    return line
