"""The few numbers a study varies, and the plan that a setting of them means.

A sampler cannot learn sixty raw parameters from sixty trials. It sets a handful of knobs instead, and
the exact solver fills in the layers. Three kinds of trial share the knobs, so that all trials of a
study have the same parameters, as some samplers need:

    policy   the knapsack at some part of the budget, with the losses bent by exponent, smoothing and a
             factor per stage: what additive losses misjudge is searched here
    staged   one pattern, and one sparsity per stage; with equal stages the uniform baseline
    local    a plan of the current front with one stage moved one step

A stage is a run of layers of one resolution. Where the table holds several dtypes, one more knob says
which: all of a trial's plan is in that dtype, and a local move starts from a plan of that dtype.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autosparse.patterns.family import family_of, finest_first
from autosparse.plans.plan import Plan
from autosparse.records import DENSE, LatencyOption, LayerChoice, Pattern
from autosparse.searching.knapsack import feasibility, solve
from autosparse.searching.problem import Problem, in_words

Kind = Literal["policy", "staged", "local"]
TrialKind = Literal["seed-knapsack", "dense", "uniform", "policy", "staged", "local"]
Params = dict[str, Any]

_FRACTION_STEP = 0.02
_MAX_STAGES = 8
_STAGE_REACH = 2


@dataclass(frozen=True, slots=True)
class Knobs:
    """The knobs of one problem.

    Attributes:
        problem: prepared table.
        parts: what of it is of one dtype, by dtype, f32 first.
        stages: layers with a sparse option, cut into runs.
        patterns: those on offer, finest first.
        grid: sparsities on offer, ascending.
        safety_margin: part of the budget that policies keep free.
    """

    problem: Problem
    parts: Mapping[str, Problem]
    stages: tuple[tuple[str, ...], ...]
    patterns: tuple[Pattern, ...]
    grid: tuple[float, ...]
    safety_margin: float = 0.0

    @classmethod
    def of(cls, problem: Problem, safety_margin: float = 0.0) -> Knobs:
        """Finds the knobs that a problem has."""
        choices = [o.choice for options in problem.options.values() for o in options]
        sparse = [choice for choice in choices if not choice.pattern.is_dense]
        return cls(
            problem,
            {dtype: problem.of(dtype) for dtype in problem.dtypes},
            stages(problem),
            tuple(finest_first(choice.pattern for choice in sparse)),
            tuple(sorted({choice.sparsity for choice in sparse})),
            safety_margin,
        )

    def distributions(self) -> dict[str, BaseDistribution]:
        """Gives the parameters of every trial; they depend on the problem's structure alone."""
        fraction = FloatDistribution(0.0, 1.0, step=_FRACTION_STEP)
        knobs: dict[str, BaseDistribution] = {
            "kind": CategoricalDistribution(get_args(Kind)),
            "budget_fraction": fraction,
            "loss_exponent": FloatDistribution(0.5, 2.0, step=0.25),
            "smoothing": FloatDistribution(0.0, 1.0, step=0.1),
            # Named when all patterns were 1xN; studies on disk hold it, and go on.
            "block_n_rank": IntDistribution(0, max(0, len(self.patterns) - 1)),
            "front_position": fraction,
            "move_stage": IntDistribution(0, max(0, len(self.stages) - 1)),
            "move_slower": IntDistribution(0, 1),
        }
        for index in range(len(self.stages)):
            knobs[f"stage_{index}"] = IntDistribution(-_STAGE_REACH, _STAGE_REACH)
        if len(self.parts) > 1:
            knobs["dtype"] = CategoricalDistribution(tuple(self.parts))
        return knobs

    def neutral(self) -> Params:
        """Gives the setting that bends nothing: the plain knapsack at the full budget, first dtype."""
        values: Params = {
            "kind": "policy",
            "budget_fraction": 1.0,
            "loss_exponent": 1.0,
            "smoothing": 0.0,
            "block_n_rank": max(0, len(self.patterns) - 1),
            "front_position": 0.0,
            "move_stage": 0,
            "move_slower": 0,
        }
        if len(self.parts) > 1:
            values["dtype"] = self.problem.dtypes[0]
        return values | {f"stage_{index}": 0 for index in range(len(self.stages))}

    def plan(self, params: Params, front: Sequence[Plan]) -> Plan:
        """Makes the plan that a setting means.

        Args:
            params: one value for every key of `distributions`.
            front: plans of the current front, fastest first; only a local move looks at them.
        """
        part = self.parts[params.get("dtype", self.problem.dtypes[0])]
        if params["kind"] == "staged":
            return self._staged(part, params)
        alike = [plan for plan in front if plan.dtype == part.dtypes[0]]
        if params["kind"] == "local" and alike:
            return self._moved(part, params, alike)
        return self._policy(part, params)

    def seeds(self, points: int, uniform_sparsity: Sequence[float]) -> list[tuple[TrialKind, Params]]:
        """Gives the settings every study starts from: dense, exact optima, uniform baselines.

        Every one in each dtype, turn and turn about, so that a short study sees something of all.

        Args:
            points: budgets for the exact optimum, per dtype.
            uniform_sparsity: sparsities of the baselines; those not in the grid are left out.
        """
        seeds = self._seeds(points, uniform_sparsity)
        if len(self.parts) == 1:
            return seeds
        return [(kind, params | {"dtype": dtype}) for kind, params in seeds for dtype in self.parts]

    def _seeds(self, points: int, uniform_sparsity: Sequence[float]) -> list[tuple[TrialKind, Params]]:
        dense = self.neutral() | {"kind": "staged"}
        seeds: list[tuple[TrialKind, Params]] = [("dense", dense)]
        for index in range(points):
            at = _on_step(1 - index / (points - 1))
            seeds.append(("seed-knapsack", self.neutral() | {"budget_fraction": at}))
        wanted = uniform_sparsity or [s for s in (0.5, 0.75, 0.875) if s in self.grid]
        for rank, sparsity in itertools.product(range(len(self.patterns)), wanted):
            if sparsity in self.grid:
                at = _on_step(1 - (self.grid.index(sparsity) + 1) / len(self.grid))
                uniform = {"kind": "staged", "budget_fraction": at, "block_n_rank": rank}
                seeds.append(("uniform", self.neutral() | uniform))
        return seeds

    # ------------------------------------------------------------------------------------- policy

    def _policy(self, part: Problem, params: Params) -> Plan:
        bent = self._bent(part, params)
        reach = feasibility(bent)
        top = reach.dense_us
        if part.budget_us is not None:
            top = min(top, part.budget_us * (1 - self.safety_margin))
        # With fine patterns alone the budget may be out of reach: then the fastest plan is the answer,
        # and the study learns from its excess.
        target = reach.fastest_us + params["budget_fraction"] * max(0.0, top - reach.fastest_us)
        note = ", ".join(f"{key}={value}" for key, value in params.items() if key in _POLICY_KNOBS)
        found = solve(bent, max(target, reach.fastest_us), note=f"knapsack: {note}")
        return part.plan(found.layers, found.note)

    def _bent(self, part: Problem, params: Params) -> Problem:
        """Gives the problem with fewer patterns and with losses bent by the knobs."""
        able = {DENSE, *self._upto(params)}
        scale = max((x for table in part.losses.values() for x in table.values()), default=0.0)
        options: dict[str, tuple[LatencyOption, ...]] = {}
        losses: dict[str, dict[str, float]] = {layer: {} for layer in part.layers}
        stage_of = {layer: i for i, stage in enumerate(self.stages) for layer in stage}
        for layer in part.layers:
            allowed = [o for o in part.options[layer] if o.choice.pattern in able]
            options[layer] = tuple(allowed)
            for choice in (o.choice for o in allowed if not o.choice.pattern.is_dense):
                relative = part.loss(layer, choice) / (scale or 1.0)
                bent = relative + params["smoothing"] * _PRIOR * choice.sparsity
                factor = 2.0 ** params[f"stage_{stage_of[layer]}"]
                losses[layer][choice.label] = factor * bent ** params["loss_exponent"]
        return dataclasses.replace(part, options=options, losses=losses)

    # ------------------------------------------------------------------------------------- staged

    def _staged(self, part: Problem, params: Params) -> Plan:
        base = round((1 - params["budget_fraction"]) * len(self.grid))
        upto = self._upto(params)
        offsets = [params[f"stage_{index}"] for index in range(len(self.stages))]
        steps = [base and min(max(base + offset, 0), len(self.grid)) for offset in offsets]
        choices: dict[str, LayerChoice] = {}
        for stage, step in zip(self.stages, steps, strict=True):
            for layer in stage if step else ():
                choice = _coarsest(part, layer, upto, self.grid[step - 1])
                if choice is not None:
                    choices[layer] = choice
        if not choices:
            return part.dense_plan()
        is_uniform = not any(offsets)
        what = "uniform" if is_uniform else "staged"
        at = f"{self.grid[base - 1]:g}" if is_uniform else ", ".join(map(str, steps))
        return part.plan(choices, f"{what} {upto[-1].name}@{at}{in_words(part.dtypes[0])}")

    def _upto(self, params: Params) -> tuple[Pattern, ...]:
        """Gives the patterns up to the knob's, finest first."""
        return self.patterns[: params["block_n_rank"] + 1]

    # -------------------------------------------------------------------------------------- local

    def _moved(self, part: Problem, params: Params, front: Sequence[Plan]) -> Plan:
        base = front[round(params["front_position"] * (len(front) - 1))]
        stage = self.stages[params["move_stage"]] if self.stages else ()
        step = 1 if params["move_slower"] else -1
        moved = {layer: _neighbour(part, layer, base.choice(layer), step) for layer in stage}
        way = "slower" if step > 0 else "faster"
        note = f"{base.id} with stage {params['move_stage']} one step {way}"
        return part.plan({**base.layers, **moved}, note)


