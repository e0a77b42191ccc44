"""An accuracy by formula for the made table: what additive losses predict, and what they miss.

Two neighbouring layers that are both sparse hurt each other, and the last stage is hurt less than its
layers alone say. So the exact optimum of the additive table is good here, but not the best.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from autosparse.plans.plan import Plan
from autosparse.records import Accuracy, LatencyOption
from autosparse.searching.problem import Problem, Terms, prepare

TABLE = Path(__file__).with_name("table.json")


def problem(budget_us: float | None = None) -> Problem:
    values = json.loads(TABLE.read_text())
    return Problem.from_json(values | {"budget_us": budget_us})


def with_bf16(
    problem: Problem,
    factor: Callable[[LatencyOption], float],
    *,
    overhead_us: float = 10.0,
    loss: float = 0.0,
) -> Problem:
    """Gives a table that holds every option in bf16 too, some factor as fast."""

    def again(option: LatencyOption) -> LatencyOption:
        scale = factor(option)
        kernel = option.choice.kernel and f"bf16_{option.choice.kernel}"
        return dataclasses.replace(
            option,
            choice=dataclasses.replace(option.choice, dtype="bf16", kernel=kernel),
            median_us=option.median_us * scale,
            ci_low_us=option.ci_low_us * scale,
            ci_high_us=option.ci_high_us * scale,
        )

    return dataclasses.replace(
        problem,
        options={layer: (*options, *map(again, options)) for layer, options in problem.options.items()},
        terms={
            "f32": problem.terms_of("f32"),
            "bf16": Terms(overhead_us=overhead_us, correction=1.1, loss=loss),
        },
    )


class Analytic:
    """Gives accuracies, and can be told to be slow, to fail, and to keep a log of its calls."""

    def __init__(
        self,
        *,
        seconds: float = 0.0,
        log: Path | None = None,
        failing: frozenset[str] = frozenset(),
        die: bool = False,
    ) -> None:
        self.problem = prepare(problem()).problem
        self.seconds = seconds
        self.log = log
        self.failing = failing
        self.die = die

    def __call__(self, plan: Plan) -> Accuracy:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(plan.id + "\n")
        time.sleep(self.seconds)
        if plan.id in self.failing:
            if self.die:
                os._exit(9)
            raise RuntimeError("made to fail")
        return Accuracy(value=self.value(plan), kind="one-shot", split="validation", samples=1000)

    def value(self, plan: Plan) -> float:
        loss = 0.0
        for layer in self.problem.layers:
            factor = 0.4 if layer.startswith("layer3") else 1.3
            loss += factor * self.problem.loss(layer, plan.choice(layer))
        for first, second in itertools.pairwise(self.problem.layers):
            loss += 0.05 * plan.choice(first).sparsity ** 2 * plan.choice(second).sparsity ** 2
        return round(max(0.1, 0.92 - loss), 6)


def span(seconds: float) -> tuple[float, float]:
    """Sleeps, and says from when to when."""
    start = time.time()
    time.sleep(seconds)
    return start, time.time()
