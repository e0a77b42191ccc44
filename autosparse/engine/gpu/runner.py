"""Runs a program on a device: on a GPU one CUDA graph, its inputs brought and its results taken along.

A call's work is queued on the caller's current stream: inputs are copied to where the graph reads them,
the graph is replayed, its results are copied to fresh tensors. Calls from other streams wait for the
one before by an event, as all of them use the graph's own memory; nobody waits on the host.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autosparse.engine.gpu.layer import SiteLayer
from autosparse.engine.gpu.program import weight_bytes
from autosparse.kernels.binding import MovedLines
from autosparse.measuring.stopwatch import python_runner

logger = logging.getLogger(__name__)

_WARM_UP = 3


class GpuRunner:
    """A program on a device.

    Args:
        program: torch's graph with our layers, on the device; or any module there.
        examples: inputs, for their shapes and types; on any device.
        dtype: of floating-point values inside.
        device: a GPU; or the CPU, on which nothing is captured.
        results: types of the results outside, one per leaf; None leaves one, or all, as they are.
        engine: ``autosparse``, or ``torch`` where no layer is ours.
        run_graph: what runs the program; None is the program itself. Another one is the program as a
            compiler of torch's has it.

    Attributes:
        why_not_captured: why the program could not be captured in a graph; empty if it was, or runs on
            the CPU.
    """

    arena_bytes = 0

    def __init__(
        self,
        program: nn.Module,
        examples: Sequence[Tensor],
        *,
        dtype: torch.dtype,
        device: torch.device,
        results: Sequence[torch.dtype | None] | None,
        engine: str,
        run_graph: Callable[..., Any] | None = None,
    ) -> None:
        self.engine = engine
        self.weight_bytes = weight_bytes(program)
        self.why_not_captured = ""
        self._program, self._device = program, device
        self._results = None if results is None else tuple(results)
        self._call: Callable[..., Any] | None = program if run_graph is None else run_graph
        self._inputs = [_place(value, dtype, device) for value in examples]
        self._outputs: list[Any] = []
        self._graph: torch.cuda.CUDAGraph | None = None
        self._done: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._capture()

    # ---------------------------------------------------------------------------------- capturing

    def _capture(self) -> None:
        """Captures the program; where that fails, calls run it as it is, and it is told why."""
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.device(self._device), torch.cuda.stream(stream), torch.no_grad():
            for _ in range(_WARM_UP):  # what is compiled, chosen or allocated at first
                self._leaves()
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                    self._outputs = self._leaves()
            except RuntimeError as error:
                self.why_not_captured = _told(error)
                logger.warning("the model runs uncaptured: %s", self.why_not_captured)
                torch.cuda.synchronize(self._device)
                return
        torch.cuda.current_stream(self._device).wait_stream(stream)
        self._graph = graph
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._done.record(torch.cuda.current_stream(self._device))

    def _leaves(self) -> list[Any]:
        assert self._call is not None
        return list(pytree.tree_leaves(self._call(*self._inputs)))

    # ------------------------------------------------------------------------------------ running

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Runs once, on the current stream; the results are fresh tensors on the device."""
        with torch.no_grad():
            if self._device.type == "cuda":
                with torch.cuda.device(self._device):
                    return self._run(inputs)
            return self._run(inputs)

    def _run(self, inputs: Sequence[Any]) -> list[Any]:
        if self._done is not None:
            torch.cuda.current_stream(self._device).wait_event(self._done)
        self._bring(inputs)
        if self._graph is None:
            made = self._leaves()
        else:
            self._graph.replay()
            made = self._outputs
        kinds = [None] * len(made) if self._results is None else self._results
        found = [_taken(leaf, kind) for leaf, kind in zip(made, kinds, strict=True)]
        if self._done is not None:
            self._done.record(torch.cuda.current_stream(self._device))
        return found

    def _bring(self, inputs: Sequence[Any]) -> None:
        for place, value in zip(self._inputs, inputs, strict=True):
            given = torch.from_numpy(value) if isinstance(value, np.ndarray) else value.detach()
            # Out of memory that is not pinned it has ended when it returns; else the stream orders it.
            place.copy_(given, non_blocking=True)

    # ------------------------------------------------------------------------------------- timing

    def time(self, inputs: Sequence[Any], repeats: int) -> NDArray[np.int64]:
        """Times calls on inputs that lie on the device: by its own clock, queued one behind another."""
        moved = [_as_tensor(value).to(self._device) for value in inputs]
        if self._device.type != "cuda":
            return python_runner(lambda: self.run(moved))(repeats)
        marks = [_event() for _ in range(repeats + 1)]
        stream = torch.cuda.current_stream(self._device)
        self.run(moved)  # the GPU is busy with this one while the others are queued up
        marks[0].record(stream)
        for mark in marks[1:]:
            self.run(moved)
            mark.record(stream)
        marks[-1].synchronize()
        spans = [before.elapsed_time(after) for before, after in itertools.pairwise(marks)]
        return np.maximum(1, np.round(np.array(spans) * 1e6)).astype(np.int64)

    def time_operators(self, inputs: Sequence[Any], repeats: int) -> dict[str, NDArray[np.int64]]:
        """Times our layers in runs that are not captured: events lie between them, so they take longer.

        What launches cost is in these times, and hides them where layers are short.
        """
        moved = [_as_tensor(value).to(self._device) for value in inputs]
        layers = {name: part for name, part in self._named_layers()}
        taken: dict[str, list[int]] = {name: [] for name in layers}
        for _ in range(repeats):
            for name, ns in self._timed_once(moved, layers).items():
                taken[name].append(ns)
        return {name: np.array(ns, dtype=np.int64) for name, ns in taken.items() if ns}

    def _named_layers(self) -> list[tuple[str, SiteLayer]]:
        return [(n, part) for n, part in self._program.named_modules() if isinstance(part, SiteLayer)]

    def _timed_once(self, inputs: Sequence[Tensor], layers: dict[str, SiteLayer]) -> dict[str, int]:
        spans: dict[str, Callable[[], int]] = {}
        hooks = []
        for name, part in layers.items():
            clock = _Span(self._device)
            hooks.append(part.register_forward_pre_hook(clock.begin))
            hooks.append(part.register_forward_hook(clock.end))
            spans[name] = clock.nanoseconds
        try:
            with torch.no_grad():
                self._bring(inputs)
                self._program(*self._inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: span() for name, span in spans.items()}

    def moved_lines(self) -> dict[str, MovedLines]:
        """Knows none: a GPU's multiprocessors share no lines."""
        return {}

    def close(self) -> None:
        """Lets the graph and its memory go."""
        self._graph, self._call, self._outputs, self._inputs = None, None, [], []
        self._program = nn.Identity()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class _Span:
    """Time between two points of a stream, or on the CPU of a thread."""

    def __init__(self, device: torch.device) -> None:
        self._is_gpu = device.type == "cuda"
        self._marks: list[Any] = []

    def begin(self, *_: Any) -> None:
        self._mark()

    def end(self, *_: Any) -> None:
        self._mark()

    def _mark(self) -> None:
        if self._is_gpu:
            mark = _event()
            mark.record(torch.cuda.current_stream())
            self._marks.append(mark)
        else:
            self._marks.append(time.perf_counter_ns())

    def nanoseconds(self) -> int:
        if not self._is_gpu:
            return int(self._marks[-1] - self._marks[0])
        self._marks[-1].synchronize()
        span_ms = float(self._marks[0].elapsed_time(self._marks[-1]))
        return math.ceil(span_ms * 1e6)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _as_tensor(value: Any) -> Tensor:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value.detach()


def _place(example: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Makes room for an input as the program reads it, images channels last, with its contents."""
    kind = dtype if example.is_floating_point() else example.dtype
    layout = torch.channels_last if example.dim() == 4 else torch.contiguous_format
    return example.detach().to(device, kind, copy=True).contiguous(memory_format=layout)


def _taken(leaf: Any, kind: torch.dtype | None) -> Any:
    """Gives a result as the caller's own, contiguous."""
    if not isinstance(leaf, Tensor):
        return leaf
    made = leaf if kind is None else leaf.to(kind)
    return made.clone(memory_format=torch.contiguous_format) if made is leaf else made.contiguous()


def _told(error: Exception) -> str:
    first = str(error).strip().splitlines() or [type(error).__name__]
    return f"{type(error).__name__}: {first[0]}"
