"""What is done around cuSPARSELt's product, with a dense one in its place; the library needs a GPU."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from autosparse.errors import NoKernel, UsageError
from autosparse.kernels.gpu import method as registry
from autosparse.kernels.gpu.chips import CHIPS
from autosparse.kernels.gpu.finishing import DTYPES, Finish
from autosparse.kernels.gpu.method import GivenLayer
from autosparse.kernels.gpu.methods.cusparselt import Gathering, library_version, operands
from autosparse.patterns.families.nm import nm
from autosparse.patterns.families.tvw import tvw
from autosparse.patterns.tile_structure import TileStructure
from autosparse.records import Activation, LayerShape
from tests.kernels_gpu.libraries.calls import check
from tests.kernels_gpu.sparse_mma.layers import conv, expected, linear, tvw_layer
from tests.kernels_gpu.sparse_mma.situations import two_of_four

torch = pytest.importorskip("torch")
CPU, HOPPER = torch.device("cpu"), CHIPS[9, 0]


class Around:
    """A prepared layer whose product is torch's."""

    def __init__(self, dtype: str, layer: GivenLayer) -> None:
        self.given = operands(layer)
        shape = layer.shape
        bias = np.zeros(shape.out_channels, np.float32) if layer.bias is None else layer.bias
        self.gather = Gathering(self.given, CPU)
        self.finish = Finish(
            dtype, bias, CPU,
            activation=shape.activation, residual=shape.residual, columns=self.given.outputs,
        )  # fmt: skip
        self.weight = torch.from_numpy(self.given.weight).to(DTYPES[dtype])
        self.weight_bytes = 0

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None, out: torch.Tensor) -> None:
        rows = self.gather(x.view(-1, x.shape[-1]))
        assert len(rows) % 8 == 0 and rows.shape[1] == self.weight.shape[1]
        product = (rows.float() @ self.weight.float().t()).to(x.dtype)
        self.finish(product, residual, out)


def assert_two_of_four(weight: np.ndarray) -> None:
    assert weight.shape[0] % 16 == weight.shape[1] % 16 == 0
    assert np.count_nonzero(weight.reshape(len(weight), -1, 4), axis=2).max(initial=0) <= 2


CASES = {
    "runs of 8": (linear(37, 72, 40), {"unit_in": 8, "split": "inputs"}),
    "outputs pruned": (linear(64, 96, 50, residual=True), {"unit_in": 8, "sparsity": 0.8}),
    "runs of 4": (linear(9, 60, 33, activation=Activation.SILU), {"unit_in": 4, "split": "inputs"}),
    "single inputs": (conv(2, 50, 20, (3, 5), residual=True), {"unit_in": 1, "sparsity": 0.7}),
    "few inputs": (linear(8, 8, 64), {"unit_in": 2, "split": "inputs", "sparsity": 0.8}),
}


@pytest.mark.parametrize("name", CASES)
def test_one_tile(name: str) -> None:
    shape, options = CASES[name]
    layer = tvw_layer(shape, group_out=128, **options)  # type: ignore[arg-type]
    around = Around("bf16", layer)
    assert_two_of_four(around.given.weight)
    check(around, layer, "bf16")


@pytest.mark.smoke
def test_two_of_four_alone_needs_no_list() -> None:
    layer = two_of_four(linear(16, 64, 32), "f16")
    around = Around("f16", layer)
    assert around.given.inputs is None and around.given.outputs is None and around.gather.bytes == 0
    np.testing.assert_array_equal(around.given.weight, layer.weight.reshape(32, 64))
    check(around, layer, "f16")
    odd = two_of_four(conv(1, 20, 24, (3, 3)), "f16")  # 20 inputs are no multiple of 16
    around = Around("f16", odd)
    assert_two_of_four(around.given.weight)
    check(around, odd, "f16")


def test_columns_that_died_in_all_rows_shift_no_group() -> None:
    # 2:4 was chosen over inputs 0 to 7; inputs 1 and 2 live in no row, and zeros do not tell where the
    # groups were: 0, 3, 4, 5 are no 2:4, but {0, 3} and {4 to 7} are.
    shape = linear(8, 16, 16)
    weight = np.zeros((16, 16, 1, 1), np.float32)
    weight[:, [0, 3, 4, 5]] = 1
    weight[::2, [4, 5]] = 0
    weight[::2, [6, 7]] = 2
    pattern = tvw(16, split="inputs")
    structure = TileStructure.from_weight(weight, pattern)
    assert structure.kept_per_tile.tolist() == [6]
    layer = GivenLayer(shape=shape, weight=weight, bias=None, pattern=pattern, structure=structure)
    given = operands(layer)
    assert_two_of_four(given.weight)
    assert given.inputs is not None and set(given.inputs) <= {0, 3, 4, 5, 6, 7}
    check(Around("bf16", layer), layer, "bf16")


