"""The one writer of a study: it alone asks and tells, retries what failed, and mends what was killed.

It lives in the driving process, not on Ray: a study must outlast any worker, and a lost cluster must
not take the storage's writer along. Workers get a plan and give an accuracy; no sampler, storage or
Optuna object ever travels.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from autosparse.errors import RunError
from autosparse.plans.front import feasible_front
from autosparse.plans.plan import Plan
from autosparse.records import Accuracy, short_hash
from autosparse.searching import samplers, told
from autosparse.searching.evaluations import Evaluations
from autosparse.searching.knobs import Knobs, TrialKind
from autosparse.searching.problem import Problem, plan_labels
from autosparse.searching.storage import JOURNAL, check_same, my_lease, open_storage
from autosparse.searching.trials import StudySettings, TrialRecord
from autosparse.storage.files import write_yaml

CONSTRAINT = "latency_over_budget_ms"
_LOG = logging.getLogger(__name__)
_DUPLICATES_IN_A_ROW = 50
_KEPT_IN_RETRIES = ("kind", "plan", "plan_note", "dtype")


@dataclass(frozen=True, slots=True)
class Asked:
    """A trial that waits for its plan's accuracy."""

    trial: optuna.Trial
    plan: Plan
    latency_ms: float

    @property
    def number(self) -> int:
        """Optuna's number of the trial."""
        return self.trial.number