_POLICY_KNOBS = ("budget_fraction", "loss_exponent", "smoothing")
# Full smoothing adds to each option a twentieth of the greatest loss, in proportion to its sparsity:
# enough to order options whose measured losses are all zero, too little to overrule a measured one.
_PRIOR = 0.05


def _coarsest(
    part: Problem, layer: str, upto: Sequence[Pattern], sparsity: float
) -> LayerChoice | None:
    """Gives a layer's option of that sparsity with the coarsest of some patterns, if any.

    Those of the last one's kind are taken first, so that a plan stays within one where it can.
    """
    fitting = {o.choice.pattern: o.choice for o in part.options[layer] if o.choice.sparsity == sparsity}
    able = [pattern for pattern in upto if pattern in fitting]
    kind = family_of(upto[-1]).kind(upto[-1])
    alike = [pattern for pattern in able if family_of(pattern).kind(pattern) == kind]
    return fitting[(alike or able)[-1]] if able else None


def _neighbour(part: Problem, layer: str, choice: LayerChoice, step: int) -> LayerChoice:
    """Gives the next faster or slower option that is worth having, seen from a choice."""
    ladder = ladder_of(part, layer)
    now = part.option(layer, choice).median_us
    beyond = [o for o in ladder if (o.median_us - now) * step > 0]
    if not beyond:
        return choice
    return min(beyond, key=lambda option: abs(option.median_us - now)).choice


