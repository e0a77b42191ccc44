"""Memory of evaluations: one JSON line each, written the moment a result is in.

A study may be killed between an evaluation and its telling; the evaluation is here and not lost.
"""

from __future__ import annotations

import time
from pathlib import Path

from autosparse.records import Accuracy
from autosparse.storage.files import append_jsonl, read_jsonl


def keys_of(path: Path) -> frozenset[str]:
    """Gives the keys under which a file remembers accuracies; none where there is no file."""
    return frozenset(entry["key"] for entry in read_jsonl(path))


class Evaluations:
    """Append-only store of accuracies by plan id.

    Args:
        path: the file; made when the first result comes.
        key: fingerprint of what decides an accuracy beside the plan; lines with another one are
            passed over.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key
        self._known: dict[str, Accuracy] = {}
        for entry in read_jsonl(path):
            if entry["key"] == key:
                self._known[entry["plan"]] = Accuracy.from_json(entry["accuracy"])

    def get(self, plan_id: str) -> Accuracy | None:
        """Gives the accuracy a plan was found to have, None if it was never evaluated."""
        return self._known.get(plan_id)

    def put(self, plan_id: str, accuracy: Accuracy, seconds: float) -> None:
        """Writes one result to disk and remembers it."""
        entry = {
            "plan": plan_id,
            "key": self._key,
            "accuracy": accuracy.to_json(),
            "seconds": round(seconds, 6),
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        append_jsonl(self._path, entry)
        self._known[plan_id] = accuracy
