"""The table a search works on: measured options and losses per layer, and what they predict for a plan.

Predicted latency is ``overhead + correction * sum of the chosen options' medians``. Predicted accuracy
is the dense accuracy less the sum of the chosen options' losses. Both are additive models; what they
miss is what the rest of the search is for.

A table may hold options of several dtypes. A plan has one dtype over all its layers, so whoever chooses
layer by layer does so in `Problem.of` one dtype.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from autosparse.errors import MissingMeasurement, PlanError, UsageError
from autosparse.patterns import family_of, label_of
from autosparse.plans.plan import Plan
from autosparse.records import Accuracy, LatencyOption, LayerChoice, Pattern, Record, short_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms(Record):
    """What computing in one dtype adds to the sums over layers.

    Attributes:
        overhead_us: time of a run outside the listed layers.
        correction: factor from the sum of layers to the measured whole.
        loss: accuracy that the dtype costs by itself, nothing pruned.
    """

    overhead_us: float = 0.0
    correction: float = 1.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        if not (self.correction > 0 and math.isfinite(self.overhead_us) and math.isfinite(self.loss)):
            raise UsageError(
                "correction must be positive, overhead_us and loss finite, but got "
                f"{self.correction}, {self.overhead_us} and {self.loss}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem(Record):
    """One model on one machine, as measured.

    Attributes:
        model: the model's name as the user gave it.
        layers: all weight-bearing layers in the order they run.
        options: per layer, the ways to run it; always a dense one among them, in every dtype there is.
        losses: per layer, a choice's label (``1x16@0.75``; equal labels are equal choices) to the
            accuracy that it costs alone, in whatever dtype.
        overhead_us: time of a run outside the listed layers, in dtypes that `terms` does not name.
        budget_us: latency budget, None to search the whole front.
        correction: factor from the sum of layers to the measured whole, likewise.
        terms: per dtype, what it adds to the sums over layers.
        dense_accuracy: accuracy of the un-pruned model, in f32, on the data the losses come from.
        extents: output pixels per layer; layers of one extent in a row form a stage. May be empty.
    """

    model: str
    layers: tuple[str, ...]
    options: Mapping[str, tuple[LatencyOption, ...]]
    losses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    overhead_us: float = 0.0
    budget_us: float | None = None
    correction: float = 1.0
    terms: Mapping[str, Terms] = field(default_factory=dict)
    dense_accuracy: float = 1.0
    extents: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.layers or set(self.layers) != set(self.options):
            raise UsageError(
                "options must be given for exactly the layers of a model, at least one, but got "
                f"layers {list(self.layers)} and options for {list(self.options)}"
            )
        every = itertools.chain.from_iterable(self.options.values())
        dtypes: set[str] = {option.choice.dtype for option in every}
        for layer in self.layers:
            _check_options(layer, self.options[layer], dtypes)
        Terms(overhead_us=self.overhead_us, correction=self.correction)
        if self.budget_us is not None and not self.budget_us > 0:
            raise UsageError(f"budget_us must be greater than zero, but got {self.budget_us}")

    @property
    def structure(self) -> str:
        """Hash of what may be chosen where, whatever it was measured to cost."""
        labels = {
            layer: sorted(option_key(o.choice) for o in self.options[layer]) for layer in self.layers
        }
        return short_hash([self.model, list(self.layers), labels, dict(self.extents)])

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Arithmetic types that the model can run in, f32 first."""
        found = {option.choice.dtype for option in self.options[self.layers[0]]}
        return tuple(sorted(found, key=lambda dtype: (dtype != "f32", dtype)))

    def of(self, dtype: str) -> Problem:
        """Gives the part of the table that is of one dtype.

        Raises:
            MissingMeasurement: there is none.
        """
        if self.dtypes == (dtype,):
            return self
        if dtype not in self.dtypes:
            raise MissingMeasurement(
                f"a dtype must be measured before it is chosen, but got {dtype}; "
                f"measured: {', '.join(self.dtypes)}"
            )
        options = {
            layer: tuple(option for option in self.options[layer] if option.choice.dtype == dtype)
            for layer in self.layers
        }
        return dataclasses.replace(self, options=options)

    def terms_of(self, dtype: str) -> Terms:
        """Gives what a dtype adds to the sums over layers."""
        shared = Terms(overhead_us=self.overhead_us, correction=self.correction)
        return self.terms.get(dtype, shared)

    def corrected(self, corrections: Mapping[str, float]) -> Problem:
        """Gives the problem with other corrections of some dtypes."""
        terms = {
            dtype: dataclasses.replace(self.terms_of(dtype), correction=factor)
            for dtype, factor in corrections.items()
        }
        return dataclasses.replace(self, terms={**self.terms, **terms})

    def dense_option(self, layer: str, dtype: str | None = None) -> LatencyOption:
        """Gives the option that sparse ones of a dtype are held against; None is the first dtype."""
        wanted = dtype or self.dtypes[0]
        dense = [
            option
            for option in self.options[layer]
            if option.choice.pattern.is_dense and option.choice.dtype == wanted
        ]
        if not dense:
            raise MissingMeasurement(
                f"a plan may use only measured options, but layer {layer!r} has none in {wanted}"
            )
        return min(dense, key=lambda option: option.median_us)

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

    def total_us(self, medians_us: list[float], dtype: str | None = None) -> float:
        """Composes layer latencies in a dtype, None being the first, to that of the whole model."""
        terms = self.terms_of(dtype or self.dtypes[0])
        return terms.overhead_us + terms.correction * math.fsum(medians_us)

    def predicted_us(self, plan: Plan) -> float:
        """Predicts a plan's latency in microseconds.

        Raises:
            MissingMeasurement: the plan uses an option that was not measured.
        """
        dtype = plan.dtype
        medians_us = [self._chosen(plan, layer, dtype).median_us for layer in self.layers]
        return self.total_us(medians_us, dtype)

    def predicted_loss(self, plan: Plan) -> float:
        """Predicts how much accuracy a plan costs, as a fraction; it may exceed what there is to lose.

        What its dtype costs by itself is counted.

        Raises:
            MissingMeasurement: the plan uses a choice without a measured loss.
        """
        losses = [self.loss(layer, plan.choice(layer)) for layer in self.layers]
        return math.fsum([self.terms_of(plan.dtype).loss, *losses])

    def predicted_accuracy(self, plan: Plan) -> Accuracy:
        """Predicts a plan's accuracy: dense accuracy less the summed losses, at least 0."""
        value = max(0.0, self.dense_accuracy - self.predicted_loss(plan))
        return Accuracy(value=value, kind="predicted", split="validation", samples=0)

    def plan(self, choices: Mapping[str, LayerChoice], note: str, dtype: str | None = None) -> Plan:
        """Makes a plan of per-layer choices, taking each option's own kernel; the rest is dense.

        Args:
            choices: of some layers, all in one dtype.
            note: the plan's.
            dtype: the plan's; None is that of the choices, without any the problem's first.

        Raises:
            PlanError: several dtypes.
            MissingMeasurement: an option that was not measured.
        """
        found: set[str] = {choice.dtype for choice in choices.values()}
        found |= {dtype} if dtype else set()
        if len(found) > 1:
            raise PlanError(
                f"all layers of a plan must have one dtype, but got {', '.join(sorted(found))}"
            )
        own = found.pop() if found else None
        full = {
            layer: self.option(layer, choices[layer]).choice
            if layer in choices
            else self.dense_option(layer, own).choice
            for layer in self.layers
        }
        return Plan(model=self.model, layers=full, note=note)

    def plan_from_labels(self, labels: Mapping[str, str], note: str, dtype: str = "f32") -> Plan:
        """Rebuilds a plan of some dtype from `plan_labels`.

        Raises:
            MissingMeasurement: a label that no option has.
        """
        choices = {}
        for layer, label in labels.items():
            found = [o.choice for o in self.options.get(layer, ()) if option_key(o.choice) == label]
            if not found:
                raise MissingMeasurement(f"no option of layer {layer!r} is called {label!r}")
            choices[layer] = found[0]
        return self.plan(choices, note, dtype)

    def dense_plan(self, dtype: str | None = None) -> Plan:
        """Gives the plan of a dtype, None being the first, in which nothing is pruned."""
        own = dtype or self.dtypes[0]
        return self.plan({}, f"dense{in_words(own)}", own)

    def uniform_plan(self, pattern: Pattern, sparsity: float, dtype: str | None = None) -> Plan:
        """Gives the plan of one pattern and sparsity where the table offers it, dense elsewhere."""
        own = self.of(dtype or self.dtypes[0])
        choices = {
            layer: option.choice
            for layer in own.layers
            for option in own.options[layer]
            if option.choice.pattern == pattern and option.choice.sparsity == sparsity
        }
        what = in_words(own.dtypes[0])
        return own.plan(choices, f"uniform {label_of(pattern, sparsity)}{what}", own.dtypes[0])

    def _chosen(self, plan: Plan, layer: str, dtype: str) -> LatencyOption:
        if layer not in plan.layers or plan.layers[layer] == LayerChoice():
            return self.dense_option(layer, dtype)
        return self.option(layer, plan.layers[layer])


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