def ladder_of(problem: Problem, layer: str) -> list[LatencyOption]:
    """Gives a layer's options that no other one beats in both latency and loss, fastest first.

    Args:
        problem: of one dtype.
        layer: the layer.
    """
    ladder: list[LatencyOption] = []
    options = problem.options[layer]
    for option in sorted(options, key=lambda o: (o.median_us, problem.loss(layer, o.choice))):
        loss = problem.loss(layer, option.choice)
        if not ladder or loss < problem.loss(layer, ladder[-1].choice):
            ladder.append(option)
    return ladder


def stages(problem: Problem) -> tuple[tuple[str, ...], ...]:
    """Cuts the layers that have a sparse option into at most eight runs.

    A run ends where the number of output pixels changes, or, where extents are unknown, the first part
    of the layers' names. If everything is one run it is cut into up to four equal parts, and more than
    eight runs become eight equal parts: neither one knob nor dozens would tell the sampler anything.
    """
    free = [
        layer
        for layer in problem.layers
        if any(not option.choice.pattern.is_dense for option in problem.options[layer])
    ]
    runs = [
        tuple(run) for _, run in itertools.groupby(free, key=lambda n: _stage_key(problem.extents, n))
    ]
    if len(runs) == 1 and len(free) > 3:
        return _equal_parts(free, 4)
    return tuple(runs) if len(runs) <= _MAX_STAGES else _equal_parts(free, _MAX_STAGES)


def _stage_key(extents: Mapping[str, int], layer: str) -> int | str:
    return extents[layer] if layer in extents else layer.split(".", maxsplit=1)[0]


def _equal_parts(layers: Sequence[str], count: int) -> tuple[tuple[str, ...], ...]:
    cuts = [round(index * len(layers) / count) for index in range(count + 1)]
    return tuple(tuple(layers[a:b]) for a, b in itertools.pairwise(cuts))


def _on_step(value: float) -> float:
    return round(round(value / _FRACTION_STEP) * _FRACTION_STEP, 10)
