"""What a clock makes of calls, on a made-up GPU whose time goes by as calls are replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from autosparse.devices.kinds.cuda.clock import SAMPLE_US, GraphClock, cut_up, runner_of
from autosparse.devices.kinds.cuda.faults import named
from autosparse.errors import DeviceLost, NoKernel

GPU = torch.device("cuda", 0)


class Gpu:
    """Time, in microseconds, and what graphs were captured."""

    def __init__(self, call_us: float = 5.0, between_us: float = 2.0) -> None:
        self.call_us, self.between_us = call_us, between_us
        self.now_us = 0.0
        self.graphs: list[list[str]] = []
        self.replays: list[int] = []
        self.open: list[str] | None = None
        self.done: list[str] = []

    def call(self, name: str) -> Callable[[], None]:
        def run() -> None:
            (self.done if self.open is None else self.open).append(name)

        return run

    @contextmanager
    def capture(self, graph: Any, **how: Any) -> Iterator[None]:
        self.open = graph.calls
        yield
        self.graphs.append(graph.calls)
        self.open = None


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()

    class Graph:
        def __init__(self) -> None:
            self.calls: list[str] = []

        def replay(self) -> None:
            made.replays.append(len(self.calls))
            made.now_us += len(self.calls) * made.call_us + made.between_us

    class Event:
        def __init__(self, **how: Any) -> None:
            self.at_us = 0.0

        def record(self, stream: Any) -> None:
            self.at_us = made.now_us

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, after: Event) -> float:
            return (after.at_us - self.at_us) / 1e3

    class Stream:
        def __init__(self, device: Any = None) -> None:
            pass

        def wait_stream(self, stream: Any) -> None:
            pass

        def synchronize(self) -> None:
            pass

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "graph", made.capture)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    return made


@pytest.mark.parametrize("call_us", [1.5, 5.0, 70.0, 900.0])
@pytest.mark.parametrize("count", [1, 3, 64])
def test_a_sample_is_within_one_in_a_hundred(gpu: Gpu, call_us: float, count: int) -> None:
    gpu.call_us = call_us
    runner = runner_of([gpu.call(str(number)) for number in range(count)], GPU, "a layer")
    samples = runner(12)
    assert samples.size == 12 and samples.dtype == np.int64
    assert samples / 1e3 == pytest.approx(call_us, rel=0.01)


def test_every_call_has_its_turn_before_any_has_two(gpu: Gpu) -> None:
    names = [str(number) for number in range(400)]
    runner = runner_of([gpu.call(name) for name in names], GPU, "a layer")
    assert gpu.done == names * 2, "each once before it is captured"
    pilot, *graphs = gpu.graphs
    assert pilot == names
    assert [name for graph in graphs for name in graph] == names
    assert all(len(graph) * gpu.call_us >= SAMPLE_US for graph in graphs)
    gpu.replays.clear()
    runner(5)
    assert len(gpu.replays) == 6, "the first is not counted"


def test_calls_that_take_long_are_graphs_of_their_own(gpu: Gpu) -> None:
    gpu.call_us = 900.0
    runner_of([gpu.call(name) for name in "abc"], GPU, "a layer")
    assert gpu.graphs == [["a", "b", "c"], ["a"], ["b"], ["c"]]


@pytest.mark.parametrize(
    ("count", "least", "sizes"),
    [
        (1, 100.0, [100]),
        (64, 100.0, [128]),
        (64, 64.0, [64]),
        (64, 20.5, [21, 22, 21]),
        (3, 0.2, [1] * 3),
    ],
)
def test_sequences_are_cut_into_graphs(count: int, least: float, sizes: list[int]) -> None:
    cut = cut_up(count, least)
    assert sorted(map(len, cut)) == sorted(sizes)
    assert [place for graph in cut for place in graph] == [n % count for n in range(sum(sizes))]


# ------------------------------------------------------------------------------------------- failures


def test_what_cannot_be_captured_is_named(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        if gpu.open is not None:
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr("autosparse.devices.kinds.cuda.faults._why_lost", lambda device: "")
    with pytest.raises(
        NoKernel, match="f16_x on linear, captured in a CUDA graph, failed: operation not"
    ):
        GraphClock([[refuse]], GPU, "f16_x on linear")


def test_a_gpu_that_answers_nothing_more_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def synchronize(device: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    with pytest.raises(
        DeviceLost, match=r"a kernel: it failed; the GPU answers nothing more: CUDA error"
    ):
        with named("a kernel", GPU):
            raise RuntimeError("it failed")


def test_a_lack_of_memory_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryError, match="a kernel needs more memory than the GPU has left: tried"):
        with named("a kernel", GPU):
            raise torch.cuda.OutOfMemoryError("tried to allocate")


def test_errors_on_the_cpu_are_passed_on() -> None:
    with pytest.raises(RuntimeError, match=r"^as it was$"), named("a kernel", torch.device("cpu")):
        raise RuntimeError("as it was")
