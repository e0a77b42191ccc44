"""What a finished search knows, before anything of it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autosparse.pipeline.measured.finalists import Finalist
from autosparse.pipeline.measured.ledger import Ledger, Measured
from autosparse.pipeline.subject.survey import Survey
from autosparse.pipeline.trained.accuracies import DenseAccuracies, Reached
from autosparse.searching.problem import Problem
from autosparse.searching.trials import StudyResult
from autosparse.tuning.autotune import TuneResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A configuration of the report: a finalist with what it finally reached.

    Attributes:
        finalist: plan, one-shot accuracy and predicted latency.
        measured: whole-model figures of the weights that are deployed.
        reached: accuracies of those weights.
        weights: file of those weights, relative to the run's folder; None where they are the dense
            ones, pruned by the plan.
    """

    finalist: Finalist
    measured: Measured
    reached: Reached
    weights: str | None = None

    @property
    def latency_ms(self) -> float:
        """Measured median."""
        return self.measured.latency.median_ms

    @property
    def accuracy_value(self) -> float:
        """What the verdict is chosen by: accuracy on the validation split, since test only reports."""
        return self.reached.validation.value

    @property
    def excess_ms(self) -> float:
        """Upper end of the measured interval over the budget; 0 or less is feasible."""
        if self.finalist.budget_us is None:
            return 0.0
        return self.measured.latency.ci_high_ms - self.finalist.budget_us / 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that a finished search knows.

    Attributes:
        survey: the run's subject.
        command: how to get the same run.
        dense_accuracies: of the un-pruned model as it is.
        tuning: the tuner's result.
        study: the study's result.
        problem: the table with its fitted correction.
        ledger: whole-model figures.
        entrants: the configurations of the final front and those promoted beside it.
        trained_dense: dense models trained like the configurations, as pareto.json holds them.
        uniform: the uniform-sparsity plan that was trained and measured like them, if there is one.
        skipped: what was left out, and why.
        since: name of the earlier run that was taken over from; empty without.
    """

    survey: Survey
    command: str
    dense_accuracies: DenseAccuracies
    tuning: TuneResult
    study: StudyResult | None
    problem: Problem
    ledger: Ledger
    entrants: tuple[Entrant, ...]
    trained_dense: tuple[Mapping[str, Any], ...] = ()
    uniform: Entrant | None = None
    skipped: tuple[tuple[str, str], ...] = field(default=())
    since: str = ""
