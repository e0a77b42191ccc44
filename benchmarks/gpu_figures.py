"""What a check of a GPU found, held to what is wanted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autosparse.storage.serial import Record


@dataclass(frozen=True, kw_only=True)
class Ratio(Record):
    """How many times as long one takes as another, from rounds in turn.

    Attributes:
        median: of the rounds.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f}x ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, kw_only=True)
class LayerFigure(Record):
    """One layer.

    Attributes:
        group: of the table.
        name: of the layer.
        count: layers like it in its model.
        missing: why there is no figure; empty if there is.
        wrong: whether a kernel was refused for its results.
        dense_kernel: the fastest dense one, and its parameters.
        kernel: the fastest sparse one, and its parameters.
        pattern: what it runs.
        dense_us: median, in turn with the others.
        us: the same of the sparse one.
        over_dense: dense time over sparse time.
        over_library: time of the library's 2:4 over sparse time; None where it takes no part.
        is_chosen: whether the tuner's rows hold it to be faster than dense.
    """

    group: str
    name: str
    count: int = 1
    missing: str = ""
    wrong: bool = False
    dense_kernel: str = ""
    kernel: str = ""
    pattern: str = ""
    dense_us: float = 0.0
    us: float = 0.0
    over_dense: Ratio | None = None
    over_library: Ratio | None = None
    is_chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class WholeFigure(Record):
    """One model.

    Attributes:
        name: of the model.
        missing: why there is no figure; empty if there is.
        wrong: whether its results differ from torch's in float32.
        way: which of ours was the faster.
        us: its median.
        rival_us: that of torch.compile on the dense model.
        over_rival: the rival's time over ours.
        predicted_us: of our layers in torch's graph, from rows.
        measured_us: of the same.
        sparse_layers: how many run sparse.
        layers: how many there are.
    """

    name: str
    missing: str = ""
    wrong: bool = False
    way: str = ""
    us: float = 0.0
    rival_us: float = 0.0
    over_rival: Ratio | None = None
    predicted_us: float = 0.0
    measured_us: float = 0.0
    sparse_layers: int = 0
    layers: int = 0


@dataclass(frozen=True, kw_only=True)
class Goal(Record):
    """What is wanted, and what was found.

    Attributes:
        what: in words.
        wanted: the figure.
        found: None where nothing was measured.
        is_most: whether the figure must stay below.
        note: of what the figure holds.
    """

    what: str
    wanted: float
    found: float | None
    is_most: bool = False
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether it is met."""
        if self.found is None:
            return "not measured"
        met = self.found <= self.wanted if self.is_most else self.found >= self.wanted
        return "met" if met else "missed"


def goals(layers: Sequence[LayerFigure], wholes: Sequence[WholeFigure]) -> list[Goal]:
    """Holds figures to the goals."""
    wanted = {"linears, TW": 2.5, "convolutions, TW": 2.0, "linears, TVW": 1.85}
    found = [_over_dense(group, goal, layers) for group, goal in wanted.items()]
    half = [each.over_library for each in layers if each.over_library is not None]
    found.append(
        Goal(
            what="linears, TVW, over the library's 2:4, geometric mean",
            wanted=1.0,
            found=mean(ratio.median for ratio in half),
            note=f"{len(half)} layers",
        )
    )
    chosen = [each for each in layers if each.is_chosen and each.over_dense]
    least = min((each.over_dense.median for each in chosen if each.over_dense), default=None)
    found.append(
        Goal(
            what="any sparse layer that the tuner chose, over dense, the least",
            wanted=1.0,
            found=least,
            note=f"{len(chosen)} layers",
        )
    )
    for whole in wholes:
        ratio = whole.over_rival.median if whole.over_rival else None
        found.append(Goal(what=f"{whole.name}, over torch.compile", wanted=1.7, found=ratio))
        error = abs(whole.predicted_us / whole.measured_us - 1) if whole.measured_us else None
        found.append(
            Goal(what=f"{whole.name}, error predicted", wanted=0.05, found=error, is_most=True)
        )
    return found


def _over_dense(group: str, wanted: float, layers: Sequence[LayerFigure]) -> Goal:
    """The geometric mean of a group's raw ratios; with layers that lose left dense, as a note."""
    mine = [each for each in layers if each.group == group]
    raw = [each.over_dense.median for each in mine if each.over_dense is not None]
    kept = mean(max(1.0, ratio) for ratio in raw)
    note = f"{len(raw)} of {len(mine)} layers"
    note += "" if kept is None else f"; {kept:.2f}x where layers that lose stay dense"
    return Goal(what=f"{group}, over dense, geometric mean", wanted=wanted, found=mean(raw), note=note)


def mean(ratios: Iterable[float]) -> float | None:
    """Gives the geometric mean; None of nothing."""
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs)) if logs else None


def show_layer(figure: LayerFigure) -> None:
    if figure.missing:
        print(f"{figure.group:18} {figure.name:24} not measured: {figure.missing}")
        return
    library = "" if figure.over_library is None else f", {figure.over_library} over the library's 2:4"
    print(
        f"{figure.group:18} {figure.name:24} {figure.dense_us:9.1f} us dense, {figure.us:9.1f} us "
        f"{figure.pattern}: {figure.over_dense}{library}  {figure.kernel} / {figure.dense_kernel}"
    )


def show_whole(figure: WholeFigure) -> None:
    if figure.missing:
        print(f"{figure.name}: not measured: {figure.missing}")
        return
    print(
        f"{figure.name}: {figure.us:.0f} us ({figure.way}; {figure.sparse_layers} of {figure.layers} "
        f"layers sparse), torch.compile {figure.rival_us:.0f} us: {figure.over_rival}; predicted "
        f"{figure.predicted_us:.0f}, measured {figure.measured_us:.0f} us"
    )


def show_goals(found: Sequence[Goal]) -> None:
    print()
    for goal in found:
        figure = "-" if goal.found is None else f"{goal.found:.3f}"
        sign = "at most" if goal.is_most else "at least"
        print(f"{goal.what:58} {sign} {goal.wanted:5.2f}  {figure:>7}  {goal.verdict}  {goal.note}")
