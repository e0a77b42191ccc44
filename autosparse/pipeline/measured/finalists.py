"""From predicted to measured: the study's best plans, compiled, run whole, and corrected.

The table predicts; here plans are run as they would be deployed, in turn with the dense model. The
ratio of measured to predicted corrects the table, the knapsack is solved again at the budget, layers
that turn out slower than dense go back to dense, and what is new is measured too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from autosparse.errors import MissingMeasurement
from autosparse.pipeline.measured.ledger import Ledger, Measured
from autosparse.plans.front import promote
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import Accuracy, LayerChoice
from autosparse.searching import knapsack
from autosparse.searching.problem import Problem, in_words
from autosparse.searching.trials import StudyResult
from autosparse.statistics import median_ci

_ROUNDS = 3
# Shares of the budget to solve for: the first leaves room for the upper end of a measured interval, the
# others for a table that promises too much.
_SHARES = (0.97, 0.9, 0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """A plan that was run whole.

    Attributes:
        plan: per-layer choices.
        accuracy: one-shot accuracy on validation data.
        measured: its figures, from the last session it took part in.
        predicted_us: by the uncorrected table.
        predicted_loss: sum of its layers' losses.
        budget_us: latency budget, None without.
    """

    plan: Plan
    accuracy: Accuracy
    measured: Measured
    predicted_us: float
    predicted_loss: float
    budget_us: float | None

    @property
    def latency_ms(self) -> float:
        """Measured median."""
        return self.measured.latency.median_ms

    @property
    def accuracy_value(self) -> float:
        """What promotion ranks by: one-shot accuracy, and predicted loss where that says nothing.

        Untrained, strongly pruned models all guess, and small validation sets are coarse. So one-shot
        accuracies within ``1 / sqrt(samples)``, about two standard errors, count as equal, and among
        those the smaller predicted loss wins.
        """
        step = 1 / math.sqrt(max(self.accuracy.samples, 1))
        return step * (self.accuracy.value // step + 1 / (1 + max(0.0, self.predicted_loss)))

    @property
    def excess_ms(self) -> float:
        """Upper end of the measured interval over the budget; 0 or less is feasible."""
        if self.budget_us is None:
            return 0.0
        return self.measured.latency.ci_high_ms - self.budget_us / 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Qualifying:
    """What the qualifying sessions gave.

    Attributes:
        chosen: the finalists to train, best first; empty if none meets the budget.
        uniform: the best uniform-sparsity plan that meets the budget, to compare with; None without.
        all: every plan that was run whole.
        problem: the table, its correction fitted to the measurements.
        reverted: layers taken back to dense, with the reason.
    """

    chosen: tuple[Finalist, ...]
    uniform: Finalist | None
    all: tuple[Finalist, ...]
    problem: Problem
    reverted: tuple[tuple[str, str], ...]


def qualify(
    study: StudyResult,
    ledger: Ledger,
    *,
    top_k: int,
    progress: Progress,
    also: Sequence[Plan] = (),
) -> Qualifying:
    """Runs the best plans whole, round after round, until nothing new comes up.

    Args:
        study: what the search found.
        ledger: measures plans and evaluates their accuracy, and remembers both.
        top_k: how many to choose.
        progress: told of every round.
        also: further plans to run, those of an earlier front; one that the table lacks an option of is
            left out.
    """
    problem = study.problem
    reverted: dict[str, str] = {}
    wanted = _distinct([*_first_plans(study, top_k), *_of_table(problem, also)])
    with progress.step("qualify", _ROUNDS) as step:
        for _ in range(_ROUNDS):
            new = [plan for plan in wanted if plan.id not in ledger.measured]
            if not new:
                break
            ledger.measure(new)
            problem = corrected(problem, ledger)
            wanted = _next_plans(problem, ledger, wanted, reverted)
            step.advance(1, f"{len(ledger.measured)} plans, {_corrections(problem)}")
        step.advance(_ROUNDS - step.done)
    finalists = _finalists(problem, ledger, progress)
    inside = [finalist for finalist in finalists if finalist.excess_ms <= 0]
    uniform_ids = {trial.plan_id for trial in study.trials if trial.kind == "uniform"}
    uniform = [finalist for finalist in inside if finalist.plan.id in uniform_ids]
    return Qualifying(
        chosen=promote(inside, top_k) if inside else (),
        uniform=promote(uniform, 1)[0] if uniform else None,
        all=tuple(finalists),
        problem=problem,
        reverted=tuple(reverted.items()),
    )


def qualify_again(
    study: StudyResult,
    ledger: Ledger,
    *,
    chosen: Sequence[Plan],
    uniform: Plan | None,
    progress: Progress,
) -> Qualifying | None:
    """Runs the plans of an earlier front whole, of the very study that they came from.

    Args:
        study: that study.
        ledger: measures plans, and remembers them.
        chosen: the plans that were trained, best first.
        uniform: the plan of one sparsity that was trained to compare with; None without.
        progress: told of the session.

    Returns:
        The same finalists with figures of now; None if one of those chosen no longer meets the budget.
    """
    plans = _distinct([*chosen, *([] if uniform is None else [uniform])])
    with progress.step("qualify", 1):
        new = [plan for plan in plans if plan.id not in ledger.measured]
        if new:
            ledger.measure(new)
    problem = corrected(study.problem, ledger)
    found = {plan.id: finalist(plan, problem, ledger) for plan in plans}
    kept = tuple(found[plan.id] for plan in chosen)
    if any(each.excess_ms > 0 for each in kept):
        return None
    beside = None if uniform is None else found[uniform.id]
    return Qualifying(
        chosen=kept,
        uniform=beside if beside is not None and beside.excess_ms <= 0 else None,
        all=tuple(found.values()),
        problem=problem,
        reverted=(),
    )


def _of_table(problem: Problem, plans: Iterable[Plan]) -> list[Plan]:
    """Gives plans as a table has them, with its kernels; those that it has not are left out."""
    found = []
    for plan in plans:
        if plan.model != problem.model or not plan.layers.keys() <= set(problem.layers):
            continue
        choices = {
            name: dataclasses.replace(choice, kernel=None)
            for name, choice in plan.layers.items()
            if not choice.pattern.is_dense
        }
        with suppress(MissingMeasurement):
            made = problem.plan(choices, plan.note, plan.dtype)
            problem.predicted_loss(made)  # which an option may lack
            found.append(made)
    return found


def corrected(problem: Problem, ledger: Ledger) -> Problem:
    """Fits the table's correction in every dtype: median of (measured - overhead) over sum of layers.

    A dtype that no measured plan has keeps the correction it has. So does one whose plans ran faster
    than all that is outside of their layers, as only a disturbed overhead says.
    """
    plain = uncorrected(problem)
    ratios: dict[str, list[float]] = {}
    for plan_id, measured in ledger.measured.items():
        plan = ledger.plans[plan_id]
        overhead_us = problem.terms_of(plan.dtype).overhead_us
        layers_us = plain.predicted_us(plan) - overhead_us
        ratio = (measured.latency.median_ms * 1e3 - overhead_us) / layers_us
        ratios.setdefault(plan.dtype, []).append(ratio)
    factors = {dtype: median_ci(found)[0] for dtype, found in ratios.items()}
    for dtype, factor in factors.items():
        if factor <= 0:
            ledger.disturbances.append(
                f"layers came out as {factor:.3g} of what their rows say in {dtype}, beside operators "
                f"that took {problem.terms_of(dtype).overhead_us:.0f} us; predictions stay as they were"
            )
    return problem.corrected({dtype: factor for dtype, factor in factors.items() if factor > 0})


def uncorrected(problem: Problem) -> Problem:
    """Gives the table as it was measured."""
    return problem.corrected(dict.fromkeys(problem.dtypes, 1.0))


def _corrections(problem: Problem) -> str:
    factors = (f"{problem.terms_of(dtype).correction:.3f} in {dtype}" for dtype in problem.dtypes)
    return f"correction {', '.join(factors)}"


def _first_plans(study: StudyResult, top_k: int) -> list[Plan]:
    complete = [t for t in study.trials if t.state == "COMPLETE" and t.duplicate_of is None]
    chosen = [study.plans[trial.plan_id] for trial in promote(complete, 2 * top_k)]
    uniform = [t for t in complete if t.kind == "uniform"]
    baseline = [study.plans[trial.plan_id] for trial in promote(uniform, 1)] if uniform else []
    parts = [study.problem.of(dtype) for dtype in study.problem.dtypes]
    exact = [_optimum(part, share) for part in parts for share in _SHARES if part.budget_us]
    fastest = [knapsack.fastest(part)[0] for part in parts]
    return _distinct([*chosen, *baseline, *exact, *fastest])


def _optimum(problem: Problem, share: float) -> Plan:
    """The exact optimum of one dtype at a share of the budget, or its fastest plan out of reach."""
    target_us = max(share * (problem.budget_us or math.inf), knapsack.fastest(problem)[1])
    what = in_words(problem.dtypes[0])
    return knapsack.solve(problem, target_us, note=f"knapsack at {share:.0%} of the budget{what}")


def _next_plans(
    problem: Problem, ledger: Ledger, wanted: Sequence[Plan], reverted: dict[str, str]
) -> list[Plan]:
    """Plans without their slow layers, and the optimum of the corrected table at the budget."""
    plans = list(wanted)
    for plan in wanted:
        slow = _slow_layers(plan, ledger)
        if slow:
            reverted.update({f"{plan.id}:{name}": why for name, why in slow.items()})
            dense = LayerChoice(dtype=plan.dtype)
            kept = {name: dense if name in slow else c for name, c in plan.layers.items()}
            plans.append(dataclasses.replace(plan, layers=kept, note=f"{plan.note}; slow layers dense"))
    if problem.budget_us is not None:
        plans += [_optimum(problem.of(dtype), _SHARES[0]) for dtype in problem.dtypes]
    return _distinct(plans)


def _slow_layers(plan: Plan, ledger: Ledger) -> dict[str, str]:
    """Sparse layers that ran slower inside the whole model than the same layer did dense there."""
    dense = {layer.name: layer.median_us for layer in ledger.dense(plan.dtype).layers}
    slow = {}
    for layer in ledger.measured[plan.id].layers if plan.id in ledger.measured else ():
        if layer.sparsity > 0 and layer.median_us > dense.get(layer.name, float("inf")):
            slow[layer.name] = (
                f"{layer.label} took {layer.median_us:.1f} us inside the model, "
                f"dense {dense[layer.name]:.1f} us"
            )
    return slow


def finalist(plan: Plan, problem: Problem, ledger: Ledger) -> Finalist:
    """Puts together what is known of a plan that was run whole."""
    bare = uncorrected(problem)
    return Finalist(
        plan=plan,
        accuracy=ledger.accuracy(plan),
        measured=ledger.measured[plan.id],
        predicted_us=bare.predicted_us(plan),
        predicted_loss=bare.predicted_loss(plan),
        budget_us=problem.budget_us,
    )


def _finalists(problem: Problem, ledger: Ledger, progress: Progress) -> list[Finalist]:
    plans = [ledger.plans[plan_id] for plan_id in ledger.measured]
    found = []
    with progress.step("accuracy of what was run", len(plans)) as step:
        for plan in plans:
            # Dense in f32 is what a budget is set against; dense in another type may be what meets it.
            sparse = any(not choice.pattern.is_dense for choice in plan.layers.values())
            if sparse or problem.budget_us is None or plan.dtype != "f32":
                found.append(finalist(plan, problem, ledger))
            step.advance(1, plan.id)
    return found


def _distinct(plans: Iterable[Plan]) -> list[Plan]:
    first: dict[str, Plan] = {}
    for plan in plans:
        first.setdefault(plan.id, plan)
    return list(first.values())
