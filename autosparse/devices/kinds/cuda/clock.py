"""How long calls take on a GPU: captured in CUDA graphs, replayed between events on their own stream.

A launch from Python takes longer than many a layer runs, and an event is good to half a microsecond. So
the calls are captured: a graph's kernels follow each other as closely as they can, as in a compiled
model. A sample is the time of one graph over the calls in it, and graphs are so long (`SAMPLE_US`) that
neither the events, nor what passes between one graph and the next (two microseconds or so), is one in a
hundred. Replays are queued up behind one that is not counted, so the GPU never waits for Python.

The samples are independent ones: N of them take N replays.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autosparse.devices.kinds.cuda.faults import named
from autosparse.measuring.stopwatch import Runner

SAMPLE_US = 500.0
"""A sample's time at least: what is beside it, 2 us or so, is below one in a hundred."""
_PILOT_REPLAYS = 3

Call = Callable[[], object]


class GraphClock:
    """Graphs of calls, each replayed in turn.

    Args:
        graphs: calls that follow each other, per graph.
        device: a GPU.
        what: the calls in words, for errors.

    Raises:
        NoKernel: the calls cannot be captured.
        MemoryError: there is not enough memory for it.
        DeviceLost: the GPU gave the process up.
    """

    def __init__(self, graphs: Sequence[Sequence[Call]], device: torch.device, what: str) -> None:
        self._what, self._device = what, device
        self._sizes = [len(calls) for calls in graphs]
        self._next = 0
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with named(f"{what}, captured in a CUDA graph,", device):
            self._warm({id(call): call for calls in graphs for call in calls}.values())
            self._graphs = [self._captured(calls) for calls in graphs]

    def _warm(self, calls: Any) -> None:
        """Runs each call once: what is loaded, chosen or allocated at first must not be captured."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for call in calls:
                call()
        self._stream.synchronize()

    def _captured(self, calls: Sequence[Call]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            for call in calls:
                call()
        return graph

    def __call__(self, count: int) -> NDArray[Any]:
        """Gives so many samples, nanoseconds per call, int64."""
        with named(self._what, self._device), torch.cuda.stream(self._stream):
            self._replay()  # the GPU is busy with this one while the others are queued up
            marks, sizes = [self._mark()], []
            for _ in range(count):
                sizes.append(self._replay())
                marks.append(self._mark())
            marks[-1].synchronize()
        spans_ms = [before.elapsed_time(after) for before, after in itertools.pairwise(marks)]
        samples: NDArray[Any] = np.round(np.array(spans_ms) * 1e6 / np.array(sizes)).astype(np.int64)
        return samples

    def _replay(self) -> int:
        """Replays the next graph, and gives its number of calls."""
        place = self._next
        self._next = (place + 1) % len(self._graphs)
        self._graphs[place].replay()
        return self._sizes[place]

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event


def runner_of(calls: Sequence[Call], device: torch.device, what: str) -> Runner:
    """Gives what times calls that follow each other again and again, in the order given.

    Args:
        calls: that are alike, on memory of their own each.
        device: a GPU.
        what: they are, in words.

    Raises:
        NoKernel: they cannot be captured, or there is no GPU.
    """
    pilot = GraphClock([calls], device, what)
    call_us = float(pilot(_PILOT_REPLAYS).min()) / 1e3
    cut = cut_up(len(calls), SAMPLE_US / max(call_us, 1e-3))
    if cut == [range(len(calls))]:
        return pilot
    del pilot  # its memory is needed
    return GraphClock([[calls[place] for place in graph] for graph in cut], device, what)


def cut_up(count: int, least: float) -> list[Sequence[int]]:
    """Cuts a sequence of calls that repeats into graphs of so many calls at least, or all of it.

    Args:
        count: of the calls, after which they repeat.
        least: calls per graph.
    """
    if count < least:
        return [list(range(count)) * math.ceil(least / count)]
    pieces = max(1, int(count // math.ceil(least)))
    edges = [round(count * place / pieces) for place in range(pieces + 1)]
    return [range(first, end) for first, end in itertools.pairwise(edges)]