def in_words(dtype: str) -> str:
    """Gives what a plan's note says of its dtype: nothing for f32, `` in bf16`` for others."""
    return "" if dtype == "f32" else f" in {dtype}"


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
    is known for it, or if it is not faster than the dense layer in its dtype beyond both confidence
    intervals: a layer that is faster dense stays dense. Preparing twice changes nothing.
    """
    losses = {layer: complete_losses(problem, layer) for layer in problem.layers}
    options: dict[str, tuple[LatencyOption, ...]] = {}
    dropped: list[Dropped] = []
    for layer in problem.layers:
        kept = []
        for option in problem.options[layer]:
            dense = problem.dense_option(layer, option.choice.dtype)
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
    one nothing is claimed. A pattern without any measurement borrows the curve of the nearest of its
    kind (`AbstractFamily.kind`), the coarser one of two as near, which errs toward a greater loss.
    """
    given = problem.losses.get(layer, {})
    points: dict[Pattern, list[tuple[float, float]]] = {}
    choices = [o.choice for o in problem.options[layer] if not o.choice.pattern.is_dense]
    for choice in choices:
        if choice.label in given:
            points.setdefault(choice.pattern, []).append((choice.sparsity, given[choice.label]))
    curves = {pattern: _envelope(measured) for pattern, measured in points.items()}
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


