"""What a study has found so far: its front as a figure and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autosparse.plans.front import feasible_front
from autosparse.report import words
from autosparse.searching.told import Told, read
from autosparse.web.pages.chart import Chart, Kind, Mark, draw

STUDY = "study"
_MOST_DRAWN = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a study has found so far.

    Attributes:
        count: plans that were evaluated.
        front: feasible plans that no other one beats, fastest first.
        dense: the un-pruned model as the study sees it; None before it has.
        chart: all of them drawn; None where there is nothing to draw.
    """

    count: int
    front: tuple[Told, ...]
    dense: Told | None
    chart: Chart | None

    def speedup(self, plan: Told) -> float | None:
        """Gives how many times faster than dense a plan is, both predicted."""
        return None if self.dense is None else self.dense.latency_ms / plan.latency_ms


def found_in(run: Path, budget_ms: float | None) -> Found | None:
    """Gives what the study of a run has found so far; None where it has found nothing.

    Args:
        run: its folder.
        budget_ms: its latency budget.
    """
    told = read(run / STUDY)
    if not told:
        return None
    front = feasible_front(told)
    dense = next((each for each in told if each.kind == "dense"), None)
    return Found(count=len(told), front=front, dense=dense, chart=_chart(told, front, dense, budget_ms))


def _chart(
    told: tuple[Told, ...], front: tuple[Told, ...], dense: Told | None, budget_ms: float | None
) -> Chart | None:
    step = -(-len(told) // _MOST_DRAWN)
    best = {each.plan_id for each in front}
    others = [each for each in told[::step] if each.plan_id not in best and each is not dense]
    on_front = [_mark(each, "front") for each in front if each is not dense]
    also = [] if dense is None else [_mark(dense, "dense")]
    kinds = " or ".join(sorted({words.kind(each.accuracy.kind) for each in told}))
    return draw(
        [*(_mark(each, "trial") for each in others), *also, *on_front],
        fronts=[("front", [_mark(each, "front") for each in front])],
        budget_ms=budget_ms,
        title="Front of the study so far",
        description=(
            f"Predicted latency against accuracy ({kinds}) of {words.count(len(told), 'plan')}; "
            f"{len(front)} of them are on the front"
        ),
        accuracy_of=f"{told[0].accuracy.split} split",
    )


def _mark(told: Told, kind: Kind) -> Mark:
    name = "dense" if told.kind == "dense" else f"plan {told.plan_id}"
    return Mark(
        latency_ms=told.latency_ms,
        accuracy=told.accuracy.value,
        kind=kind,
        title=f"{name}: {words.ms(told.latency_ms)} predicted, {words.percent(told.accuracy.value)}, "
        f"{told.dtype}",
    )
