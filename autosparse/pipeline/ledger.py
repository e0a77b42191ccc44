"""Whole-model figures and accuracies of a run: taken once, written at once, kept after a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autosparse.files import append_jsonl, read_jsonl
from autosparse.pipeline.session import (
    Contestant,
    ContestantResult,
    SessionRequest,
    SessionResult,
    run_apart,
)
from autosparse.plan import Plan
from autosparse.progress import Progress
from autosparse.records import Accuracy
from autosparse.searching.pool import AbstractPool
from autosparse.searching.trials import TrialRecord
from autosparse.tuning.stopwatch import DISTURBED

Measured = ContestantResult
TORCH = "torch"

# Hosts of virtual machines move their processors about: for seconds to minutes two cores may share no
# cache, and what needs both takes up to 2.5 times as long. Dense, part of every session, tells.
_TRIES = 3
_PAUSE_S = 5.0


def dense_name(dtype: str) -> str:
    """Names the dense model in a type, as a contestant on our engine."""
    return "dense" if dtype == "f32" else f"dense-{dtype}"


def run_alone(pool: AbstractPool, request: SessionRequest, progress: Progress) -> SessionResult:
    """Runs a session on this machine once all work of the pool has ended.

    Raises:
        AutosparseError: the session failed; names the reason.
    """
    with pool.exclusive():
        return run_apart(request, progress)


class Ledger:
    """Whole-model figures and one-shot accuracies of a run's plans.

    Args:
        path: file that remembers sessions, one line per plan.
        request: a session without contestants: all that they have in common.
        dense_weights: weights that plans prune.
        pool: whose work must rest while a session runs.
        evaluate: gives a plan's one-shot accuracy on validation data.
        progress: told of every session.
        dtypes: types that the dense model is measured in; the first one tells of disturbances.
    """

    def __init__(
        self,
        path: Path,
        request: SessionRequest,
        dense_weights: str,
        pool: AbstractPool,
        evaluate: Callable[[Plan], Accuracy],
        progress: Progress,
        dtypes: Sequence[str] = ("f32",),
    ) -> None:
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
        self._least_dense_ms = math.inf
        for row in read_jsonl(path):
            self._take(row)

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
        result = self._run_undisturbed(contestants)
        for figure in result.results:
            plan = by_id.get(figure.name)
            row = {"plan": plan.to_json() if plan else None, "figure": figure.to_json()}
            append_jsonl(self._path, row)
            self._take(row)

    def measure_deployed(self, contestants: Sequence[Contestant]) -> dict[str, Measured]:
        """Measures the weights that would be deployed, in one session with the dense model.

        The references of this session replace the earlier ones, so that ratios are of one session.
        """
        everyone = (*self._references(), *contestants)
        result = self._run_undisturbed(everyone)
        figures = {figure.name: figure for figure in result.results}
        self.references = {each.name: figures.pop(each.name) for each in self._references()}
        return figures

    def _run_undisturbed(self, contestants: tuple[Contestant, ...]) -> SessionResult:
        """Runs a session, and again if its dense model ran slower than it did before in this run.

        Of sessions that are all disturbed the one with the fastest dense model counts, and says so.
        """
        request = self._request.with_contestants(contestants)
        sessions: list[SessionResult] = []
        for attempt in range(_TRIES):
            if attempt:
                self._progress.check()
                time.sleep(_PAUSE_S)
            sessions.append(run_alone(self._pool, request, self._progress))
            dense_ms = self._dense_ms(sessions[-1])
            least_ms = self._least_dense_ms = min(self._least_dense_ms, dense_ms)
            if dense_ms <= DISTURBED * least_ms:
                return sessions[-1]
            self._progress.log(
                f"the host is disturbed: dense took {dense_ms:.4g} ms, {least_ms:.4g} ms before"
            )
        best = min(sessions, key=self._dense_ms)
        self.disturbances.append(
            f"dense ran in {self._dense_ms(best):.4g} ms, but in "
            f"{self._least_dense_ms:.4g} ms in another session of this run; {_TRIES} were tried"
        )
        return best

    def _dense_ms(self, session: SessionResult) -> float:
        return session.of(dense_name(self._dtypes[0])).latency.median_ms

    def _references(self) -> tuple[Contestant, ...]:
        """The dense model on our engine in every type, and on torch in f32."""
        ours = (
            Contestant(name=dense_name(dtype), weights=self._weights, dtype=dtype)
            for dtype in self._dtypes
        )
        return (*ours, Contestant(name=TORCH, weights=self._weights, engine="torch"))

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

    def _take(self, row: Mapping[str, Any]) -> None:
        figure = ContestantResult.from_json(row["figure"])
        if row["plan"] is None:
            self.references[figure.name] = figure
            if figure.name == dense_name(self._dtypes[0]):
                self._least_dense_ms = min(self._least_dense_ms, figure.latency.median_ms)
            return
        plan = Plan.from_json(row["plan"])
        self.plans[plan.id] = plan
        self.measured[plan.id] = figure
