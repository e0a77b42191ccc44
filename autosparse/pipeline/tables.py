"""The measured table a search works on: latency options from the tuner, losses from real masking."""

from __future__ import annotations

from collections.abc import Mapping

from autosparse import paths
from autosparse.pipeline.ledger import Ledger
from autosparse.pipeline.survey import Survey
from autosparse.progress import Progress
from autosparse.records import LayerChoice
from autosparse.searching.pool import AbstractPool
from autosparse.searching.problem import Problem
from autosparse.train.evaluate import OneShotEvaluator, Score
from autosparse.train.sensitivity import measure, reference
from autosparse.tuning.autotune import TuneResult, tune
from autosparse.tuning.database import TuningDatabase


def measure_options(survey: Survey, time_budget_us: float | None, progress: Progress) -> TuneResult:
    """Fills the tuning database with what the run needs, and gives the options per layer."""
    with TuningDatabase(survey.database) as database:
        return tune(survey.tune_request(time_budget_us), survey.hardware, database, progress=progress)


def choices(survey: Survey) -> dict[str, tuple[LayerChoice, ...]]:
    """Gives the sparse choices per layer that the space allows."""
    return {scope.name: scope.choices for scope in survey.scopes if scope.choices}


def measure_losses(
    survey: Survey, evaluator: OneShotEvaluator, pool: AbstractPool, progress: Progress
) -> tuple[dict[str, dict[str, float]], Score]:
    """Masks each layer alone and evaluates.

    Returns:
        The accuracy lost per layer and choice, and the score of the un-pruned model.
    """
    cache = paths.home() / "sensitivity" / f"{evaluator.fingerprint()}.jsonl"
    losses = measure(evaluator, choices(survey), cache=cache, progress=progress, pool=pool)
    return losses, reference(evaluator, cache=cache)


def to_problem(
    survey: Survey,
    tuning: TuneResult,
    losses: Mapping[str, Mapping[str, float]],
    dense_accuracy: float,
    ledger: Ledger,
) -> Problem:
    """Puts the table together; the overhead is what the dense model spends outside its layers."""
    layers = tuple(layer.name for layer in survey.layers if layer.name in tuning.options)
    pixels = {
        layer.name: layer.shape.out_height * layer.shape.out_width
        for layer in survey.layers
        if layer.shape
    }
    return Problem(
        model=survey.config.model,
        layers=layers,
        options={name: tuning.options[name] for name in layers},
        losses=losses,
        overhead_us=ledger.reference.other_us,
        budget_us=survey.config.latency_budget,
        dense_accuracy=dense_accuracy,
        extents={name: pixels[name] for name in layers},
    )
