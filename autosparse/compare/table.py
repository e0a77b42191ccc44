"""A comparison as rows and lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autosparse.compare.records import Comparison, LayerSum, Ratio, Refusal, Result, Session
from autosparse.records import WholeLatency
from autosparse.report import words
from autosparse.sessions.in_turn import Circumstances
from autosparse.units import format_bytes

_MANY_DISTURBED = 1 / 3
# An operator is shorter than a processor's slices of time, a whole run is not: this much more than the
# sum of its operators is not the engine's own doing.
_PREEMPTED = 1.5


def title(comparison: Comparison, session: Session) -> str:
    """Gives the headline of one session's table."""
    shape = "x".join(map(str, comparison.input_shape))
    threads = f"{session.threads} thread" + ("s" if session.threads > 1 else "")
    compact = ", ours with compact weights" if comparison.asked.compact_weights else ""
    rounds = f"{session.rounds} rounds in turn"
    state = session.circumstances.state.label
    of_state = f", {words.state(state)} unless a row says otherwise" if state else ""
    return f"{comparison.asked.subject.model}, {shape}, {threads}, {rounds}{compact}{of_state}"


def columns(session: Session) -> tuple[str, ...]:
    """Gives the headings; rivals differ from session to session."""
    return (
        "contestant",
        "type",
        "median ms",
        "95 % interval",
        *(f"x {name}" for name in rivals(session).values()),
        "GFLOP/s kept",
        "dense-equivalent",
        "of limit",
        "weights",
        "memory",
    )


def rivals(session: Session) -> dict[str, str]:
    """Gives type to the rival that ratios are taken over."""
    found: dict[str, str] = {}
    for result in session.results:
        found |= {dtype: ratio.over for dtype, ratio in result.ratios.items()}
    return found


def rows(session: Session) -> Iterator[tuple[object, ...]]:
    """Gives one row per contestant, slowest first; then those of other states of the host, alike."""
    kinds = tuple(rivals(session))
    ordered = sorted(session.results, key=lambda result: -result.latency.median_ms)
    for result in ordered:
        yield _row(result, kinds)
    for state in dict.fromkeys(state for result in ordered for state in result.elsewhere):
        for result in ordered:
            if state in result.elsewhere:
                yield _row_elsewhere(result, state, kinds)


def _row_elsewhere(result: Result, state: str, kinds: Sequence[str]) -> tuple[object, ...]:
    """Gives what depends on the state of the host; rates and sizes stand in the first row."""
    latency, ratios = result.elsewhere[state].latency, result.elsewhere[state].ratios
    over = (ratios.get(kind) for kind in kinds)
    return (
        f"{result.contestant.name}, {words.state(state)}",
        result.contestant.dtype,
        *_median_and_interval(latency),
        # The fastest rival of another state may be another one than the column's.
        *(f"{_ratio(each)} {each.over}" if each is not None else None for each in over),
        *(None,) * 5,
    )


def _median_and_interval(latency: WholeLatency) -> tuple[str, str]:
    return f"{latency.median_ms:.3f}", f"{latency.ci_low_ms:.3f}-{latency.ci_high_ms:.3f}"


def _row(result: Result, kinds: Sequence[str]) -> tuple[object, ...]:
    latency, rates = result.latency, result.rates
    share = rates.limit_share
    return (
        result.contestant.name,
        result.contestant.dtype,
        *_median_and_interval(latency),
        *(_ratio(result.ratios.get(kind)) for kind in kinds),
        f"{rates.kept_gflops:.1f}",
        f"{rates.dense_gflops:.1f}",
        None if share is None else f"{100 * share:.0f} %",
        _weights(result),
        _size(result.memory.size_bytes),
    )


def _ratio(ratio: Ratio | None) -> str | None:
    if ratio is None:
        return None
    return f"{ratio.median:.2f} ({ratio.ci_low:.2f}-{ratio.ci_high:.2f})"


def _weights(result: Result) -> str | None:
    if result.weight_share is None:
        return _size(result.weight_bytes)
    return f"{_size(result.weight_bytes)} ({100 * result.weight_share:.0f} % of dense)"


def _size(size_bytes: int | None) -> str | None:
    return None if size_bytes is None else format_bytes(size_bytes)


def remarks(session: Session) -> Iterator[str]:
    """Gives what a reader of the table must know."""
    for refusal in session.refused:
        yield refused(refusal)
    for result in session.results:
        if result.note:
            yield f"{result.contestant.name}: {result.note}"
    for result in session.results:
        total = result.layer_sum
        if total is not None:
            yield f"{result.contestant.name}: {layer_sum(total)}"
            if (times := total.measured_us / inside_us(total)) > _PREEMPTED:
                yield (
                    f"{result.contestant.name}: the whole took {times:.1f} times the sum of its "
                    "operators; something else used the processor, and the figures suffered"
                )
    yield from _circumstances(session.circumstances)
    if session.disturbed:
        share = len(session.disturbed) / session.rounds
        advice = "; most figures suffered, run it again" if share > _MANY_DISTURBED else ""
        yield f"the host disturbed {len(session.disturbed)} of {session.rounds} rounds{advice}"


def _circumstances(found: Circumstances) -> Iterator[str]:
    for state, rounds in found.too_short.items():
        where = words.state(state) or "one state"
        seen = f"{rounds} rounds only" if rounds else "less than a round"
        yield f"{where}: seen for {seen}, which is too short to tell anything"
    if found.why_disturbed:
        yield f"the host was busy with something else: {found.why_disturbed}; figures suffered"


def inside_us(total: LayerSum) -> float:
    """Gives the sum of all operators as they were timed inside whole runs."""
    return total.inside_us + sum(total.overheads_us.values())


def layer_sum(total: LayerSum) -> str:
    """Words what the sum of layers predicts."""
    others_us = sum(total.overheads_us.values())
    return (
        f"layers timed alone {total.tuned_us:.0f} us (inside the run {total.inside_us:.0f}) + other "
        f"operators {others_us:.0f} us = {total.predicted_us:.0f} us predicted, "
        f"{100 * total.ratio:.1f} % of the whole by itself ({total.steady_us:.0f} us; "
        f"{total.measured_us:.0f} in turn with others)"
    )


def scaling(comparison: Comparison) -> Iterator[str]:
    """Gives how much faster our contestants are on more threads than on fewest."""
    sessions = sorted(comparison.sessions, key=lambda session: session.threads)
    known = [{r.contestant.name: r for r in s.results if r.contestant.is_ours} for s in sessions]
    for session, results in list(zip(sessions, known, strict=True))[1:]:
        for name in [name for name in results if name in known[0]]:
            ratio = known[0][name].latency.median_ms / results[name].latency.median_ms
            yield (
                f"{name}: {ratio:.2f} times as fast on {session.threads} threads as on "
                f"{sessions[0].threads} (medians of two sessions)"
            )


def refused(refusal: Refusal) -> str:
    """Words one refusal."""
    said = {"absent": "absent", "failed": "not timed, failed", "wrong": "not timed, wrong"}
    return f"{refusal.name}: {said[refusal.kind]}: {refusal.reason}"


LAYER_COLUMNS = ("layer", "stored as", "kernel", "inside us", "alone us")


def layer_rows(result: Result) -> Iterator[tuple[object, ...]]:
    """Gives one row per layer of a contestant of ours."""
    for layer in result.layers:
        stored = "dense" if layer.sparsity == 0 else f"{layer.pattern}@{layer.sparsity:.3g}"
        yield layer.name, stored, layer.kernel, layer.inside_us, layer.alone_us