def _read_off(curves: Mapping[Pattern, list[tuple[float, float]]], choice: LayerChoice) -> float | None:
    family = family_of(choice.pattern)
    kind, wanted = family.kind(choice.pattern), family.rank(choice.pattern)
    ranks = {p: family.rank(p) for p in curves if family_of(p).kind(p) == kind}
    if not ranks:
        return None
    curve = curves[min(ranks, key=lambda p: (abs(ranks[p] - wanted), -ranks[p]))]
    for (low, low_loss), (high, high_loss) in itertools.pairwise(curve):
        if choice.sparsity <= high:
            share = (choice.sparsity - low) / (high - low) if high > low else 1.0
            return low_loss + share * (high_loss - low_loss) if share < 1 else high_loss
    return None


def _check_options(layer: str, options: tuple[LatencyOption, ...], dtypes: set[str]) -> None:
    dense = {option.choice.dtype for option in options if option.choice.pattern.is_dense}
    if missing := dtypes - dense or (not dense and {"f32"}):
        raise UsageError(
            f"every layer must have a dense option in every dtype there is, but {layer!r} has none in "
            f"{', '.join(sorted(missing))}; tune it first"
        )
    for option in options:
        if not (math.isfinite(option.median_us) and option.median_us > 0):
            raise UsageError(
                f"a latency must be finite and above zero, but got {option.median_us} us for "
                f"{option.choice.label} of layer {layer!r}"
            )
