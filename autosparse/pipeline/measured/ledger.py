"""Whole-model figures and accuracies of a run: taken once, written at once, kept after a kill."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from autosparse.hosts.host import Host
from autosparse.hosts.opening import open_host
from autosparse.measuring.conditions import is_busy_accepted
from autosparse.measuring.turns import DISTURBED
from autosparse.pipeline.measured.by_rows import session_by_rows
from autosparse.pipeline.measured.session import (
    SESSION_US,
    Contestant,
    ContestantResult,
    SessionRequest,
    SessionResult,
    run_apart,
)
from autosparse.pipeline.trained.accuracies import Reached
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import Accuracy
from autosparse.searching.pool import AbstractPool
from autosparse.searching.trials import TrialRecord
from autosparse.storage.files import append_jsonl, read_jsonl

Measured = ContestantResult
TORCH = "torch"

# Something else may run on a host for seconds to minutes; dense, part of every session, tells. On a
# host that is never quiet a run does not repeat every session, but takes so much time for it in all.
_TRIES = 3
# On one that is left alone for less than this share of the time another session would be no better.
_LEFT_ALONE = 0.5
_REPEATING_S = 90.0
_PAUSE_S = 5.0
# Of a session that ranks plans: those that are published run once more, and longer.
_QUALIFYING_US = 10e6


def dense_name(dtype: str) -> str:
    """Names the dense model in a type, as a contestant on our engine."""
    return "dense" if dtype == "f32" else f"dense-{dtype}"


def run_alone(
    pool: AbstractPool, request: SessionRequest, progress: Progress, host: Host
) -> SessionResult:
    """Runs a session on a host once all work of the pool has ended; without one there, by its rows.

    Raises:
        AutosparseError: the session failed; names the reason.
    """
    if not host.runs:
        return session_by_rows(request, host)
    with pool.exclusive():
        return run_apart(request, progress, host)


class Evaluator(Protocol):
    """What gives accuracies of plans without training; `OneShotEvaluator` does."""

    def __call__(self, plan: Plan) -> Accuracy:
        """Gives the accuracy on validation data that the search ranks by."""
        ...

    def on_both(self, plan: Plan) -> tuple[Accuracy, Accuracy]:
        """Gives the accuracies on all of validation and of test."""
        ...


class Ledger:
    """Whole-model figures and one-shot accuracies of a run's plans.

    Args:
        path: file that remembers sessions, one line per plan.
        request: a session without contestants: all that they have in common.
        dense_weights: weights that plans prune.
        pool: whose work must rest while a session runs.
        evaluate: gives a plan's one-shot accuracies.
        progress: told of every session.
        dtypes: types that the dense model is measured in; the first one tells of disturbances.
        host: where sessions run; None is this machine.

    Attributes:
        state: the state of the host that counts.
        plans: plan id to plan, of all that was measured.
        measured: plan id to its figures in that state.
        references: the dense model's figures in it, by contestant.
        disturbances: why figures may be off; empty if none is.
    """

    def __init__(
        self,
        path: Path,
        request: SessionRequest,
        dense_weights: str,
        pool: AbstractPool,
        evaluate: Evaluator,
        progress: Progress,
        dtypes: Sequence[str] = ("f32",),
        host: Host | None = None,
    ) -> None:
        self._host = host or open_host()
        self._dtypes = tuple(dtypes)
        self._path = path
        self._request = request
        self._weights = dense_weights
        self._pool = pool
        self._evaluate = evaluate
        self._progress = progress
        self._accuracies: dict[str, Accuracy] = {}
        self.plans: dict[str, Plan] = {}
        self.measured: dict[str, Measured] = {}
        self.references: dict[str, Measured] = {}
        self.disturbances: list[str] = []
        self._least_dense_ms: dict[str, float] = {}
        self._repeating_s = 0.0
        self.state = ""
        for row in read_jsonl(path):
            self._resume(row)

    def dense(self, dtype: str) -> Measured:
        """Gives the dense model's figures on our engine in a type, from the latest session."""
        return self.references[dense_name(dtype)]

    def measure_references(self) -> None:
        """Measures the dense model, on our engine and on torch, unless that was done before."""
        if not self.references.keys() >= {contestant.name for contestant in self._references()}:
            self.measure([])

    def measure(self, plans: Sequence[Plan]) -> None:
        """Measures plans in one session with the dense model, and writes the figures down."""
        contestants = (
            *self._references(),
            *(
                Contestant(name=plan.id, weights=self._weights, plan=plan, dtype=plan.dtype)
                for plan in plans
            ),
        )
        by_id = {plan.id: plan for plan in plans}
        result = self._run_undisturbed(contestants, _QUALIFYING_US)
        for figure in result.results:
            plan = by_id.get(figure.name)
            row = {
                "plan": plan.to_json() if plan else None,
                "figure": figure.to_json(),
                "disturbed": result.disturbed,
            }
            append_jsonl(self._path, row)
            self._take(row)

    def measure_deployed(self, contestants: Sequence[Contestant]) -> dict[str, Measured]:
        """Measures the weights that would be deployed, in one session with the dense model.

        The references of this session replace the earlier ones, so that ratios are of one session.
        """
        everyone = (*self._references(), *contestants)
        result = self._run_undisturbed(everyone, SESSION_US)
        figures = {figure.name: figure.judged_in(self.state) for figure in result.results}
        self.references = {each.name: figures.pop(each.name) for each in self._references()}
        return figures

    def _run_undisturbed(self, contestants: tuple[Contestant, ...], session_us: float) -> SessionResult:
        """Runs a session, and again if it is disturbed; of several the one with the fastest dense.

        Disturbed is a session while which something else ran, whose dense model ran slower than before
        in this run in the same state of the host, or that did not see the state that counts.
        """
        request = self._request.with_contestants(contestants, session_us)
        sessions: list[SessionResult] = []
        while True:
            begun = time.monotonic()
            sessions.append(run_alone(self._pool, request, self._progress, self._host))
            self._judge(sessions[-1].of(dense_name(self._dtypes[0])))
            if not (why := self._why_disturbed(sessions[-1])):
                return sessions[-1]
            self._progress.log(f"the host is disturbed: {why}")
            if len(sessions) > 1:
                self._repeating_s += time.monotonic() - begun
            hopeless = sessions[-1].circumstances.undisturbed_share < _LEFT_ALONE
            if hopeless or len(sessions) == _TRIES or self._repeating_s >= _REPEATING_S:
                break
            self._progress.check()
            time.sleep(_PAUSE_S)
        best = min(sessions, key=self._doubt)
        why = self._why_disturbed(best)
        self.disturbances.append(f"{why}; sessions tried: {len(sessions)}")
        return dataclasses.replace(best, disturbed=why)

    def _why_disturbed(self, session: SessionResult) -> str:
        if is_busy_accepted():
            return ""
        if session.disturbed:
            return session.disturbed
        dense = session.of(dense_name(self._dtypes[0]))
        if self.state not in dense.states:
            return f"it was not in the state {self.state!r} for long enough, as it was before"
        for state, latency in dense.states.items():
            least_ms = self._least_dense_ms[state]
            if latency.median_ms > DISTURBED * least_ms:
                return (
                    f"dense took {latency.median_ms:.4g} ms, but {least_ms:.4g} ms in another session"
                )
        return ""

    def _doubt(self, session: SessionResult) -> tuple[bool, float]:
        """Orders disturbed sessions: those that saw the state that counts first, then by dense."""
        dense = session.of(dense_name(self._dtypes[0]))
        return self.state not in dense.states, dense.latency.median_ms

    def _judge(self, dense: Measured) -> None:
        """Takes note of how fast the dense model is in each state, and decides which state counts.

        What was measured in another state alone is forgotten, and measured again when it is asked for.
        """
        for state, latency in dense.states.items():
            least_ms = self._least_dense_ms.get(state, math.inf)
            self._least_dense_ms[state] = min(least_ms, latency.median_ms)
        if len(self._least_dense_ms) > 1:  # before the host was known to have states: in either of them
            self._least_dense_ms.pop("", None)
        extreme = max if self._request.judged == "worst" else min
        state = extreme(self._least_dense_ms, key=self._least_dense_ms.__getitem__)
        if state != self.state:
            self.state = state
            for known in (self.measured, self.references):
                for name, figure in list(known.items()):
                    if state in figure.states:
                        known[name] = figure.judged_in(state)
                    else:
                        del known[name]

    def _references(self) -> tuple[Contestant, ...]:
        """The dense model on our engine in every type and, where models run, on torch.

        On a processor that is in f32, on a GPU in the run's first type.
        """
        ours = (
            Contestant(name=dense_name(dtype), weights=self._weights, dtype=dtype)
            for dtype in self._dtypes
        )
        if not self._host.runs:
            return tuple(ours)
        dtype = "f32" if self._request.device == "cpu" else self._dtypes[0]
        return (*ours, Contestant(name=TORCH, weights=self._weights, engine="torch", dtype=dtype))

    def know(self, trials: Iterable[TrialRecord]) -> None:
        """Takes over what a study has evaluated in the same way, so that it is not done again."""
        for trial in trials:
            if trial.accuracy is not None and trial.accuracy.split == "validation":
                self._accuracies[trial.plan_id] = trial.accuracy

    def accuracy(self, plan: Plan) -> Accuracy:
        """Gives a plan's one-shot validation accuracy, evaluating it once."""
        if plan.id not in self._accuracies:
            self._accuracies[plan.id] = self._evaluate(plan)
        return self._accuracies[plan.id]

    def reached(self, plan: Plan) -> Reached:
        """Evaluates a plan without training, for the report: on test, and on all of validation."""
        validation, test = self._evaluate.on_both(plan)
        return Reached(test=test, validation=validation)

    def _take(self, row: Mapping[str, Any]) -> None:
        figure = ContestantResult.from_json(row["figure"]).judged_in(self.state)
        if row["plan"] is None:
            self.references[figure.name] = figure
            return
        plan = Plan.from_json(row["plan"])
        self.plans[plan.id] = plan
        self.measured[plan.id] = figure

    def _resume(self, row: Mapping[str, Any]) -> None:
        """Takes over a figure of an earlier process, unless its session was disturbed."""
        if row.get("disturbed"):
            return
        figure = ContestantResult.from_json(row["figure"])
        if figure.name == dense_name(self._dtypes[0]):
            self._judge(figure)
        self._take(row)
