"""What goes into a study and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from autosparse.errors import UsageError
from autosparse.plans.front import Reference
from autosparse.plans.plan import Plan
from autosparse.records import Accuracy, Record
from autosparse.searching.knapsack import Feasibility
from autosparse.searching.knobs import TrialKind
from autosparse.searching.problem import Dropped, Problem
from autosparse.searching.space import StudySpace


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySettings(Record):
    """How one study runs. Equal settings, problem and evaluations give equal trials.

    Attributes:
        trials: different plans to evaluate; a plan met again is answered from memory and not counted.
        seed: decides every draw.
        study_name: name in the storage.
        storage: Optuna storage URL, or None for a journal in the study's folder.
        sampler: key of `autosparse.searching.samplers.SAMPLERS`.
        batch_size: plans evaluated at once.
        startup_trials: told trials before the sampler leaves random drawing.
        seed_points: budgets at which the exact optimum seeds the study.
        uniform_sparsity: sparsities of the uniform baselines.
        safety_margin: part of the budget that policies keep free.
        retries: how often a failed evaluation is tried again.
        deterministic: tell whole batches in the order they were asked, so that timing decides nothing;
            False tells each result as it comes and keeps the workers busier.
        time_budget_s: start no evaluation after this many seconds of this call; None for no limit.
        evaluation_timeout_s: an evaluation that takes longer is killed and fails.
        cores_per_evaluation: cores each evaluation gets.
        chance_accuracy: accuracy of guessing; where the hypervolume's reference point lies.
        evaluation_key: fingerprint of all that decides an accuracy beside the plan (weights, data,
            limits); remembered evaluations with another one are not used.
        asked: what the study is about, name to value, to tell what has changed where it is continued.
        fresh: forget the study and its evaluations first.
    """

    trials: int = 64
    seed: int = 0
    study_name: str = "autosparse"
    storage: str | None = None
    sampler: str = "tpe"
    batch_size: int = 4
    startup_trials: int = 12
    seed_points: int = 8
    uniform_sparsity: tuple[float, ...] = ()
    safety_margin: float = 0.0
    retries: int = 3
    deterministic: bool = True
    time_budget_s: float | None = None
    evaluation_timeout_s: float | None = None
    cores_per_evaluation: int = 1
    chance_accuracy: float = 0.0
    evaluation_key: str = ""
    asked: Mapping[str, str] = field(default_factory=dict)
    fresh: bool = False

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("batch_size", 1), ("seed_points", 2), ("retries", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, but got {getattr(self, name)}")
        for name in ("time_budget_s", "evaluation_timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name} must be greater than zero, but got {value}")

    @classmethod
    def of(cls, space: StudySpace, **settings: Any) -> Self:
        """Takes what a search space says of the study; `settings` add to it and win over it."""
        return cls(**(space.model_dump() | settings))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord(Record):
    """One finished trial.

    Attributes:
        number: Optuna's number.
        state: whether it has values.
        kind: how its plan came about.
        plan_id: `Plan.id`, with plans/<id>.yaml beside the study; empty if it died before it had one.
        dtype: arithmetic type of its plan.
        latency_ms: predicted from the table.
        accuracy: what the evaluation gave, None after a failure.
        excess_ms: predicted latency over the budget; 0 or less is feasible.
        params: the knobs.
        reason: why it failed, or empty.
        duplicate_of: the trial that had evaluated the same plan before, if any.
        retry_of: the failed trial that this one repeats, if any.
        attempt: 0 for a first try.
        evaluation_s: seconds that the evaluation took; 0 when it came from memory.
    """

    number: int
    state: Literal["COMPLETE", "FAIL"]
    kind: TrialKind
    plan_id: str = ""
    dtype: str = "f32"
    latency_ms: float = 0.0
    accuracy: Accuracy | None = None
    excess_ms: float = 0.0
    params: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    duplicate_of: int | None = None
    retry_of: int | None = None
    attempt: int = 0
    evaluation_s: float = 0.0

    @property
    def feasible(self) -> bool:
        """Whether the predicted latency meets the budget."""
        return self.excess_ms <= 0

    @property
    def accuracy_value(self) -> float:
        """The accuracy as a number; 0 after a failure."""
        return self.accuracy.value if self.accuracy else 0.0

    @property
    def accuracy_kind(self) -> str:
        """How the accuracy came about; empty after a failure."""
        return self.accuracy.kind if self.accuracy else ""


@dataclass(frozen=True, slots=True)
class HypervolumePoint:
    """The hypervolume once a trial was told."""

    trial: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """What a study found.

    Attributes:
        problem: the table it worked on, prepared; on a resumed study the one it was started with.
        trials: every finished trial, by number.
        hypervolume: after each completed trial, in milliseconds times accuracy.
        reference: the point the hypervolume is measured from.
        front: feasible plans that no other one dominates, fastest first.
        least_infeasible: the plans nearest to the budget if `front` is empty, else empty.
        plans: every evaluated plan by its id.
        feasibility: what latencies the table can reach.
        dropped: options left out, with reasons.
    """

    problem: Problem
    trials: tuple[TrialRecord, ...]
    hypervolume: tuple[HypervolumePoint, ...]
    reference: Reference
    front: tuple[Plan, ...]
    least_infeasible: tuple[Plan, ...]
    plans: Mapping[str, Plan]
    feasibility: Feasibility
    dropped: tuple[Dropped, ...]

    def best_trial(self, plan: Plan) -> TrialRecord:
        """Gives the completed trial that evaluated a plan."""
        return next(t for t in self.trials if t.plan_id == plan.id and t.state == "COMPLETE")
