"""What a study has found so far, one JSON line per plan, for whoever watches it and loads no Optuna."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autosparse.errors import AutosparseError
from autosparse.records import Accuracy, Record
from autosparse.storage.files import append_jsonl, read_jsonl, write_jsonl

FILE = "told.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told(Record):
    """One plan and its values.

    Attributes:
        number: Optuna's number of the trial.
        kind: where its parameters came from, such as ``dense``.
        plan_id: its plan.
        dtype: arithmetic type.
        latency_ms: predicted.
        accuracy: what the evaluation gave.
        excess_ms: predicted latency over the budget; 0 or less is feasible.
    """

    number: int
    kind: str
    plan_id: str
    dtype: str
    latency_ms: float
    accuracy: Accuracy
    excess_ms: float = 0.0

    @property
    def accuracy_value(self) -> float:
        """The accuracy as a number."""
        return self.accuracy.value


def begin(folder: Path, known: Iterable[Told]) -> None:
    """Writes down what a study knows when it is opened: a kill may have come between two files."""
    write_jsonl(folder / FILE, [each.to_json() for each in known])


def add(folder: Path, told: Told) -> None:
    """Adds a plan."""
    append_jsonl(folder / FILE, told.to_json())


def read(folder: Path) -> tuple[Told, ...]:
    """Gives what a study has found so far, by number; nothing where it has begun nothing.

    A line of another version is left out: whoever watches is better off with the others.
    """
    found = []
    try:
        lines = read_jsonl(folder / FILE, strict=False)
    except AutosparseError:
        return ()
    for line in lines:
        try:
            found.append(Told.from_json(line))
        except AutosparseError:
            continue
    return tuple(sorted(found, key=lambda told: told.number))
