"""What a search came to: the reference, the best configuration, and the sentence that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autosparse import factories
from autosparse.records import Accuracy, WholeLatency
from autosparse.report import words
from autosparse.report.document import Config, Document

Status = Literal["met", "infeasible", "front", "none"]

TRAINED = ("short", "full")  # kinds of accuracy with training behind them


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The dense run that speed-ups are counted from: the fastest there is.

    Attributes:
        engine: what ran it, such as ``autosparse``, ``autosparse bf16`` or ``torch``.
        latency: its latency.
        beaten: the slower ones that were measured too.
    """

    engine: str
    latency: WholeLatency
    beaten: tuple[str, ...] = ()


def dense_reference(document: Document) -> Reference | None:
    """Gives the fastest dense run, ours or a peer's; None if no dense run was measured."""
    runs = document.dense.runs
    if not runs:
        return None
    order = sorted(runs, key=lambda engine: runs[engine].median_ms)
    return Reference(engine=order[0], latency=runs[order[0]], beaten=tuple(order[1:]))


def speedup(document: Document, config: Config) -> float | None:
    """Gives the median of the fastest dense run over the configuration's; None if unmeasured."""
    reference = dense_reference(document)
    if reference is None or config.measured_latency_ms is None:
        return None
    return reference.latency.median_ms / config.measured_latency_ms


def dense_counterpart(document: Document, config: Config) -> Accuracy | None:
    """Gives the dense accuracy that a configuration's is set against: as much trained, of one split.

    Returns:
        For what was trained, that of the dense model trained in the same way and as long; for what was
        not, that of the dense model as it is. None where it is not known.
    """
    if config.accuracy_kind not in TRAINED:
        return document.dense.on(config.accuracy_split)
    like = document.dense.like(config.accuracy_kind, config.epochs)
    return None if like is None else like.on(config.accuracy_split)


def accuracy_change(document: Document, config: Config) -> float | None:
    """Gives the accuracy minus that of the `dense_counterpart`, a fraction; None without one."""
    dense = dense_counterpart(document, config)
    return None if dense is None else config.accuracy - dense.value


def best(document: Document) -> Config | None:
    """Gives the configuration the verdict names, or None."""
    return None if document.verdict.id is None else document.config(document.verdict.id)


def status(document: Document) -> Status:
    """Gives how it ended.

    Returns:
        ``met`` the budget is met, ``front`` there was no budget, ``infeasible`` nothing meets the
        budget, ``none`` there is no configuration at all though a budget might be met.
    """
    if document.budget_ms is None:
        return "front" if document.configs else "none"
    if any(config.feasible for config in document.configs):
        return "met"
    bound = smallest_feasible_ms(document)
    short = bound is not None and bound > document.budget_ms
    return "infeasible" if document.configs or short else "none"


def smallest_feasible_ms(document: Document) -> float | None:
    """Gives the least budget that could be met, None if nothing is known.

    That is the solver's bound, which is a prediction. Where all that was measured misses the budget, it
    is no less than what the fastest of that needs.
    """
    bound = None if document.feasibility is None else document.feasibility.smallest_feasible_ms
    if bound is not None and any(config.feasible for config in document.configs):
        return bound
    known = [value for value in (bound, fastest_upper_ms(document)) if value is not None]
    return max(known, default=None)


def fastest_upper_ms(document: Document) -> float | None:
    """Gives the least upper end of a configuration's measured interval; None if none was measured."""
    measured = [c.latency_ci_ms[1] for c in document.configs if c.latency_ci_ms is not None]
    return min(measured, default=None)


def sentence(document: Document) -> str:
    """Gives the result in one sentence; what a search stores as its verdict's text."""
    how = status(document)
    chosen = best(document)
    if how in ("infeasible", "none"):
        return _no_result(document, how)
    model = factories.shown(document.model)
    front = f"{words.count(len(document.configs), 'configuration')} on the front of {model}"
    if chosen is None:
        return f"{front}; none is singled out."
    of_type = f" in {chosen.dtype}" if document.dtypes != ("f32",) else ""
    budget = f", within the budget of {words.budget(document.budget_ms)}" if how == "met" else ""
    opening = model if how == "met" else f"{front}; the best trade-off"
    runs = f"{opening} runs{of_type} in {_latency(document, chosen)}{budget}"
    return (
        f"{runs}, with {_accuracy(document, chosen)}.{_without_zeros(chosen)}"
        f"{_in_other_states(document, chosen)}{_dense_suffices(document)}{_not_run(document)}"
    )


