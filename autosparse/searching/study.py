"""The study: seeds from the exact solver, then rounds of ask, evaluate and tell, until the budget ends.

Objectives are the predicted latency and the evaluated accuracy; the latency budget is a constraint
that every trial carries. A killed study continues where it was: what was evaluated is remembered, what
was running is asked again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from autosparse.errors import NoValidConfiguration
from autosparse.plans.front import Reference, feasible_front, hypervolume, least_infeasible
from autosparse.plans.plan import Plan
from autosparse.progress import Progress, Step
from autosparse.records import Accuracy
from autosparse.searching.knapsack import feasibility, infeasible
from autosparse.searching.owner import Asked, StudyOwner
from autosparse.searching.pool import AbstractPool, Handle, Outcome
from autosparse.searching.problem import Dropped, Problem, prepare
from autosparse.searching.storage import LOCK
from autosparse.searching.trials import HypervolumePoint, StudyResult, StudySettings, TrialRecord
from autosparse.storage.files import read_json, write_json
from autosparse.storage.locks import FileLock
from autosparse.storage.paths import writable_folder

Evaluate = Callable[[Plan], Accuracy]
_LOG = logging.getLogger(__name__)
_POLL_S = 0.5
_HOPELESS = 8
_LEAST_INFEASIBLE = 5


class PredictedAccuracy:
    """An evaluation that reads the table and runs nothing: for recorded tables without a model.

    Args:
        problem: the table, with losses.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = prepare(problem).problem

    def __call__(self, plan: Plan) -> Accuracy:
        """Gives the dense accuracy less the plan's summed losses."""
        return self._problem.predicted_accuracy(plan)


def run_study(
    problem: Problem,
    settings: StudySettings,
    evaluate: Evaluate,
    *,
    pool: AbstractPool,
    folder: Path,
    progress: Progress,
) -> StudyResult:
    """Runs a study to its end, or continues it.

    Args:
        problem: the measured table. A study that is continued keeps the one it was started with, so
            that all of its trials compare; that one is in the result.
        settings: how the study runs.
        evaluate: gives a plan's accuracy; picklable where the pool needs it.
        pool: where evaluations run. The caller closes it.
        folder: the study's own folder.
        progress: told of every plan that is done with.

    Raises:
        BudgetInfeasible: no assignment of the measured options meets the budget.
        NoValidConfiguration: every evaluation failed.
        Stopped: a stop was asked for; what has ended is saved, what was in flight is asked again.
        RunError: the folder cannot be written or is in use, or holds another study.
    """
    writable_folder(folder, "the study's folder")
    with FileLock(folder / LOCK):
        kept = _keep_problem(problem, folder, fresh=settings.fresh)
        prepared = prepare(kept)
        reach = feasibility(prepared.problem)
        if not reach.feasible:
            raise infeasible(reach)
        owner = StudyOwner(prepared.problem, settings, folder)
        try:
            _run(owner, evaluate, pool, progress)
            return _result(owner, prepared.dropped)
        finally:
            owner.close()


def _run(owner: StudyOwner, evaluate: Evaluate, pool: AbstractPool, progress: Progress) -> None:
    settings = owner.settings
    deadline = time.monotonic() + (settings.time_budget_s or math.inf)
    with progress.step("search", total=settings.trials) as step:
        done = owner.evaluated()
        step.advance(done, f"{done} plans known" if done else "")
        flight = _Flight(owner, evaluate, pool, progress)
        while True:
            room = settings.batch_size if settings.deterministic else settings.batch_size - len(flight)
            wanted = min(room, settings.trials - owner.evaluated() - len(flight))
            if time.monotonic() < deadline and not progress.stop_requested():
                flight.start(wanted)
            if not flight and _is_over(owner, deadline, progress):
                break
            flight.land(all_of_them=settings.deterministic)
            _report(owner, progress, step)
            _give_up_if_hopeless(owner)
        progress.check()


def _is_over(owner: StudyOwner, deadline: float, progress: Progress) -> bool:
    """Whether nothing more shall be asked, and why."""
    if owner.evaluated() >= owner.settings.trials or progress.stop_requested():
        return True
    if time.monotonic() >= deadline:
        _LOG.info("the search's time is up after %d plans", owner.evaluated())
        return True
    if owner.is_exhausted():
        _LOG.info("the search finds no new plans after %d", owner.evaluated())
        return True
    return False


def _report(owner: StudyOwner, progress: Progress, step: Step) -> None:
    """Moves the bar without raising: a stop is heeded by the flight."""
    done = float(owner.evaluated())
    if done > step.done:
        step.done = done
        complete = [record for record in owner.records() if record.state == "COMPLETE"]
        message = f"{len(feasible_front(complete))} on the front"
        progress.emit("advance", step.name, step.done, step.total, message)


