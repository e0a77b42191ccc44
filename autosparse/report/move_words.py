"""What became of a front, in words: one sentence, and a small table for terminals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from autosparse import factories
from autosparse.report import words
from autosparse.report.text import aligned

if TYPE_CHECKING:
    from autosparse.report.moves import ConfigMove, FrontMove, LatencyMove

_HEADER = ("", "before", "now", "ratio", "beyond", "accuracy before and now")
_BUDGET = {
    "none": "",
    "kept": "is still met",
    "missed": "is still not met",
    "lost": "is no longer met",
    "regained": "is met now",
}


def described(move: FrontMove) -> str:
    """Gives the sentence, a line per dense run and configuration, and what was not compared."""
    lines = [move.sentence]
    if move.configs or move.dense:
        rows = [_HEADER, *map(_dense_cells, move.dense.items()), *map(_cells, move.configs)]
        lines += ["", *aligned(rows, right={1, 2, 3, 4})]
    reasons = dict.fromkeys(why for config in move.configs for why in config.why_not)
    notes = [*move.notes, *reasons]
    return "\n".join([*lines, *([""] if notes else []), *(f"not compared: {why}" for why in notes)])


def sentence(move: FrontMove) -> str:
    """Says in one sentence what moved, or why nothing can be compared."""
    model = factories.shown(move.model)
    if move.why_not:
        return f"The fronts of {move.older} and {move.newer} cannot be compared: " + (
            "; ".join(move.why_not) + "."
        )
    parts = [_of_stayed(move), _of_accuracies(move), _of_equal_accuracy(move), _of_others(move)]
    parts += [_of_budget(move), _of_dense(move)]
    said = "; ".join(part for part in parts if part)
    return f"The front of {model} {'moved' if move.moved else 'stands'}: {said}."


def _of_stayed(move: FrontMove) -> str:
    known = [config for config in move.of_fate("stayed") if config.latency is not None]
    if not known:
        return "no configuration is on both fronts with a measured latency"
    outside = [config for config in known if config.latency is not None and config.latency.is_disjoint]
    of = words.count(len(known), "configuration")
    if not outside:
        is_one = len(known) == 1
        return f"{of} on both {'stays' if is_one else 'stay'} within the intervals"
    most = max(outside, key=_how_far)
    assert most.latency is not None
    return (
        f"{len(outside)} of {of} on both left the intervals, {most.id} the most, {_how(most.latency)}"
    )


def _how_far(config: ConfigMove) -> float:
    return 0.0 if config.latency is None else abs(math.log(config.latency.ratio))


def _how(latency: LatencyMove) -> str:
    return (
        f"from {words.ms(latency.before_ms)} to {words.ms(latency.after_ms)} "
        f"({words.times(latency.ratio)}, {words.ms(abs(latency.beyond_ms))} beyond)"
    )


def _of_accuracies(move: FrontMove) -> str:
    changes = [
        config.accuracy.change
        for config in move.of_fate("stayed")
        if config.accuracy is not None and config.accuracy.is_beyond
    ]
    if not changes:
        return ""
    most = max(changes, key=abs)
    of = words.count(len(changes), "configuration")
    return f"the accuracy of {of} changed by more than chance, by {words.points(most)} at most"


def _of_equal_accuracy(move: FrontMove) -> str:
    at = move.at_accuracy
    if at is None:
        return ""
    level = f"{words.percent(at.accuracy)} on {at.split}"
    if at.latency is None:
        return f"{level} is no longer reached"
    return f"{level} takes {_how(at.latency)}" if at.latency.is_disjoint else ""


def _of_others(move: FrontMove) -> str:
    appeared, gone = len(move.of_fate("appeared")), len(move.of_fate("gone"))
    said = [f"{appeared} appeared"] if appeared else []
    said += [f"{gone} {'is' if gone == 1 else 'are'} gone"] if gone else []
    return ", ".join(said)


def _of_budget(move: FrontMove) -> str:
    told = _BUDGET[move.budget]
    return told and f"the budget of {words.budget(move.budget_ms)} {told}"


def _of_dense(move: FrontMove) -> str:
    moved = {name: each.ratio for name, each in move.dense.items() if each.is_disjoint}
    told = ", ".join(f"{name} {words.times(ratio)}" for name, ratio in moved.items())
    return told and f"the dense model takes another time too: {told}"


def _dense_cells(item: tuple[str, LatencyMove]) -> tuple[str, ...]:
    return (f"dense {item[0]}", *_latency_cells(item[1]), "")


def _cells(config: ConfigMove) -> tuple[str, ...]:
    if config.fate != "stayed":
        only, accuracy = words.ms(config.only_ms), words.percent(config.only_accuracy)
        times = (only, config.fate) if config.fate == "gone" else (config.fate, only)
        return (config.id, *times, "", "", accuracy)
    accuracy = "not compared"
    if config.accuracy is not None:
        before, after = (words.percent(v) for v in (config.accuracy.before, config.accuracy.after))
        accuracy = f"{before}, {after}{' *' if config.accuracy.is_beyond else ''}"
    return (config.id, *_latency_cells(config.latency), accuracy)


def _latency_cells(latency: LatencyMove | None) -> tuple[str, ...]:
    if latency is None:
        return ("not compared", "", "", "")
    return (
        words.ms_ci(latency.before_ms, latency.before_ci_ms),
        words.ms_ci(latency.after_ms, latency.after_ci_ms),
        words.times(latency.ratio),
        words.ms(abs(latency.beyond_ms)) if latency.is_disjoint else "within",
    )
