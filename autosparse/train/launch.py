"""Train one plan: a job goes in, weights with zeros in place come out, nothing is lost on the way."""

from __future__ import annotations

from autosparse.errors import MissingDependency
from autosparse.progress import Progress
from autosparse.train.job import TrainJob, TrainResult
from autosparse.train.loop import train_as
from autosparse.train.team import ALONE


def train(job: TrainJob, progress: Progress) -> TrainResult:
    """Trains a model as a job says, or goes on where an earlier call stopped.

    Stopping and killing lose at most the epoch under way: the next call repeats it and ends with the
    same weights as an uninterrupted run (bit for bit on one thread). A finished job gives its result
    at once. It trains in float32 whatever the plan's dtype; the result's accuracies are in that dtype.

    An epoch whose loss is not finite is begun anew from the last good checkpoint, at half the learning
    rate, twice at most; the result says so.

    Of a model that returns more than logits, the main ones train (`outputs.logits_of`).

    Several workers are processes on Ray, see `autosparse.train.parallel`.

    Raises:
        MissingDependency: several workers, and Ray Train is not installed or has no room for them.
        UsageError: the model, data, weights or plan cannot be used, or the model cannot train.
        RunError: the folder belongs to another job or cannot be written.
        TrainingDiverged: the loss is no longer finite, nor is it at a fourth of the learning rate; a
            row in metrics.jsonl says so.
        Stopped: a stop was requested; the same call resumes.
    """
    if job.workers == 1:
        return train_as(ALONE, job, progress)
    try:
        from autosparse.train.parallel import train_in_team  # takes seconds to load
    except ImportError as error:
        raise MissingDependency(
            "training in several processes needs Ray Train, but its libraries are not all installed "
            f"({error}); run: pip install 'autosparse[train]', or train with one worker"
        ) from error
    return train_in_team(job, progress)