class _Flight:
    """The evaluations under way."""

    def __init__(
        self, owner: StudyOwner, evaluate: Evaluate, pool: AbstractPool, progress: Progress
    ) -> None:
        self._owner = owner
        self._evaluate = evaluate
        self._pool = pool
        self._progress = progress
        self._first: dict[str, tuple[Asked, Handle]] = {}
        self._asked: list[Asked] = []

    def __len__(self) -> int:
        return len(self._asked)

    def start(self, limit: int) -> None:
        """Asks for up to `limit` trials and starts an evaluation for every plan that is new."""
        if limit < 1:
            return
        for asked in self._owner.ask_round(limit):
            self._asked.append(asked)
            if asked.plan.id not in self._first:
                self._first[asked.plan.id] = (asked, self._submit(asked.plan))

    def land(self, *, all_of_them: bool) -> None:
        """Waits for results, keeps each on disk as it comes, and tells them in the order asked.

        Raises:
            Stopped: a stop was requested; whatever had ended is on disk.
        """
        self._wait(all_of_them)
        for asked in list(self._asked):
            first, handle = self._first[asked.plan.id]
            if handle.outcome is not None:
                self._tell(asked, first, handle.outcome)
                self._asked.remove(asked)
        flying = {asked.plan.id for asked in self._asked}
        self._first = {key: value for key, value in self._first.items() if key in flying}

    def _submit(self, plan: Plan) -> Handle:
        known = self._owner.evaluations.get(plan.id)
        if known is not None:
            return Handle(-1, Outcome(status="ok", value=known))
        return self._pool.submit(
            self._evaluate,
            plan,
            cores=self._owner.settings.cores_per_evaluation,
            timeout_s=self._owner.settings.evaluation_timeout_s,
        )

    def _wait(self, all_of_them: bool) -> None:
        pending = {
            plan_id: handle for plan_id, (_, handle) in self._first.items() if not handle.outcome
        }
        ready = len(pending) < len(self._first)
        while pending and (all_of_them or not ready):
            self._pool.wait(list(pending.values()), _POLL_S)
            for plan_id, handle in list(pending.items()):
                if handle.outcome is not None:
                    handle.outcome = self._keep(plan_id, handle.outcome)
                    del pending[plan_id]
                    ready = True
            self._progress.check()

    def _keep(self, plan_id: str, outcome: Outcome) -> Outcome:
        """Writes a good result down; makes a failure of one that is no accuracy."""
        if outcome.status != "ok":
            return outcome
        value = outcome.value
        if not (isinstance(value, Accuracy) and 0 <= value.value <= 1):
            return Outcome(
                status="error",
                reason=f"an evaluation must give an accuracy in [0, 1], but got {value!r}",
            )
        self._owner.evaluations.put(plan_id, value, outcome.seconds)
        return outcome

    def _tell(self, asked: Asked, first: Asked, outcome: Outcome) -> None:
        """Tells one trial; of several with one plan, the later ones as duplicates of the first."""
        notes = {} if asked is first else {"duplicate_of": first.number}
        seconds = outcome.seconds if asked is first else 0.0
        if outcome.status == "ok":
            self._owner.tell(asked, outcome.value, seconds, **notes)
        else:
            if outcome.trace:
                _LOG.debug("%s", outcome.trace)
            self._owner.tell_failed(asked, f"{outcome.status}: {outcome.reason}", **notes)


def _give_up_if_hopeless(owner: StudyOwner) -> None:
    """Ends a study in which nothing works, instead of failing through all of its trials."""
    records = owner.records()
    failed = [record for record in records if record.state == "FAIL" and record.duplicate_of is None]
    if len(failed) >= _HOPELESS and len(failed) == len(records):
        raise NoValidConfiguration(
            f"at least one evaluation must succeed, but all {len(failed)} failed; the last one: "
            f"{failed[-1].reason}"
        )


def _keep_problem(problem: Problem, folder: Path, *, fresh: bool) -> Problem:
    """Gives the table this folder's study was started with, and writes it if this is the start."""
    path = folder / "problem.json"
    if path.exists() and not fresh:
        kept = Problem.from_json(read_json(path))
        if kept == problem:
            return kept
        if kept.structure == problem.structure and kept.budget_us == problem.budget_us:
            _LOG.info("the study goes on with the measurements it was started with")
            return kept
        return problem  # another study: the owner refuses to continue this folder's with it
    write_json(path, problem.to_json())
    return problem


def _result(owner: StudyOwner, dropped: tuple[Dropped, ...]) -> StudyResult:
    records = owner.records()
    complete = [record for record in records if record.state == "COMPLETE"]
    if not complete:
        last = records[-1].reason if records else "no evaluation was started in time"
        raise NoValidConfiguration(f"at least one evaluation must succeed, but none did: {last}")
    reach = feasibility(owner.problem)
    reference = Reference(
        latency_ms=1.1 * reach.dense_us / 1e3, accuracy=owner.settings.chance_accuracy
    )
    best = feasible_front(complete)
    nearest = () if best else least_infeasible(complete, _LEAST_INFEASIBLE)
    return StudyResult(
        problem=owner.problem,
        trials=records,
        hypervolume=tuple(_volumes(complete, reference)),
        reference=reference,
        front=tuple(owner.plan(record) for record in best),
        least_infeasible=tuple(owner.plan(record) for record in nearest),
        plans={r.plan_id: owner.plan(r) for r in complete if r.duplicate_of is None},
        feasibility=reach,
        dropped=dropped,
    )


def _volumes(complete: list[TrialRecord], reference: Reference) -> Iterable[HypervolumePoint]:
    best: tuple[TrialRecord, ...] = ()
    for record in complete:
        best = feasible_front((*best, record))
        yield HypervolumePoint(record.number, hypervolume(best, reference))
