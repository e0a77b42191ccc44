"""A way to compute layers that the project does not have, added by one file, is offered like others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from autosparse.devices.kinds.cuda.layer import LayerOnGpu
from autosparse.devices.layer import random_layer
from autosparse.devices.verify import reference
from autosparse.kernels.gpu import method as methods
from autosparse.kernels.gpu.chips import CHIPS
from autosparse.records import DENSE, LayerShape

SOURCE = """
from pathlib import Path

import torch

from autosparse.kernels.gpu.method import GpuKernel, Method, register


class Product:
    weight_bytes = 1

    def __init__(self, layer, device):
        self.weight = torch.from_numpy(layer.weight[:, :, 0, 0]).to(device)
        self.bias = torch.from_numpy(layer.bias).to(device)

    def __call__(self, x, residual, out):
        out.copy_(x.float() @ self.weight.T + self.bias)


@register
class Added(Method):
    def kernels(self):
        name = "bf16_dense__cuda_added"
        return (GpuKernel(name=name, method="added", dtype="bf16", contract="dense"),)

    def why_not(self, kernel, shape, pattern, chip):
        return "" if shape.op == "linear" else "it multiplies rows"

    def launches(self, kernel, shape, pattern, chip):
        return ("",)

    def prepare(self, kernel, layer, launch, device):
        return Product(layer, device)

    def sources(self):
        return (Path(__file__),)
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from autosparse.kernels.gpu import methods as folder

    (tmp_path / "added.py").write_text(SOURCE)
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    methods.all_methods.cache_clear()
    yield
    methods.all_methods.cache_clear()
    methods._METHODS.pop("added", None)
    sys.modules.pop("autosparse.kernels.gpu.methods.added", None)


def test_it_is_offered_and_computes(added: None) -> None:
    shape = LayerShape(op="linear", batch_size=2, in_channels=24, out_channels=16, in_height=5)
    able = methods.kernels_for(shape, DENSE, "bf16", CHIPS[9, 0], is_here=False)
    kernel = next(each for each in able if each.method == "added")
    assert methods.get("bf16_dense__cuda_added") == kernel
    assert len(methods.method_of(kernel).source_hash) >= 8
    layer = random_layer(shape, DENSE, 0.0, "bf16")
    got = torch.zeros(shape.output_shape).numpy()
    with LayerOnGpu(layer, kernel, "", torch.device("cpu")) as built:
        built.run(layer.inputs, got)
    expected = reference(shape, layer.inputs[0], layer.weight, layer.bias, None)
    torch.testing.assert_close(
        torch.from_numpy(got).double(), torch.from_numpy(expected), rtol=1e-2, atol=1e-2
    )