class StudyOwner:
    """Opens or continues a study; the caller holds the folder's lock.

    On opening, every trial that a dead process left running is told to have failed and is queued again
    with its parameters and plan.

    Args:
        problem: prepared table.
        settings: how the study runs.
        folder: where plans, evaluations and the default journal live.

    Raises:
        RunError: the study in the storage is another one, or another process writes to it.
        UsageError: the storage URL is no database.
    """

    def __init__(self, problem: Problem, settings: StudySettings, folder: Path) -> None:
        self.problem = problem
        self.settings = settings
        self._folder = folder
        self._knobs = Knobs.of(problem, settings.safety_margin)
        self._distributions = self._knobs.distributions()
        self._records: dict[int, TrialRecord] = {}
        if settings.fresh:
            _forget(folder)
        self._storage = open_storage(folder, settings.storage)
        self._study = _open_study(self._storage, settings)
        self._check_same()
        self._study.set_user_attr("writer", my_lease())
        (folder / "plans").mkdir(exist_ok=True)
        self.evaluations = Evaluations(folder / "evaluations.jsonl", settings.evaluation_key)
        self.reconcile("its process ended before the trial did")
        self._seed()
        told.begin(folder, (new for record in self.records() for new in _told(record)))

    # ------------------------------------------------------------------------------------ reading

    def records(self) -> tuple[TrialRecord, ...]:
        """Gives every finished trial, by number."""
        for trial in self._trials(TrialState.COMPLETE, TrialState.FAIL):
            if trial.number not in self._records:
                self._records[trial.number] = _record(trial)
        return tuple(self._records[number] for number in sorted(self._records))

    def plan(self, record: TrialRecord) -> Plan:
        """Gives the plan of a finished trial."""
        return self._plan_of(self._study.get_trials(deepcopy=False)[record.number])

    def evaluated(self) -> int:
        """Counts the plans that are done with: told a value for the first time, or given up."""
        done = [record for record in self.records() if record.duplicate_of is None]
        given_up = {r.plan_id for r in done if r.plan_id and self._is_given_up(r.plan_id)}
        return sum(r.state == "COMPLETE" for r in done) + len(given_up)

    def is_exhausted(self) -> bool:
        """Whether drawing goes on finding only plans that are known already."""
        last = self.records()[-_DUPLICATES_IN_A_ROW:]
        return len(last) == _DUPLICATES_IN_A_ROW and all(r.duplicate_of is not None for r in last)

    # ------------------------------------------------------------------------------------- asking

    def ask_round(self, limit: int) -> list[Asked]:
        """Asks for the next trials to evaluate, up to `limit`.

        A round holds either queued trials (seeds, retries) or drawn ones, never both: what is drawn
        then does not depend on where an earlier run was cut off. Plans that are known already are told
        at once and leave their place in the round empty.
        """
        self._study.set_user_attr("writer", my_lease())
        queued = len(self._trials(TrialState.WAITING))
        asked: list[Asked] = []
        for _ in range(min(limit, queued) if queued else limit):
            ask = self._ask()
            before = self._known_as(ask.plan.id)
            if before is None:
                asked.append(ask)
            else:
                self._repeat(ask, before)
        return asked

    def _ask(self) -> Asked:
        drawn = sum("fixed_params" not in t.system_attrs for t in self._trials(*TrialState))
        self._study.sampler = samplers.make(
            self.settings.sampler,
            seed=self.settings.seed,
            draw=drawn,
            startup_trials=self.settings.startup_trials,
        )
        trial = self._study.ask(self._distributions)
        plan = self._make_plan(trial)
        latency_ms = self.problem.predicted_us(plan) / 1e3
        self._note(
            trial,
            kind=trial.user_attrs.get("kind", trial.params["kind"]),
            plan=plan_labels(plan),
            plan_note=plan.note,
            plan_id=plan.id,
            dtype=plan.dtype,
            latency_ms=latency_ms,
            attempt=self._failures(plan.id),
        )
        self._save(plan)
        return Asked(trial, plan, latency_ms)

    def _save(self, plan: Plan) -> None:
        path = self._folder / "plans" / f"{plan.id}.yaml"
        if not path.exists():
            write_yaml(path, plan.to_json())

    def _make_plan(self, trial: optuna.Trial) -> Plan:
        if "plan" in trial.user_attrs:  # a retry repeats the plan, wherever the front is by now
            return _noted_plan(self.problem, trial.user_attrs)
        return self._knobs.plan(trial.params, self._front() if trial.params["kind"] == "local" else ())

    def _front(self) -> list[Plan]:
        records = [record for record in self.records() if record.state == "COMPLETE"]
        return [self.plan(record) for record in feasible_front(records)]

    def _known_as(self, plan_id: str) -> TrialRecord | None:
        """Gives the trial that settled a plan: that has its values, or was the last try."""
        same = [r for r in self.records() if r.plan_id == plan_id and r.duplicate_of is None]
        last_try = same[-1] if same and self._is_given_up(plan_id) else None
        return next((r for r in same if r.state == "COMPLETE"), last_try)

    def _failures(self, plan_id: str) -> int:
        """Counts the tries that a plan has used up."""
        return sum(
            r.plan_id == plan_id and r.state == "FAIL" and r.duplicate_of is None
            for r in self.records()
        )

    def _is_given_up(self, plan_id: str) -> bool:
        return self._failures(plan_id) > self.settings.retries

    # ------------------------------------------------------------------------------------ telling

    def tell(self, asked: Asked, accuracy: Accuracy, seconds: float, **notes: Any) -> None:
        """Tells a trial's values: predicted latency in milliseconds, and accuracy."""
        self._note(asked.trial, accuracy=accuracy.to_json(), evaluation_s=seconds, **notes)
        self._constrain(asked.trial, asked.latency_ms)
        frozen = self._study.tell(asked.trial, [asked.latency_ms, accuracy.value])
        for new in _told(_record(frozen)):
            told.add(self._folder, new)

    def tell_failed(self, asked: Asked, reason: str, **notes: Any) -> None:
        """Tells that an evaluation failed, and queues it again unless it was tried often enough."""
        _LOG.warning("trial %d (plan %s) failed: %s", asked.number, asked.plan.id, reason)
        self._note(asked.trial, **notes)
        self._fail(asked.trial, reason, asked.latency_ms)
        self._requeue()

    def reconcile(self, reason: str) -> None:
        """Ends every trial that is still running and queues it again; no one else runs trials here."""
        for frozen in self._trials(TrialState.RUNNING):
            trial = optuna.Trial(self._study, frozen._trial_id)
            self._fail(trial, reason, frozen.user_attrs.get("latency_ms"))
        self._requeue()

    def close(self) -> None:
        """Puts what still runs back where it stood in the queue, and gives the study back.

        So a stop uses up no try, and the study goes on as if there had been none.
        """
        for frozen in self._trials(TrialState.RUNNING):
            self._storage.set_trial_state_values(frozen._trial_id, TrialState.WAITING)
        self._study.set_user_attr("writer", None)

    def _repeat(self, asked: Asked, before: TrialRecord) -> None:
        if before.accuracy is None:
            self._note(asked.trial, duplicate_of=before.number)
            self._fail(asked.trial, f"as trial {before.number}: {before.reason}", asked.latency_ms)
        else:
            self.tell(asked, before.accuracy, 0.0, duplicate_of=before.number)

    def _fail(self, trial: optuna.Trial, reason: str, latency_ms: float | None) -> None:
        # A trial killed before it had a plan has no latency; it counts as meeting the budget, which
        # no sampler looks at in a failed trial.
        self._note(trial, reason=reason)
        self._constrain(trial, latency_ms)
        self._study.tell(trial, state=TrialState.FAIL)

    def _requeue(self) -> None:
        """Queues every failed trial again that was not yet, unless its plan is settled.

        A kill costs a try as well: the plan may be what killed its process.
        """
        again = {trial.user_attrs.get("retry_of") for trial in self._trials(*TrialState)}
        for trial in self._trials(TrialState.FAIL):
            notes = trial.user_attrs
            if trial.number in again or "duplicate_of" in notes:
                continue
            if "plan_id" in notes and self._known_as(notes["plan_id"]):
                continue
            kept: dict[str, Any] = {key: notes[key] for key in _KEPT_IN_RETRIES if key in notes}
            params = trial.system_attrs.get("fixed_params", {}) | trial.params
            self._study.enqueue_trial(params, user_attrs=kept | {"retry_of": trial.number})

    def _constrain(self, trial: optuna.Trial, latency_ms: float | None) -> None:
        """Sets the budget's constraint; a trial without any would count as feasible."""
        if CONSTRAINT not in trial.constraints:
            trial.set_constraint(CONSTRAINT, _excess(self.problem, latency_ms))

    def _note(self, trial: optuna.Trial, **attributes: Any) -> None:
        for key, value in attributes.items():
            trial.set_user_attr(key, value)

    # ------------------------------------------------------------------------------------ opening

    def _check_same(self) -> None:
        asked = dict(self.settings.asked)
        check_same(self.settings.study_name, self._study.user_attrs, asked)
        if asked and "asked" not in self._study.user_attrs:
            self._study.set_user_attr("asked", asked)
        knobs = {key: distribution_to_json(value) for key, value in self._distributions.items()}
        mine = short_hash([self.problem.structure, self.problem.budget_us, knobs])
        theirs = self._study.user_attrs.get("structure")
        if theirs is None:
            self._study.set_user_attr("structure", mine)
        elif theirs != mine:
            raise RunError(
                "a study must be continued with the model, options and budget it was started with, but "
                f"{self.settings.study_name!r} has others; start afresh or choose another study name"
            )

    def _seed(self) -> None:
        if self._study.user_attrs.get("seeded"):
            return
        for kind, params in self._knobs.seeds(
            self.settings.seed_points, self.settings.uniform_sparsity
        ):
            self._study.enqueue_trial(params, user_attrs={"kind": kind}, skip_if_exists=True)
        self._study.set_user_attr("seeded", True)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _plan_of(self, trial: FrozenTrial) -> Plan:
        return _noted_plan(self.problem, trial.user_attrs)


