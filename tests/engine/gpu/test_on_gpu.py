"""What only a GPU shows: one graph, results in the caller's stream, several streams and threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import autosparse
from autosparse import models

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch sees none")


@pytest.fixture(scope="module")
def model() -> autosparse.CompiledModel:
    module = models.resolve("resnet20").module.eval()
    return autosparse.compile(module, (torch.zeros(4, 3, 32, 32),), device="cuda")


def test_it_is_captured_and_right(model: autosparse.CompiledModel) -> None:
    assert not model.why
    module = models.resolve("resnet20").module.eval()
    x = torch.randn(4, 3, 32, 32)
    got, expected = model(x.cuda()), module(x)
    assert got.is_cuda and model(x).device.type == "cpu"
    torch.testing.assert_close(got.cpu(), expected, rtol=0.05, atol=0.05)


def test_results_land_in_the_callers_stream_from_several_threads(
    model: autosparse.CompiledModel,
) -> None:
    inputs = [torch.randn(4, 3, 32, 32, device="cuda") for _ in range(8)]
    expected = [model(x) for x in inputs]
    torch.cuda.synchronize()

    def called(index: int) -> torch.Tensor:
        with torch.cuda.stream(torch.cuda.Stream()):
            made = model(inputs[index])
            return made * 1  # reads it in the same stream, without waiting on the host

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(called, [i % 8 for i in range(64)]))
    torch.cuda.synchronize()
    assert all(torch.equal(each, expected[i % 8]) for i, each in enumerate(found))


def test_its_time_is_that_of_the_gpu(model: autosparse.CompiledModel) -> None:
    latency = model.measure(repeats=50)
    assert 0.001 < latency.median_ms < 100 and latency.dtype == "bf16"
    assert set(model.measure_layers(5)) == {layer.name for layer in model.layers}
