"""Whole programs against one another on a GPU: the fastest one that computes the same stays.

Rows of layers say nothing of what lies between them, which torch's compiler fuses and torch's graph
does not; and a library's layer that it fuses into may be worth more than a sparse one. So the ways run
whole, in turn, in one process, as deployed.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from autosparse.database import TuningDatabase
from autosparse.devices.device import kind_of
from autosparse.engine.compiled import CompiledModel
from autosparse.engine.gpu.compiling import Place, compile_on, torch_alone
from autosparse.errors import AutosparseError
from autosparse.graph import Exported
from autosparse.measuring.histories import prober_for
from autosparse.measuring.states import UNMARKED, Prober
from autosparse.measuring.stopwatch import WHOLE, Timing
from autosparse.measuring.turns import interleave_here, paired_ratio
from autosparse.plans.plan import Plan
from autosparse.progress import Progress

logger = logging.getLogger(__name__)

_POLICY = dataclasses.replace(WHOLE, name="contest", warmup_us=50_000.0, time_cap_us=1_500_000.0)
# Two ways of one model round at other places: in eight bits of mantissa they differ by a few parts in a
# hundred after some fifty layers. One that computes something else differs by as much as it holds.
_SAME = 0.05

Way = Callable[[], CompiledModel]


@dataclass(frozen=True, slots=True)
class _Refused:
    """A way that cannot be had, and why."""

    name: str
    why: str


def by_torch(program: fx.GraphModule) -> Callable[..., Any]:
    """Has torch compile a program, trying its own kernels; the graph is captured by whoever runs it."""
    return torch.compile(program, mode="max-autotune-no-cudagraphs")


def compile_fastest(
    captured: Exported,
    place: Place,
    progress: Progress,
    *,
    dtype: str,
    plan: Plan | None = None,
    database: TuningDatabase | str | None = None,
    use_zeros: bool = True,
) -> CompiledModel:
    """Compiles in every way that there is, and keeps the fastest; arguments as of `compile_on`.

    Raises:
        Stopped: a stop was requested.
    """
    ours = functools.partial(
        compile_on, captured, place, dtype=dtype, plan=plan, database=database, use_zeros=use_zeros
    )
    ways: dict[str, Way] = {
        "our layers in torch's graph": ours,
        "our layers in what torch compiles": functools.partial(ours, compiler=by_torch),
        "torch.compile alone": lambda: torch_alone(captured, place, dtype, by_torch),
    }
    probe = prober_for if place.device.type == "cpu" else _watching
    return fastest(ways, captured.examples, progress, probe=probe)


def _watching(threads: int) -> Prober | None:
    return kind_of("cuda").watch(threads, UNMARKED)


def fastest(
    ways: Mapping[str, Way],
    inputs: Sequence[torch.Tensor],
    progress: Progress,
    *,
    probe: Callable[[int], Prober | None],
) -> CompiledModel:
    """Gives the way that takes least, with the verdict in its `tuning`; closes the others.

    Args:
        ways: name to what compiles it, all of one model; the first is what the others must agree with.
            A way that fails to compile, or computes something else, is told and does not take part.
        inputs: on which they must agree.
        progress: told of the runs, and asked whether to stop.
        probe: tells what the device was like.

    Raises:
        AutosparseError: the first way fails.
        Stopped: a stop was requested.
    """
    first, *others = ways
    able = {first: ways[first]()}
    refused: list[_Refused] = []
    try:
        expected = _results(able[first], inputs)
        for name in others:
            progress.check()
            _take(name, ways[name], inputs, able, expected, refused)
        found, _ = interleave_here(
            {name: model.run_times for name, model in able.items()},
            _POLICY,
            progress,
            threads=1,
            probe=probe,
        )
    except BaseException:
        _close(able.values())
        raise
    timings = found.timings[found.longest]
    best = min(able, key=lambda name: timings[name].median_us)
    _close(model for name, model in able.items() if name != best)
    able[best].tuning = _told(best, timings, refused)
    logger.info("%s", able[best].tuning)
    return able[best]


def _take(
    name: str,
    way: Way,
    inputs: Sequence[torch.Tensor],
    able: dict[str, CompiledModel],
    expected: Sequence[Any],
    refused: list[_Refused],
) -> None:
    """Compiles one more way, and takes it in if it computes what the first one does."""
    model = None
    try:
        model = way()
        got = _results(model, inputs)
    except (AutosparseError, RuntimeError) as error:  # what torch's compiler raises is of many kinds
        if model is not None:
            model.close()
        refused.append(_Refused(name, str(error).strip().partition("\n")[0] or type(error).__name__))
        return
    pairs = zip(got, expected, strict=True)
    off = max((_off(each, right) for each, right in pairs if _is_float(right)), default=0.0)
    if off <= _SAME:
        able[name] = model
        return
    model.close()
    refused.append(_Refused(name, f"its results are off by {off:.2g} of their size"))


def _results(model: CompiledModel, inputs: Sequence[torch.Tensor]) -> list[Any]:
    return list(pytree.tree_leaves(model(*inputs)))


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()


def _off(got: torch.Tensor, right: torch.Tensor) -> float:
    if got.shape != right.shape or not bool(torch.isfinite(got).all()):
        return float("inf")
    wide = right.double()
    norm = float(wide.norm()) or 1.0
    return float((got.double() - wide).norm()) / norm


def _told(best: str, timings: Mapping[str, Timing], refused: Sequence[_Refused]) -> str:
    """Says how it ended, in one sentence per way."""
    parts = [f"run whole, in turn, {best} is the fastest of {len(timings)}"]
    for name, timing in timings.items():
        if name != best:
            ratio, low, high = paired_ratio(timing, timings[best])
            parts.append(f"{name} takes {ratio:.3f}x as long ({low:.3f} to {high:.3f})")
    parts += [f"{each.name} takes no part: {each.why}" for each in refused]
    return "; ".join(parts)


def _close(models: Iterable[CompiledModel]) -> None:
    for model in models:
        model.close()