def test_runs_are_gathered_as_wide_as_they_are() -> None:
    runs = {}
    for unit, inputs in itertools.product((8, 4, 2, 1), (96, 30)):
        if inputs % unit == 0:
            layer = tvw_layer(linear(4, inputs, 16), group_out=16, unit_in=unit, split="inputs")
            runs[unit, inputs] = operands(layer).run
    assert runs[8, 96] == 8 and runs[4, 96] >= 4 and runs[2, 96] >= 2
    assert runs[2, 30] == 2 and runs[1, 30] >= 1


def test_what_no_tile_keeps_is_never_read() -> None:
    layer = tvw_layer(linear(24, 64, 32), group_out=32, unit_in=8, split="inputs", sparsity=0.8)
    assert layer.structure is not None
    kept = layer.structure.columns(layer.structure.tiles[0])
    x = np.random.default_rng(0).standard_normal((1, 24, 1, 64)).astype(np.float32)
    wanted = expected(layer, x)
    x[..., np.setdiff1d(np.arange(64), kept)] = np.nan
    out = torch.full((1, 24, 1, 32), float("nan"), dtype=torch.bfloat16)
    Around("bf16", layer)(torch.from_numpy(x).bfloat16(), None, out)
    np.testing.assert_allclose(out.float().numpy().reshape(24, 32), wanted, rtol=0.05, atol=0.1)


def test_nothing_kept_leaves_the_bias() -> None:
    layer = tvw_layer(linear(8, 32, 16), group_out=16, split="inputs")
    dead = np.zeros_like(layer.weight)
    structure = TileStructure.from_weight(dead, layer.pattern)
    given = operands(dataclasses.replace(layer, weight=dead, structure=structure))
    assert given.weight.size == 0 and given.outputs is not None and (given.outputs == -1).all()


def test_what_it_does_not_run_it_says() -> None:
    kernel = registry.get("bf16_tvw__cuda_cusparselt")

    def why(shape: LayerShape, group_out: int = 4096) -> str:
        return registry.why_not(kernel, shape, tvw(group_out), HOPPER)

    assert why(linear(64, 64, 64)) == ""
    assert "cuts 64 outputs into several" in why(linear(64, 64, 64), 32)
    assert "1x1 convolutions of stride 1" in why(conv(1, 64, 64, (8, 8), kernel=(3, 3)))
    alone = registry.get("f16_nm24__cuda_cusparselt")
    assert registry.why_not(alone, linear(64, 64, 64), nm(2, 4), HOPPER) == ""
    several = tvw_layer(linear(8, 64, 64), group_out=32, split="inputs")
    with pytest.raises(NoKernel, match="one tile, but the layer has 2"):
        operands(several)


def test_launches_are_its_algorithms() -> None:
    kernel = registry.get("bf16_tvw__cuda_cusparselt")
    method = registry.method_of(kernel)
    shape = linear(64, 64, 64)
    launches = method.launches(kernel, shape, tvw(64), HOPPER)
    assert launches[:3] == ("alg=searched", "alg=0", "alg=1")
    layer = tvw_layer(shape, group_out=64, split="inputs")
    with pytest.raises(UsageError, match="alg=searched or alg=N, but got 'fast'"):
        method.prepare(kernel, layer, "fast", CPU)
    with pytest.raises(NoKernel, match="needs a GPU and a torch that has it, but got device cpu"):
        method.prepare(kernel, layer, "alg=0", CPU)


def test_facts_name_the_library() -> None:
    assert library_version() in registry.all_methods()["cusparselt"].facts()
    assert "cusparselt" in library_version()


def test_on_a_gpu() -> None:
    if not torch.cuda.is_available() or not torch.backends.cusparselt.is_available():
        pytest.skip("no GPU, or a torch without cuSPARSELt: nothing else can run the library")
    from tests.kernels_gpu.sparse_mma.on_gpu import compare

    kernel = registry.get("bf16_tvw__cuda_cusparselt")
    method = registry.method_of(kernel)
    for shape, options in CASES.values():
        layer = tvw_layer(shape, group_out=128, **options)  # type: ignore[arg-type]
        for launch in ("alg=searched", "alg=0"):
            compare(method.prepare(kernel, layer, launch, torch.device("cuda")), layer, "bf16")
