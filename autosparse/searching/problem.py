"""The table a search works on: measured options and losses per layer, and what they predict for a plan.

Predicted latency is ``overhead + correction * sum of the chosen options' medians``. Predicted accuracy
is the dense accuracy less the sum of the chosen options' losses. Both are additive models; what they
miss is what the rest of the search is for.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from autosparse.errors import MissingMeasurement, UsageError
from autosparse.plan import Plan
from autosparse.records import Accuracy, LatencyOption, LayerChoice, Record, short_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem(Record):
    """One model on one machine, as measured.

    Attributes:
        model: the model's name as the user gave it.
        layers: all weight-bearing layers in the order they run.
        options: per layer, the ways to run it; always a dense one among them.
        losses: per layer, a choice's label (``1x16@0.75``) to the accuracy that it costs alone.
        overhead_us: time of a run outside the listed layers.
        budget_us: latency budget, None to search the whole front.
        correction: factor from the sum of layers to the measured whole.
        dense_accuracy: accuracy of the un-pruned model on the data the losses come from.
        extents: output pixels per layer; layers of one extent in a row form a stage. May be empty.
    """

    model: str
    layers: tuple[str, ...]
    options: Mapping[str, tuple[LatencyOption, ...]]
    losses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    overhead_us: float = 0.0
    budget_us: float | None = None
    correction: float = 1.0
    dense_accuracy: float = 1.0
    extents: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.layers or set(self.layers) != set(self.options):
            raise UsageError(
                "options must be given for exactly the layers of a model, at least one, but got "
                f"layers {list(self.layers)} and options for {list(self.options)}"
            )
        for layer in self.layers:
            _check_options(layer, self.options[layer])
        if not (self.correction > 0 and math.isfinite(self.overhead_us)):
            raise UsageError(
                "correction must be positive and overhead_us finite, but got "
                f"{self.correction} and {self.overhead_us}"
            )
        if self.budget_us is not None and not self.budget_us > 0:
            raise UsageError(f"budget_us must be greater than zero, but got {self.budget_us}")

    @property
    def structure(self) -> str:
        """Hash of what may be chosen where, whatever it was measured to cost."""
        labels = {
            layer: sorted(option_key(o.choice) for o in self.options[layer]) for layer in self.layers
        }
        return short_hash([self.model, list(self.layers), labels, dict(self.extents)])

    def dense_option(self, layer: str) -> LatencyOption:
        """Gives the dense option that sparse ones are held against: f32 if there is one."""
        dense = [option for option in self.options[layer] if option.choice.pattern.is_dense]
        return min(dense, key=lambda option: (option.choice.dtype != "f32", option.median_us))

    def option(self, layer: str, choice: LayerChoice) -> LatencyOption:
        """Gives the option that stands for a choice, the named kernel's or else the fastest.

        Raises:
            MissingMeasurement: the table holds none.
        """
        wanted = option_key(choice)
        found = [option for option in self.options[layer] if option_key(option.choice) == wanted]
        if not found:
            have = ", ".join(option_key(option.choice) for option in self.options[layer])
            raise MissingMeasurement(
                f"a plan may use only measured options, but got {wanted} for layer {layer!r}; "
                f"measured: {have}"
            )
        named = [option for option in found if option.choice.kernel == choice.kernel]
        return min(named or found, key=lambda option: option.median_us)

    def loss(self, layer: str, choice: LayerChoice) -> float:
        """Gives the accuracy that one choice costs alone; 0 for dense.

        Raises:
            MissingMeasurement: no loss was measured for it.
        """
        if choice.pattern.is_dense:
            return 0.0
        try:
            return self.losses[layer][choice.label]
        except KeyError:
            raise MissingMeasurement(
                f"a sparse choice must have a measured loss, but {choice.label} of layer {layer!r} has "
                "none; measure its sensitivity, or drop such options with search.problem.prepare"
            ) from None

    def total_us(self, medians_us: list[float]) -> float:
        """Composes layer latencies to the latency of the whole model."""
        return self.overhead_us + self.correction * math.fsum(medians_us)

    def predicted_us(self, plan: Plan) -> float:
        """Predicts a plan's latency in microseconds.

        Raises:
            MissingMeasurement: the plan uses an option that was not measured.
        """
        return self.total_us([self._chosen(plan, layer).median_us for layer in self.layers])

    def predicted_loss(self, plan: Plan) -> float:
        """Predicts how much accuracy a plan costs, as a fraction; it may exceed what there is to lose.

        Raises:
            MissingMeasurement: the plan uses a choice without a measured loss.
        """
        return math.fsum(self.loss(layer, plan.choice(layer)) for layer in self.layers)

    def predicted_accuracy(self, plan: Plan) -> Accuracy:
        """Predicts a plan's accuracy: dense accuracy less the summed losses, at least 0."""
        value = max(0.0, self.dense_accuracy - self.predicted_loss(plan))
        return Accuracy(value=value, kind="predicted", split="validation", samples=0)

    def plan(self, choices: Mapping[str, LayerChoice], note: str) -> Plan:
        """Makes a plan of per-layer choices, taking each option's own kernel; the rest is dense."""
        full = {
            layer: self.option(layer, choices[layer]).choice
            if layer in choices
            else self.dense_option(layer).choice
            for layer in self.layers
        }
        return Plan(model=self.model, layers=full, note=note)

    def plan_from_labels(self, labels: Mapping[str, str], note: str) -> Plan:
        """Rebuilds a plan from `plan_labels`.

        Raises:
            MissingMeasurement: a label that no option has.
        """
        choices = {}
        for layer, label in labels.items():
            found = [o.choice for o in self.options.get(layer, ()) if option_key(o.choice) == label]
            if not found:
                raise MissingMeasurement(f"no option of layer {layer!r} is called {label!r}")
            choices[layer] = found[0]
        return self.plan(choices, note)

    def dense_plan(self) -> Plan:
        """Gives the plan in which nothing is pruned."""
        return self.plan({}, "dense")

    def uniform_plan(self, block_n: int, sparsity: float) -> Plan:
        """Gives the plan of one block size and sparsity where the table offers it, dense elsewhere."""
        choices = {
            layer: option.choice
            for layer in self.layers
            for option in self.options[layer]
            if option.choice.pattern.group_out == block_n and option.choice.sparsity == sparsity
        }
        return self.plan(choices, f"uniform 1x{block_n}@{sparsity:g}")

    def _chosen(self, plan: Plan, layer: str) -> LatencyOption:
        choice = plan.choice(layer)
        return self.dense_option(layer) if choice == LayerChoice() else self.option(layer, choice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped(Record):
    """An option that a search will not consider, and why."""

    layer: str
    label: str
    reason: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A problem fit for solving, and what was taken out of it."""

    problem: Problem
    dropped: tuple[Dropped, ...]


def option_key(choice: LayerChoice) -> str:
    """Names a choice within its layer: its label, and the dtype where it is not f32."""
    return choice.label if choice.dtype == "f32" else f"{choice.label}/{choice.dtype}"


def plan_labels(plan: Plan) -> dict[str, str]:
    """Gives the sparse part of a plan as layer to `option_key`, a short form for study records."""
    return {
        layer: option_key(choice)
        for layer, choice in plan.layers.items()
        if not choice.pattern.is_dense
    }


def prepare(problem: Problem) -> Prepared:
    """Completes the losses and drops every option that a plan must not use.

    Losses become the monotone envelope described at `complete_losses`. An option is dropped if no loss
    is known for it, or if it is not faster than the dense layer beyond both confidence intervals: a
    layer that is faster dense stays dense. Preparing twice changes nothing.
    """
    losses = {layer: complete_losses(problem, layer) for layer in problem.layers}
    options: dict[str, tuple[LatencyOption, ...]] = {}
    dropped: list[Dropped] = []
    for layer in problem.layers:
        dense = problem.dense_option(layer)
        kept = []
        for option in problem.options[layer]:
            reason = _why_drop(option, dense, losses[layer])
            if reason:
                dropped.append(Dropped(layer=layer, label=option_key(option.choice), reason=reason))
            else:
                kept.append(option)
        options[layer] = tuple(kept)
        labels = {option.choice.label for option in kept}
        losses[layer] = {label: x for label, x in losses[layer].items() if label in labels}
    return Prepared(dataclasses.replace(problem, options=options, losses=losses), tuple(dropped))


def _why_drop(option: LatencyOption, dense: LatencyOption, losses: Mapping[str, float]) -> str:
    choice = option.choice
    if choice.pattern.is_dense:
        return ""
    if choice.label not in losses:
        return "no accuracy loss was measured at its sparsity or above"
    if option.ci_high_us >= dense.ci_low_us:
        return (
            f"not faster than dense beyond the intervals: {option.median_us:.1f} us (up to "
            f"{option.ci_high_us:.1f}) against {dense.median_us:.1f} us (down to {dense.ci_low_us:.1f})"
        )
    return ""


def complete_losses(problem: Problem, layer: str) -> dict[str, float]:
    """Gives one layer's losses for all of its options that losses can be given for.

    Measured losses are noisy: some are negative, and some fall where more is pruned. For every pattern
    the loss becomes the running maximum over rising sparsity, starting at 0: the least curve that is
    monotone and nowhere below a measurement, so that noise never makes more pruning look better.
    Between measured sparsities the curve is linear, from 0 at sparsity 0; above the highest measured
    one nothing is claimed. A pattern without any measurement borrows the curve of the nearest block
    size, the larger one of two as near, which errs toward a greater loss.
    """
    given = problem.losses.get(layer, {})
    points: dict[int, list[tuple[float, float]]] = {}
    choices = [o.choice for o in problem.options[layer] if not o.choice.pattern.is_dense]
    for choice in choices:
        if choice.label in given:
            points.setdefault(choice.pattern.group_out, []).append(
                (choice.sparsity, given[choice.label])
            )
    curves = {block_n: _envelope(measured) for block_n, measured in points.items()}
    completed = {}
    for choice in choices:
        loss = _read_off(curves, choice)
        if loss is not None:
            completed[choice.label] = loss
    return completed


def _envelope(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    curve = [(0.0, 0.0)]
    for sparsity, loss in sorted(points):
        if not math.isfinite(loss):
            raise UsageError(f"a loss must be a finite number, but got {loss} at sparsity {sparsity}")
        curve.append((sparsity, max(loss, curve[-1][1])))
    return curve


def _read_off(curves: Mapping[int, list[tuple[float, float]]], choice: LayerChoice) -> float | None:
    if not curves:
        return None
    wanted = math.log2(choice.pattern.group_out)
    block_n = min(curves, key=lambda n: (abs(math.log2(n) - wanted), -n))
    curve = curves[block_n]
    for (low, low_loss), (high, high_loss) in itertools.pairwise(curve):
        if choice.sparsity <= high:
            share = (choice.sparsity - low) / (high - low) if high > low else 1.0
            return low_loss + share * (high_loss - low_loss) if share < 1 else high_loss
    return None


def _check_options(layer: str, options: tuple[LatencyOption, ...]) -> None:
    if not any(option.choice.pattern.is_dense for option in options):
        raise UsageError(f"every layer must have a dense option, but {layer!r} has none; tune it first")
    for option in options:
        if not (math.isfinite(option.median_us) and option.median_us > 0):
            raise UsageError(
                f"a latency must be finite and above zero, but got {option.median_us} us for "
                f"{option.choice.label} of layer {layer!r}"
            )
