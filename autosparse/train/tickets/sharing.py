"""One training for several plans of a front: which can share one, and training them so.

The densest plan of a group is trained; the others are forked from the mean of its tickets and say so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autosparse.errors import UsageError
from autosparse.patterns.family import UnitFamily, family_of
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records.rules import require
from autosparse.train.job import TrainJob, TrainResult, load_result
from autosparse.train.launch import train
from autosparse.train.recipes import Recipe
from autosparse.train.tickets.cycles import cycle_tickets, open_trained
from autosparse.train.tickets.forks import ensemble_accuracy, fork, patterns_of
from autosparse.train.tickets.records import EnsembleAccuracy, Tickets, TicketSettings

# What a fork loses with its distance, see `forks`.
REACH = 0.0625
# Of a training's epochs: 8 of 250 in each cycle, as in the source.
_EPOCHS_OF_CYCLE = 8 / 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What a plan reached, and by whom else.

    Attributes:
        result: of its training; a `ForkedResult` where another plan was trained.
        ensemble: what the tickets of that training reach together under this plan, on test data; None
            where nothing was shared.
    """

    result: TrainResult
    ensemble: EnsembleAccuracy | None = None


def settings_for(recipe: Recipe) -> TicketSettings:
    """Gives cycles as long, beside a recipe's epochs, as those of the source are beside its own."""
    return TicketSettings(epochs=_EPOCHS_OF_CYCLE * recipe.epochs)


def group_by_training(plans: Sequence[Plan], reach: float) -> list[list[Plan]]:
    """Gives groups of plans that can share one training, the plan to train first in each.

    A plan joins another's training if both have the same model, no layer of it is denser, those that
    the training prunes have the same pattern, and over all layers it is sparser by at most `reach` in
    the mean; so no fork can lack live units. Of several trainings it joins the nearest. A fork loses
    the more the farther it is (`forks` has figures). Dense plans, and those with units that follow from
    the weights, are trained by themselves.

    Args:
        plans: of a front, in any order.
        reach: largest difference of two plans' mean sparsity over their layers, in [0, 1]; 0 shares
            between equals alone.

    Returns:
        Groups by rising sparsity of their first plan; every plan is in one.

    Raises:
        UsageError: the reach is no such number.
    """
    require(0 <= reach <= 1, "reach must lie in [0, 1]", reach=reach)
    groups: list[list[Plan]] = []
    for plan in sorted(plans, key=lambda plan: (sum(_sparsities(plan).values()), plan.id)):
        gaps = [(_gap(group[0], plan, reach), group) for group in groups]
        near = [(gap, group) for gap, group in gaps if gap is not None]
        if near:
            min(near, key=lambda found: found[0])[1].append(plan)
        else:
            groups.append([plan])
    return groups


def train_shared(
    jobs: Mapping[str, TrainJob], settings: TicketSettings, reach: float, progress: Progress
) -> dict[str, Shared]:
    """Trains the first plan of each group, and forks the others from it.

    A plan whose own training is finished in its folder keeps that result.

    Args:
        jobs: name to job, which differ in plan and folder alone.
        settings: of the cycles after a training that others share.
        reach: see `group_by_training`.
        progress: told of every epoch and cycle.

    Returns:
        Name to what was reached, in the order of `jobs`.

    Raises:
        UsageError: the jobs differ in more, or two of them have one plan.
        TrainingDiverged: the loss of a training or a cycle is no longer finite.
        Stopped: a stop was requested; the same call resumes.
    """
    names = _names_by_plan(jobs)
    found: dict[str, Shared] = {}
    for head, *others in group_by_training([job.plan for job in jobs.values()], reach):
        trained = jobs[names[head.id]]
        result = train(trained, progress)
        if not others:
            found[names[head.id]] = Shared(result=result)
            continue
        tickets = cycle_tickets(open_trained(trained), settings, progress)
        found[names[head.id]] = _with_ensemble(result, tickets, head)
        for plan in others:
            progress.check()
            folder = Path(jobs[names[plan.id]].folder)
            reached = load_result(folder) or fork(tickets, plan, folder)
            found[names[plan.id]] = _with_ensemble(reached, tickets, plan)
    return {name: found[name] for name in jobs}


def _with_ensemble(result: TrainResult, tickets: Tickets, plan: Plan) -> Shared:
    return Shared(result=result, ensemble=ensemble_accuracy(tickets, plan, "test"))


def _names_by_plan(jobs: Mapping[str, TrainJob]) -> dict[str, str]:
    """Gives plan id to job name.

    Raises:
        UsageError: the jobs differ in more than plan and folder, or two of them have one plan.
    """
    first = next(iter(jobs.values()), None)
    names: dict[str, str] = {}
    for name, job in jobs.items():
        assert first is not None
        if dataclasses.replace(job, plan=first.plan, folder=first.folder) != first:
            raise UsageError(
                f"jobs that share a training must differ in plan and folder alone, but got {name!r}, "
                "which differs in more; train it by itself"
            )
        if job.plan.id in names:
            raise UsageError(
                f"jobs that share a training must have different plans, but got {job.plan.id} of "
                f"{names[job.plan.id]!r} and {name!r}; leave one out"
            )
        names[job.plan.id] = name
    return names


def _sparsities(plan: Plan) -> dict[str, float]:
    """Gives the sparsity of every layer that a plan makes sparse."""
    return {name: plan.layers[name].sparsity for name in patterns_of(plan)}


def _gap(trained: Plan, plan: Plan, reach: float) -> float | None:
    """Gives how much sparser a plan is, in the mean; None where it cannot share the training."""
    before, after = patterns_of(trained), patterns_of(plan)
    if plan.model != trained.model or any(after.get(name) != before[name] for name in before):
        return None
    if not (_has_tickets(trained) and _has_tickets(plan)):
        return None
    dense, sparse = _sparsities(trained), _sparsities(plan)
    gaps = [sparse[name] - dense.get(name, 0.0) for name in sparse]
    mean = sum(gaps) / len({*trained.layers, *plan.layers})
    return None if min(gaps) < -1e-9 or mean > reach + 1e-9 else mean


def _has_tickets(plan: Plan) -> bool:
    """Whether any layer is sparse, and all that are have units known beforehand."""
    families = [family_of(plan.layers[name].pattern) for name in patterns_of(plan)]
    return bool(families) and all(isinstance(family, UnitFamily) for family in families)
