"""Measured rows against the executor's own rule: whole programs in turn, and the faster one stays.

A row is taken of a layer by itself. Where such rows choose kernels that make the whole model slower
than the rule's choice, the layers on which the two differ are timed inside both programs, these times
become their rows, and the choice is made anew.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autosparse.engine.compiled import CompiledModel
from autosparse.measuring.states import only_in_state
from autosparse.measuring.stopwatch import WHOLE, Timing
from autosparse.measuring.turns import interleave_here, paired_ratio
from autosparse.progress import Progress
from autosparse.records import Measurement

# Every round times at least one kernel of a layer inside the model, and layers have few kernels that
# rows put close together.
ROUNDS = 6
_OPERATOR_RUNS = 15
_POLICY = dataclasses.replace(WHOLE, name="contest", warmup_us=50_000.0, time_cap_us=1_500_000.0)

RowsOf = Callable[[Mapping[str, NDArray[Any]], CompiledModel], list[Measurement]]
"""Makes rows of the layers that were timed, nanoseconds, inside a compiled model."""

Times = dict[str, NDArray[Any]]
InOneState = Callable[[Callable[[], Times]], Times | None]
"""Calls something until the host was in the wanted state all the while; None if it never was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How it ended.

    Attributes:
        winner: ``rows``, ``rule``, or ``same`` where both choose alike.
        ratio: the rule's time over that of the rows, in the last round; 1 where both choose alike.
        ci_low: lower end of its 95 % interval.
        ci_high: upper end.
        amended: layers whose rows were replaced by what their kernels took inside the model.
    """

    winner: str
    ratio: float = 1.0
    ci_low: float = 1.0
    ci_high: float = 1.0
    amended: tuple[str, ...] = ()

    def describe(self) -> str:
        """Says it in one sentence."""
        if self.winner == "same":
            text = "the measured rows choose what the executor's rule chooses"
        else:
            interval = f"{self.ratio:.3f}x ({self.ci_low:.3f} to {self.ci_high:.3f})"
            text = f"run whole, in turn, the measured rows' choice is {interval} as fast as the rule's"
            text += "" if self.winner == "rows" else ", so the rule's choice is kept"
        if self.amended:
            text += f"; timed inside the model instead of alone: {', '.join(self.amended)}"
        return text


def contest(
    by_rows: Callable[[], CompiledModel],
    rule: CompiledModel,
    rows_of: RowsOf,
    keep: Callable[[list[Measurement]], object],
    progress: Progress,
    *,
    threads: int = 1,
    state: str = "",
) -> tuple[CompiledModel, Verdict]:
    """Lets both choices run whole, amends rows that mislead, and closes the loser.

    Args:
        by_rows: compiles with the rows as they are by now.
        rule: compiled without rows.
        rows_of: makes rows of times taken inside a model.
        keep: stores rows in place of those of the same keys.
        progress: told of the runs, and asked whether to stop.
        threads: worker threads of both.
        state: state of the host that the rows are of.

    Returns:
        The one that is not slower, as far as can be told, and what was found. The rows' choice stays
        unless the whole interval speaks against it. No row is amended by what layers take in another
        state than the rows': if it does not come back, the rows' choice loses as it is.
    """
    amended: dict[str, None] = {}
    verdict = Verdict(winner="same")
    for _ in range(ROUNDS):
        tuned = by_rows()
        differing = _differing(tuned, rule)
        if not differing:
            tuned.close()
            return rule, dataclasses.replace(verdict, winner="same", amended=tuple(amended))
        runners = {"rows": tuned.run_times, "rule": rule.run_times}
        found, prober = interleave_here(runners, _POLICY, progress, threads=threads)
        verdict = _verdict(found.timings[state if state in found.states else found.longest])
        if verdict.winner == "rows":
            rule.close()
            return tuned, dataclasses.replace(verdict, amended=tuple(amended))
        rows = _inside(tuned, rule, differing, rows_of, functools.partial(only_in_state, prober, state))
        tuned.close()
        if rows is None:
            progress.log("no row is amended: the host did not come back into their state")
            break
        amended |= dict.fromkeys(differing)
        keep(rows)
    return rule, dataclasses.replace(verdict, amended=tuple(amended))


def _differing(one: CompiledModel, other: CompiledModel) -> tuple[str, ...]:
    pairs = zip(one.layers, other.layers, strict=True)
    return tuple(a.name for a, b in pairs if (a.kernel, a.pattern) != (b.kernel, b.pattern))


def _verdict(timings: Mapping[str, Timing]) -> Verdict:
    ratio, low, high = paired_ratio(timings["rule"], timings["rows"])
    return Verdict(winner="rule" if high < 1 else "rows", ratio=ratio, ci_low=low, ci_high=high)


def _inside(
    tuned: CompiledModel,
    rule: CompiledModel,
    names: tuple[str, ...],
    rows_of: RowsOf,
    in_one_state: InOneState,
) -> list[Measurement] | None:
    """Times layers inside both programs, in turn; None if one of them never ran in the state."""
    turns: tuple[list[Times], list[Times]] = ([], [])
    for model, taken in (*zip((tuned, rule), turns, strict=True),) * 3:
        found = in_one_state(functools.partial(model.operator_times, _OPERATOR_RUNS))
        if found is not None:
            taken.append(found)
    if not all(turns):
        return None
    return [
        row
        for model, taken in zip((tuned, rule), turns, strict=True)
        for row in rows_of(
            {name: np.concatenate([times[name][1:] for times in taken]) for name in names}, model
        )
    ]
