"""What one training run is, what it reached, and the folder that remembers both.

folder/job.json          what this folder is for; another job is refused
folder/metrics.jsonl     one row per epoch
folder/checkpoint-*.pt   the newest two epochs, until the result is written
folder/weights.safetensors, folder/result.json
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autosparse.errors import RunError
from autosparse.plans.plan import Plan
from autosparse.records import Accuracy, Record, short_hash
from autosparse.records.rules import require_at_least
from autosparse.storage.files import (
    append_jsonl,
    finite,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from autosparse.storage.paths import writable_folder
from autosparse.storage.sending import as_at_home
from autosparse.storage.serial import added
from autosparse.train.evaluate import content_hash, source_file
from autosparse.train.recipes import Recipe

METRICS = "metrics.jsonl"
JOB = "job.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob(Record):
    """One training run, complete: it can be run again from this record alone.

    Attributes:
        model: model source, as `autosparse.models.resolve` takes it.
        weights: file to start from, or None for the model's own initial weights.
        data: data set, as `autosparse.data.resolve` takes it.
        resolution: height and width of images, None for the data set's own.
        channels: of the images.
        classes: outputs of the model, None for as many as the data has.
        plan: what every layer shall be; an empty plan trains the dense model.
        recipe: how to train.
        folder: where everything of this run goes.
        seed: of the data split and the initial weights; the recipe has its own for the training.
        threads: torch threads, None to leave them as they are.
        device: where it trains: ``cpu``, ``cuda`` or ``cuda:1``; ``cuda`` gives each of several workers
            a GPU of its own.
        workers: processes that share every batch out between them. Batch-norm normalises every share
            by itself, so another number is another training.
    """

    model: str
    weights: str | None
    data: str
    resolution: int | None
    plan: Plan
    recipe: Recipe
    folder: str
    channels: int = 3
    classes: int | None = None
    seed: int = 0
    threads: int | None = None
    device: str = added("cpu")
    workers: int = added(1)

    def __post_init__(self) -> None:
        require_at_least(1, self, "workers")

    def fingerprint(self) -> str:
        """Gives a hash of all that decides the result, apart from the data's content."""
        named = as_at_home(self.to_json())
        values = {**named, "folder": None, "threads": None, "plan": self.plan.id}
        values.pop("device", None)  # where it trains is not what it trains
        values["weights"] = content_hash(self.weights)
        sources = (self.model, self.data, self.recipe.loss)
        values["code"] = [content_hash(source_file(s)) for s in sources if s is not None]
        return short_hash(values, 16)

    def training_id(self) -> str:
        """Gives a hash of all that decides the weights: the fingerprint, whichever kernels run them."""
        layers = {
            name: dataclasses.replace(choice, kernel=None) for name, choice in self.plan.layers.items()
        }
        plan = dataclasses.replace(self.plan, layers=layers)
        return dataclasses.replace(self, plan=plan).fingerprint()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult(Record):
    """What a training run reached.

    Attributes:
        accuracy: of the saved weights on the test split; reports only.
        validation: on the validation split; decides.
        weights: safetensors file with dense tensors, zeros in place, batch-norm statistics.
        masks_checksum: hash of all masks.
        epochs: epochs trained.
        best_epoch: the epoch whose weights were saved.
        sparsity: fraction of the pattern's units pruned, per sparse layer.
        seconds: time spent, interruptions not counted.
        failures: why epochs were begun anew, each at half the learning rate of before.
        data: id of the images that it was trained on; empty where that was not noted.
        taken_from: name of the earlier run that it was trained in; empty where it was this one.
    """

    accuracy: Accuracy
    validation: Accuracy
    weights: str
    masks_checksum: str
    epochs: int
    best_epoch: int
    sparsity: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    failures: tuple[str, ...] = added(())
    data: str = added("")
    taken_from: str = added("")


def claim(job: TrainJob) -> Path:
    """Makes a job's folder, or takes it up again.

    Raises:
        RunError: it belongs to another job or cannot be written.
    """
    folder = writable_folder(Path(job.folder), "a training folder")
    record, wanted = folder / JOB, job.fingerprint()
    found = read_json(record).get("fingerprint", wanted) if record.exists() else wanted
    if found != wanted:
        raise RunError(
            f"a training folder belongs to one job, but {folder} holds job {found} and this is "
            f"{wanted}; remove it or name another"
        )
    write_job(folder, job)
    return folder


def write_job(folder: Path, job: TrainJob) -> None:
    """Says in a training folder whose it is."""
    ids = {"fingerprint": job.fingerprint(), "training": job.training_id()}
    write_json(folder / JOB, {**ids, **job.to_json()})


def save_result(folder: Path, result: TrainResult) -> None:
    """Writes a result, its weights named relative to the folder, so that a run can be moved."""
    values = {**result.to_json(), "weights": Path(result.weights).name}
    write_json(folder / "result.json", values)


def load_result(folder: Path) -> TrainResult | None:
    """Gives the result of a finished training folder, None if it is not finished.

    Raises:
        RunError: a result is there but cannot be read.
    """
    path = folder / "result.json"
    if not path.exists():
        return None
    values = read_json(path)
    if not isinstance(values, dict):
        raise RunError(f"{path} must hold a mapping; it is damaged, so remove it")
    weights = folder / str(values.get("weights", ""))
    return TrainResult.from_json({**values, "weights": str(weights)}) if weights.is_file() else None


def append_metrics(folder: Path, row: Mapping[str, Any]) -> None:
    """Adds one row to the epochs' record; figures that are not finite become None."""
    append_jsonl(folder / METRICS, finite(row))


def truncate_metrics(folder: Path, epochs: int) -> None:
    """Keeps the rows of the first `epochs` epochs, those that a checkpoint covers."""
    path = folder / METRICS
    if path.exists():
        told = ("ok", "retried")
        rows = [r for r in read_jsonl(path) if r.get("status") in told and r["epoch"] < epochs]
        write_jsonl(path, rows)