def _noted_plan(problem: Problem, notes: Mapping[str, Any]) -> Plan:
    """Rebuilds a trial's plan; studies from before there were dtypes note none."""
    return problem.plan_from_labels(notes["plan"], notes["plan_note"], notes.get("dtype", "f32"))


def _excess(problem: Problem, latency_ms: float | None) -> float:
    if problem.budget_us is None or latency_ms is None:
        return 0.0
    return latency_ms - problem.budget_us / 1e3


def _open_study(storage: BaseStorage, settings: StudySettings) -> optuna.Study:
    if settings.fresh and settings.study_name in _names(storage):
        optuna.delete_study(study_name=settings.study_name, storage=storage)
    return optuna.create_study(
        study_name=settings.study_name,
        storage=storage,
        directions=["minimize", "maximize"],
        load_if_exists=True,
    )


def _names(storage: BaseStorage) -> Iterable[str]:
    return (study.study_name for study in storage.get_all_studies())


def _forget(folder: Path) -> None:
    for name in ("evaluations.jsonl", JOURNAL):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "plans", ignore_errors=True)


def _record(trial: FrozenTrial) -> TrialRecord:
    notes = trial.user_attrs
    accuracy = notes.get("accuracy") if trial.state == TrialState.COMPLETE else None
    kind = cast(TrialKind, notes.get("kind", trial.params.get("kind", "policy")))
    return TrialRecord(
        number=trial.number,
        state="COMPLETE" if trial.state == TrialState.COMPLETE else "FAIL",
        kind=kind,
        plan_id=notes.get("plan_id", ""),
        dtype=notes.get("dtype", "f32"),
        latency_ms=notes.get("latency_ms", 0.0),
        accuracy=Accuracy.from_json(accuracy) if accuracy else None,
        excess_ms=trial.constraints.get(CONSTRAINT, 0.0),
        params=dict(trial.params),
        reason=notes.get("reason", ""),
        duplicate_of=notes.get("duplicate_of"),
        retry_of=notes.get("retry_of"),
        attempt=notes.get("attempt", 0),
        evaluation_s=notes.get("evaluation_s", 0.0),
    )


def _told(record: TrialRecord) -> tuple[told.Told, ...]:
    """Gives what is told of a trial to whoever watches: its plan's values, if it is the first of it."""
    if record.accuracy is None or record.duplicate_of is not None:
        return ()
    return (
        told.Told(
            number=record.number,
            kind=record.kind,
            plan_id=record.plan_id,
            dtype=record.dtype,
            latency_ms=record.latency_ms,
            accuracy=record.accuracy,
            excess_ms=record.excess_ms,
        ),
    )
