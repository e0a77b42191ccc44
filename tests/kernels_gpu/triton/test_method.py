"""The face of the method: kernels, refusals, launch parameters, and what is loaded when."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from autosparse.errors import UsageError
from autosparse.kernels.gpu.chips import CHIPS
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.method import GivenLayer, all_methods, get, kernels_for, method_of, why_not
from autosparse.kernels.gpu.methods.triton import launches, loading
from autosparse.kernels.gpu.methods.triton.call import registers
from autosparse.patterns.families.tw import tw
from autosparse.records import DENSE, LayerShape
from tests.kernels_gpu.triton.tile_cases import SMALL, make

LINEAR = LayerShape(op="linear", batch_size=1, in_height=20, in_channels=64, out_channels=48)
NAMES = {f"{dtype}_{kind}__cuda_triton" for dtype in ("bf16", "f16") for kind in ("tw", "dense")}
NAMES |= {"fp8_tw__cuda_triton"}


def test_kernels_are_listed_under_their_contract() -> None:
    method = all_methods()["triton"]
    assert {kernel.name for kernel in method.kernels()} == NAMES
    for kernel in method.kernels():
        assert get(kernel.name) == kernel
        assert kernel.name.startswith(f"{kernel.dtype}_{kernel.contract}__")
    assert not method.missing
    assert method.facts().startswith("torch ")


def test_kernels_are_found_for_layers() -> None:
    for pattern, kind in ((DENSE, "dense"), (tw(16, 8), "tw")):
        for dtype in ("bf16", "f16"):
            found = {kernel.name for kernel in kernels_for(LINEAR, pattern, dtype, CHIPS[8, 0])}
            assert f"{dtype}_{kind}__cuda_triton" in found


def test_what_cannot_run_says_why() -> None:
    chip = CHIPS[9, 0]
    grouped = LayerShape(
        op="conv2d", batch_size=1, in_channels=32, out_channels=32, in_height=8, in_width=8, groups=2
    )
    assert "without groups" in why_not(get("bf16_tw__cuda_triton"), grouped, tw(16, 8), chip)
    huge = LayerShape(op="linear", batch_size=1, in_height=1 << 31, in_channels=8, out_channels=16)
    assert "32 bits" in why_not(get("bf16_tw__cuda_triton"), huge, tw(16, 8), chip)
    far = LayerShape(
        op="conv2d", batch_size=1, in_channels=8, out_channels=16, in_height=70_000, in_width=3,
        kernel=(2, 1), dilation=(40_000, 1),
    )  # fmt: skip
    assert "kernels must reach less" in why_not(get("bf16_tw__cuda_triton"), far, tw(16, 8), chip)
    assert "8-bit floats, which Ampere" in why_not(
        get("fp8_tw__cuda_triton"), LINEAR, tw(16, 8), CHIPS[8, 0]
    )
    assert not why_not(get("fp8_tw__cuda_triton"), LINEAR, tw(16, 8), CHIPS[8, 9])
    assert "not tw16k8" in why_not(get("bf16_dense__cuda_triton"), LINEAR, tw(16, 8), chip)


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.target)
@pytest.mark.parametrize("rows", [1, 40, 5000])
@pytest.mark.parametrize(
    "pattern", [DENSE, tw(32, 8), tw(128, 1, split="inputs")], ids=lambda p: p.name
)
def test_launches_fit(pattern: object, rows: int, chip: object) -> None:
    shape = LayerShape(op="linear", batch_size=1, in_height=rows, in_channels=512, out_channels=1000)
    kernel = get("f16_dense__cuda_triton" if pattern.is_dense else "f16_tw__cuda_triton")
    found = method_of(kernel).launches(kernel, shape, pattern, chip)
    assert 4 <= len(found) == len(set(found)) <= launches.MOST
    for text in found:
        launch = Launch.parse(text)
        bytes_each = launches.smem_bytes(launch, 2, chip)
        assert bytes_each <= chip.smem_block_bytes
        assert launch.ctas * (bytes_each + 1024) <= chip.smem_bytes
        assert launches.registers_of(launch, 2, chip) <= registers(launch.warps, launch.ctas)
        assert launch.bn <= max(16, pattern.group_out or 1024)


def test_offered_launches_run() -> None:
    case = make(LINEAR, tw(16, 8), 0.5)
    kernel = get("bf16_tw__cuda_triton")
    offered = method_of(kernel).launches(kernel, LINEAR, case.pattern, CHIPS[9, 0])
    for text in offered[:3]:
        case.check(Launch.parse(text))


def test_prepared_by_name() -> None:
    case = make(LINEAR, tw(16, 8), 0.5)
    kernel = get("bf16_tw__cuda_triton")
    given = GivenLayer(
        shape=LINEAR, weight=case.weight, bias=case.bias, pattern=case.pattern, structure=case.structure
    )
    method = method_of(kernel)
    layer = method.prepare(kernel, given, SMALL.text, torch.device("cpu"))
    out = torch.empty(case.out_extents, dtype=torch.bfloat16)
    layer(case.x, None, out)
    assert torch.equal(out, case.run(SMALL))
    with pytest.raises(UsageError, match="launch parameters must be"):
        method.prepare(kernel, given, "", torch.device("cpu"))


def test_sources_decide_the_hash() -> None:
    method = all_methods()["triton"]
    names = {path.name for path in method.sources()}
    assert {"forward.py", "epilogue.py", "product.py", "packing.py"} <= names
    assert all(path.is_file() for path in method.sources())
    assert len(method.source_hash) >= 8


def test_one_process_compiles_and_interprets() -> None:
    compiled = loading.device_code(is_interpreted=False)["forward"]
    interpreted = loading.device_code(is_interpreted=True)["forward"]
    assert (type(compiled).__name__, type(interpreted).__name__) == (
        "JITFunction",
        "InterpretedFunction",
    )
    assert compiled.fn.__code__.co_filename == interpreted.fn.__code__.co_filename


def test_listing_kernels_loads_neither_torch_nor_triton() -> None:
    code = (
        "import sys; from autosparse.kernels.gpu.method import all_kernels; all_kernels(); "
        "print([m for m in ('torch', 'triton', 'cuda') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
