"""Two fronts of one model compared: what moved beyond its intervals, and what cannot be compared.

Configurations are matched by their plans: by what they prune and in which type, whichever kernels run
it. What was found under other circumstances (another host, another state of it, more threads, longer
training) is never set against each other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from autosparse.report import move_words, words
from autosparse.report.document import Config, Document
from autosparse.report.moves import (
    AccuracyMove,
    AtAccuracy,
    Budget,
    ConfigMove,
    Fate,
    FrontMove,
    LatencyMove,
    Span,
)
from autosparse.report.verdict import best, status

# Without these being equal a latency says something else; and likewise for an accuracy.
_OF_LATENCIES = {
    "model": "models",
    "hardware_id": "hardware ids",
    "threads": "threads",
    "batch_size": "batch sizes",
    "input_shape": "input shapes",
    "dtypes": "types",
    "compact_weights": "choices of compact weights",
}
_OF_ACCURACIES = {
    "data": "data sets",
    "data_resolution": "resolutions of the data",
    "seed": "seeds, and with them the splits",
    "given_weights": "origins of the dense weights",
}
_TRAINING = {
    "accuracy_kind": "kinds",
    "epochs": "epochs",
    "accuracy_split": "splits",
    "accuracy_samples": "samples",
    "accuracy_dtype": "types",
    "accuracy_through": "programs",
}


def compare_fronts(older: Document, newer: Document, names: tuple[str, str] | None = None) -> FrontMove:
    """Says what became of a front.

    Args:
        older: the run before.
        newer: the run after.
        names: of the two runs; None takes when they were made.
    """
    before, after = names or (older.created_at, newer.created_at)
    state, why_no_state = _common_state(older, newer)
    why_not = (*_differing(older, newer, _OF_LATENCIES), *why_no_state)
    if why_not:
        return _told(FrontMove(model=newer.model, older=before, newer=after, why_not=why_not))
    why_no_accuracies = _differing(older, newer, _OF_ACCURACIES)
    budget, why_no_budget = _budget(older, newer, state)
    has_accuracies = not why_no_accuracies
    return _told(
        FrontMove(
            model=newer.model,
            older=before,
            newer=after,
            notes=(*(f"accuracies: {why}" for why in why_no_accuracies), *why_no_budget),
            state=state,
            dense=_dense(older, newer, state),
            configs=_configs(older, newer, state, has_accuracies=has_accuracies),
            at_accuracy=_at_accuracy(older, newer, state) if has_accuracies else None,
            budget_ms=newer.budget_ms if older.budget_ms == newer.budget_ms else None,
            budget=budget,
            chosen=(older.verdict.id, newer.verdict.id),
        )
    )


def _differing(older: object, newer: object, keys: Mapping[str, str]) -> tuple[str, ...]:
    """Says what two records differ in."""
    pairs = [(name, getattr(older, key), getattr(newer, key)) for key, name in keys.items()]
    return tuple(f"their {name} differ: {_shown(a)} and {_shown(b)}" for name, a, b in pairs if a != b)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "not recorded" if value is None else str(value)


# -------------------------------------------------------------------------------------- latencies


def _common_state(older: Document, newer: Document) -> tuple[str, tuple[str, ...]]:
    """Gives a state of the host that both have latencies of, and why there is none."""
    if older.host_state == newer.host_state:
        return newer.host_state, ()
    shared = [state for state in newer.host_states if state in older.host_states]
    if shared:
        return shared[0], ()
    one, other = (words.state(doc.host_state) or "only one known" for doc in (older, newer))
    return "", (f"their states of the host differ: {one} and {other}",)


def _dense(older: Document, newer: Document, state: str) -> dict[str, LatencyMove]:
    spans = [
        {name: _dense_span(document, name, state) for name in document.dense.runs}
        for document in (older, newer)
    ]
    return {
        name: LatencyMove.of(before, after)
        for name, after in spans[1].items()
        if after is not None and (before := spans[0].get(name)) is not None
    }


def _dense_span(document: Document, name: str, state: str) -> Span | None:
    latency = document.dense.runs[name]
    if latency.state != state:
        found = document.dense.latency_states.get(name, {}).get(state)
        if found is None:
            return None
        latency = found
    return latency.median_ms, (latency.ci_low_ms, latency.ci_high_ms)


def _span(document: Document, config: Config, state: str) -> Span | None:
    """Gives a configuration's latency in a state of the host; None where it is not known."""
    if state == document.host_state:
        if config.measured_latency_ms is None or config.latency_ci_ms is None:
            return None
        return config.measured_latency_ms, config.latency_ci_ms
    latency = config.latency_states.get(state)
    if latency is None:
        return None
    return latency.median_ms, (latency.ci_low_ms, latency.ci_high_ms)


# --------------------------------------------------------------------------------- configurations


