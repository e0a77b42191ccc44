"""What a tail of cycles is told, what it leaves, and what a plan reaches that was not trained itself.

folder of the training/tickets-ID/     ID stands for the settings and the weights it started from
    checkpoint-*.pt                    the newest two cycles, until all are done
    ticket-00000.safetensors, ...      the trained weights, then those at the end of every cycle
    mean.safetensors, tickets.json
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autosparse.records import Accuracy, Record
from autosparse.records.rules import require, require_at_least
from autosparse.storage.files import read_json, write_json
from autosparse.train.job import TrainJob, TrainResult

WEIGHTINGS = ("mean", "ema")
_TICKETS, _FORKED = "tickets.json", "forked.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketSettings(Record):
    """How units are swapped and trained in, cycle after cycle, once a training has ended.

    Attributes:
        cycles: how many follow one another.
        epochs: of one cycle; of a part of an epoch, whole steps are made, one at least.
        lr_high: learning rate in the middle of a cycle, as a multiple of the recipe's.
        lr_low: learning rate at its ends, likewise.
        swap: fraction of the live units of every group that leave at the start of a cycle, in [0, 1].
        weighting: whether all tickets count alike (``mean``), or later ones more (``ema``).
        decay: part of the average that stays when a ticket is merged; of ``ema`` alone.
        gradient_batches: training batches whose gradients say which units come in.
        recalibrate_batches: training batches, at most, for the batch-norm statistics of what is pruned
            from a mean or a ticket; neither has statistics of its own.

    Source: arXiv 2205.15322 (Sup-tickets) and its release: 3 cycles of 8 epochs out of 250, half of the
    live weights swapped, 0.001 to 0.005 of a learning rate that was 0.1.
    """

    cycles: int = 3
    epochs: float = 8.0
    lr_high: float = 0.05
    lr_low: float = 0.01
    swap: float = 0.5
    weighting: Literal["mean", "ema"] = "mean"
    decay: float = 0.5
    gradient_batches: int = 4
    recalibrate_batches: int = 100

    def __post_init__(self) -> None:
        require_at_least(1, self, "cycles", "gradient_batches", "recalibrate_batches")
        require(0 < self.epochs < float("inf"), "epochs must be above 0", epochs=self.epochs)
        require(
            0 < self.lr_low <= self.lr_high < float("inf"),
            "lr_low must be above 0 and at most lr_high",
            lr_low=self.lr_low,
            lr_high=self.lr_high,
        )
        require(0 <= self.swap <= 1, "swap must lie in [0, 1]", swap=self.swap)
        require(0 <= self.decay < 1, "decay must lie in [0, 1)", decay=self.decay)
        require(
            self.weighting in WEIGHTINGS,
            f"weighting must be one of {', '.join(WEIGHTINGS)}",
            weighting=self.weighting,
        )

    def steps(self, per_epoch: int) -> int:
        """Gives the steps of one cycle, where an epoch has so many."""
        return max(1, int(self.epochs * per_epoch + 0.5))

    def lr_at(self, step: int, steps: int) -> float:
        """Gives the learning rate of a step of a cycle, as a multiple of the recipe's.

        It rises and falls in straight lines; the last step has the low one.
        """
        height = 1 - abs(2 * (step + 1) / steps - 1)
        return self.lr_low + (self.lr_high - self.lr_low) * height

    def share_of_ticket(self, cycle: int) -> float:
        """Gives how much of the average the ticket of a cycle, from 1, becomes: 1 / (cycle + 1)."""
        return 1 / (cycle + 1) if self.weighting == "mean" else 1 - self.decay


@dataclass(frozen=True, slots=True, kw_only=True)
class Tickets(Record):
    """What the cycles after a training left.

    Attributes:
        job: the training.
        settings: of the cycles.
        members: safetensors files, zeros in place: the trained weights, then the ticket of every cycle.
        mean: safetensors file of their average, which has more live units than any of them.
        validation: accuracy of every member on the validation split, in float32.
        losses: mean training loss of every cycle.
        swapped: units that left and came in, over all layers, per cycle.
        trained_epochs: of the training.
        best_epoch: whose weights the training saved.
        tail_epochs: of all cycles together.
        seconds: of all cycles together, interruptions not counted.
    """

    job: TrainJob
    settings: TicketSettings
    members: tuple[str, ...]
    mean: str
    validation: tuple[float, ...]
    losses: tuple[float, ...]
    swapped: tuple[int, ...]
    trained_epochs: int
    best_epoch: int
    tail_epochs: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkedResult(TrainResult):
    """What a plan reaches with weights that another plan's training left.

    `epochs` and `best_epoch` are those of the shared training, `seconds` those of the fork alone.

    Attributes:
        shared_with: id of the plan that was trained.
        tail_epochs: epochs of cycles after that training behind the weights, shared as well.
        tickets: how many models were averaged; of 1, the trained weights were pruned.
        mean: hash of the file that the average of all tickets was in.
    """

    shared_with: str
    tail_epochs: float
    tickets: int
    mean: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleAccuracy(Record):
    """How tickets do that vote by the mean of their class probabilities.

    Attributes:
        accuracy: of the vote.
        members: how many models run for it, one after the other: its latency is that many times the
            latency of one.
    """

    accuracy: Accuracy
    members: int

    @property
    def note(self) -> str:
        """What a reader of the accuracy must know of its price."""
        return f"{self.members} models vote; latency is {self.members} times that of one"


def save_tickets(folder: Path, tickets: Tickets) -> None:
    """Writes the record of finished cycles, files named relative to the folder."""
    names = {"members": [Path(m).name for m in tickets.members], "mean": Path(tickets.mean).name}
    write_json(folder / _TICKETS, {**tickets.to_json(), **names})


def load_tickets(folder: Path) -> Tickets | None:
    """Gives the tickets of finished cycles, None where they are not finished or a file is gone.

    Raises:
        RunError: the record is there but cannot be read.
    """
    if not (folder / _TICKETS).exists():
        return None
    values = read_json(folder / _TICKETS)
    files = [folder / name for name in (*values["members"], values["mean"])]
    if not all(file.is_file() for file in files):
        return None
    *members, mean = map(str, files)
    return Tickets.from_json({**values, "members": members, "mean": mean})


def save_forked(folder: Path, result: ForkedResult) -> None:
    """Writes what a fork reached, its weights named relative to the folder."""
    write_json(folder / _FORKED, {**result.to_json(), "weights": Path(result.weights).name})


def load_forked(folder: Path) -> ForkedResult | None:
    """Gives what the fork in a folder reached, None if there is none.

    Raises:
        RunError: a result is there but cannot be read.
    """
    if not (folder / _FORKED).exists():
        return None
    values = read_json(folder / _FORKED)
    weights = folder / values.get("weights", "")
    return ForkedResult.from_json({**values, "weights": str(weights)}) if weights.is_file() else None