def _not_run(document: Document) -> str:
    """Says that nothing was run whole, and what latencies are then."""
    if not document.recorded:
        return ""
    return (
        f" No model was run: latencies are sums of rows recorded on {document.recorded}; operators "
        "without weights come on top."
    )


def _in_other_states(document: Document, config: Config) -> str:
    """Says what a configuration takes in the states of the host that the verdict is not taken in."""
    found = ", ".join(
        f"{words.ms(latency.median_ms)} with {words.state(state)}"
        for state, latency in config.latency_states.items()
        if state != document.host_state
    )
    here = words.state(document.host_state)
    return f" That is with the host's {here}; it takes {found}." if found else ""


def _without_zeros(config: Config) -> str:
    """Says of a configuration that it is none: the dense model, on kernels of its own."""
    return " It has no zeros: it is the dense model." if config.sparsity == 0 else ""


def _dense_suffices(document: Document) -> str:
    """Says that nothing need be pruned: the whole interval of a dense run is within the budget."""
    budget_ms, reference = document.budget_ms, dense_reference(document)
    if budget_ms is None or reference is None or reference.latency.ci_high_ms > budget_ms:
        return ""
    accuracy = document.dense.on(document.main_split, reference.latency.dtype)
    keeps = (
        "" if accuracy is None else f", with {words.percent(accuracy.value)} {accuracy.split} accuracy"
    )
    return (
        f" The dense model in {reference.engine} is within it as it is "
        f"({words.ms(reference.latency.median_ms)}{keeps})."
    )


def _no_result(document: Document, how: Status) -> str:
    model = factories.shown(document.model)
    budget = "" if document.budget_ms is None else f" within {words.budget(document.budget_ms)}"
    if how == "none":
        return f"No configuration of {model}{budget} could be evaluated."
    bound = smallest_feasible_ms(document)
    tail = "" if bound is None else f"; the smallest feasible budget is {words.least_ms(bound)}"
    where = document.recorded or "this machine"
    return (
        f"No configuration of {model} runs{budget} on {where}{tail}.{_left_open(document)}"
        f"{_not_run(document)}"
    )


def _left_open(document: Document) -> str:
    """Says of how many configurations the measurement leaves open whether they meet the budget."""
    found = [config for config in document.configs if document.is_open(config)]
    if not found:
        return ""
    longest_s = max(config.latency_deciding_s for config in found)
    return (
        f" {words.count(len(found), 'configuration')} may: the interval crosses the budget, also after "
        f"{longest_s:.0f} s of further turns, and counts as over it."
    )


def _latency(document: Document, config: Config) -> str:
    if config.measured_latency_ms is None:
        dense_ms = document.feasibility.dense_ms if document.feasibility else None
        against = "" if dense_ms is None else f", dense ones in {words.ms(dense_ms)}"
        return f"a predicted {words.ms(config.predicted_latency_ms)} (not measured){against}"
    text = words.ms_ci(config.measured_latency_ms, config.latency_ci_ms)
    reference, ratio = dense_reference(document), speedup(document, config)
    if reference is None or ratio is None:
        return text
    dense = f"the dense model in {reference.engine} ({words.ms(reference.latency.median_ms)})"
    return f"{text}, {words.times(ratio)} as fast as {dense}"


def _accuracy(document: Document, config: Config) -> str:
    text = f"{words.percent(config.accuracy)} {config.accuracy_split} accuracy"
    change = accuracy_change(document, config)
    if change is not None:
        against = f", {words.points(change)} against {counterpart_name(config)}"
    elif config.accuracy_kind in TRAINED:
        against = "; no dense model trained as long to compare with"
    else:
        against = ""
    return f"{text} ({words.kind(config.accuracy_kind)}{against})"


def counterpart_name(config: Config) -> str:
    """Names what a configuration's accuracy is set against."""
    return "dense trained as long" if config.accuracy_kind in TRAINED else "dense"