def _configs(
    older: Document, newer: Document, state: str, *, has_accuracies: bool
) -> tuple[ConfigMove, ...]:
    was = _matches(older, newer)
    stayed = [
        _stayed(
            (was[config.id], _span(older, was[config.id], state)),
            (config, _span(newer, config, state)),
            has_accuracies=has_accuracies,
        )
        for config in newer.configs
        if config.id in was
    ]
    matched = {config.id for config in was.values()}
    appeared = [_alone("appeared", newer, c, state) for c in newer.configs if c.id not in was]
    gone = [_alone("gone", older, c, state) for c in older.configs if c.id not in matched]
    return (*stayed, *appeared, *gone)


def _matches(older: Document, newer: Document) -> dict[str, Config]:
    """Gives the id of a newer configuration to the older one of the same plan, or of equal zeros.

    An id covers the kernels that a plan names, and the fastest one may be another by now.
    """
    by_id = {config.id: config for config in older.configs}
    found = {config.id: by_id[config.id] for config in newer.configs if config.id in by_id}
    left = {_zeros(config): config for config in older.configs if config.id not in found}
    for config in newer.configs:
        if config.id not in found and (same := left.pop(_zeros(config), None)) is not None:
            found[config.id] = same
    return found


def _zeros(config: Config) -> tuple[object, ...]:
    """Gives what a configuration prunes, and its type; its id where its layers are not known."""
    if not config.layers:
        return (config.id,)
    return (config.dtype, *((each.name, each.label) for each in config.layers))


def _stayed(
    before: tuple[Config, Span | None], after: tuple[Config, Span | None], *, has_accuracies: bool
) -> ConfigMove:
    (older, older_span), (newer, newer_span) = before, after
    latency, why_not = None, []
    if older_span is None or newer_span is None:
        why_not.append("latencies that were not measured in both runs")
    else:
        latency = LatencyMove.of(older_span, newer_span)
    differing = _differing(older, newer, _TRAINING) if has_accuracies else ()
    why_not += [f"accuracies of {newer.id}: {why}" for why in differing]
    accuracy = None
    if has_accuracies and not differing:
        accuracy = AccuracyMove.of(older.accuracy, newer.accuracy, newer.accuracy_samples)
    return ConfigMove(
        id=newer.id,
        was=older.id if older.id != newer.id else "",
        dtype=newer.dtype,
        fate="stayed",
        latency=latency,
        accuracy=accuracy,
        why_not=tuple(why_not),
    )


def _alone(fate: Fate, document: Document, config: Config, state: str) -> ConfigMove:
    span = _span(document, config, state)
    return ConfigMove(
        id=config.id,
        dtype=config.dtype,
        fate=fate,
        only_ms=None if span is None else span[0],
        only_accuracy=config.accuracy,
    )


def _at_accuracy(older: Document, newer: Document, state: str) -> AtAccuracy | None:
    measured = [config for config in older.configs if _span(older, config, state) is not None]
    wanted = best(older) or max(measured, key=lambda config: config.accuracy, default=None)
    if wanted is None or wanted not in measured:
        return None
    value, samples = wanted.accuracy, wanted.accuracy_samples
    # Where all samples are right the formula would allow for none.
    error = max(math.sqrt(value * (1 - value) / samples), 1 / samples) if samples else 0.0
    level = value - error
    before = _fastest(older, wanted, level, state)
    after = _fastest(newer, wanted, level, state)
    assert before is not None  # the wanted one itself reaches it
    return AtAccuracy(
        accuracy=level,
        split=wanted.accuracy_split,
        before=before[0],
        after=None if after is None else after[0],
        latency=None if after is None else LatencyMove.of(before[1], after[1]),
    )


def _fastest(document: Document, like: Config, level: float, state: str) -> tuple[str, Span] | None:
    """Gives the fastest configuration that reaches an accuracy by as much training."""
    able = [
        (config.id, span)
        for config in document.configs
        if (config.accuracy_kind, config.epochs, config.accuracy_split)
        == (like.accuracy_kind, like.epochs, like.accuracy_split)
        and config.accuracy >= level
        and (span := _span(document, config, state)) is not None
    ]
    return min(able, key=lambda each: each[1][0], default=None)


def _budget(older: Document, newer: Document, state: str) -> tuple[Budget, tuple[str, ...]]:
    """Gives what became of the verdict, and why that cannot be said."""
    if older.budget_ms is None and newer.budget_ms is None:
        return "none", ()
    if older.budget_ms != newer.budget_ms:
        budgets = " and ".join(words.budget(doc.budget_ms) for doc in (older, newer))
        return "none", (f"verdicts: their budgets differ: {budgets}",)
    if not older.host_state == newer.host_state == state:
        return "none", ("verdicts: they are of different states of the host",)
    before, after = (status(document) == "met" for document in (older, newer))
    if before:
        return ("kept" if after else "lost"), ()
    return ("regained" if after else "missed"), ()


def _told(move: FrontMove) -> FrontMove:
    """Fills in what follows from the rest."""
    at = move.at_accuracy
    moved = (
        any(config.moved for config in move.of_fate("stayed"))
        or (at is not None and at.moved)
        or move.budget in ("lost", "regained")
    )
    move = dataclasses.replace(move, moved=moved)
    return dataclasses.replace(move, sentence=move_words.sentence(move))
