"""Kernels compiled for chips that are not here: instructions, copies, registers, shared memory, depth.

Launches are those that are offered for typical layers, compiled with the very arguments of a launch.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from autosparse.errors import NoKernel
from autosparse.kernels.gpu.chips import CHIPS, Chip
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.method import GpuKernel, Resources, get, method_of
from autosparse.kernels.gpu.methods.triton import launches
from autosparse.kernels.gpu.methods.triton.layer import DTYPES
from autosparse.kernels.gpu.methods.triton.training import TilePlan
from autosparse.patterns.families.tw import tw
from autosparse.patterns.pattern import Pattern
from autosparse.records import DENSE, Activation, LayerShape
from tests.kernels_gpu.triton.tile_cases import make

AMPERE, HOPPER = CHIPS[8, 0], CHIPS[9, 0]
BOTH = pytest.mark.parametrize("chip", [AMPERE, HOPPER], ids=["sm_80", "sm_90"])


def linear(rows: int, inputs: int, outputs: int, **more: object) -> LayerShape:
    return LayerShape(
        op="linear", batch_size=1, in_height=rows, in_channels=inputs, out_channels=outputs, **more
    )


def conv(inputs: int, outputs: int, size: int, kernel: int, **more: object) -> LayerShape:
    return LayerShape(
        op="conv2d", batch_size=64, in_height=size, in_width=size, in_channels=inputs,
        out_channels=outputs, kernel=(kernel, kernel), padding=(kernel // 2, kernel // 2), **more,
    )  # fmt: skip


WIDER = linear(4096, 768, 3072, activation=Activation.GELU)
NARROWER = linear(4096, 3072, 768, residual=True)
LLAMA = linear(4096, 4096, 4096)
THREE = conv(64, 64, 56, 3, activation=Activation.RELU)
LAST = conv(512, 512, 7, 3, activation=Activation.RELU, residual=True)
TYPICAL = {
    "bert wider": WIDER,
    "bert narrower": NARROWER,
    "llama": LLAMA,
    "decoding": linear(8, 4096, 4096),
    "first 3x3": THREE,
    "28": conv(128, 128, 28, 3, activation=Activation.RELU),
    "14, strided": conv(256, 256, 28, 3, stride=(2, 2), activation=Activation.RELU),
    "last 3x3": LAST,
    "reducing": conv(1024, 256, 14, 1, activation=Activation.RELU),
    "expanding": conv(256, 1024, 14, 1, activation=Activation.RELU, residual=True),
    "skipping": conv(256, 512, 56, 1, stride=(2, 2)),
    "odd": conv(24, 40, 13, 3, activation=Activation.SILU),
}
PATTERNS = (DENSE, tw(64, 8), tw(128, 16), tw(128, 16, split="inputs"))


def kernel_of(pattern: Pattern, dtype: str = "bf16") -> GpuKernel:
    return get(f"{dtype}_{'dense' if pattern.is_dense else 'tw'}__cuda_triton")


def offered(shape: LayerShape, pattern: Pattern, chip: Chip) -> tuple[str, ...]:
    kernel = kernel_of(pattern)
    return method_of(kernel).launches(kernel, shape, pattern, chip)


def check(shape: LayerShape, pattern: Pattern, text: str, chip: Chip, dtype: str = "bf16") -> Resources:
    """Asserts what every launch must have, and gives what it takes."""
    kernel, launch = kernel_of(pattern, dtype), Launch.parse(text)
    taken = method_of(kernel).compiled(kernel, shape, pattern, text, chip)
    assert taken is not None
    counts, where = taken.instructions, f"{text} on {chip.target}: {taken}"
    wide = not launches.passes_registers(launch, chip)
    assert ("HGMMA" in counts) == wide == ("wgmma.mma_async" in counts), where
    assert ("HMMA" in counts) != wide, where
    # All operands are copied 16 bytes at a time, without passing registers, ...
    assert counts["LDGSTS.128"] == counts["cp.async.16"] > 0, where
    assert not {"LDGSTS.32", "LDGSTS.64", "cp.async.8", "cp.async.4"} & counts.keys(), where
    # ... as many steps ahead as stages say.
    assert taken.smem_bytes >= launches.smem_bytes(launch, 2, chip), where
    assert taken.smem_bytes <= chip.smem_block_bytes, where
    assert taken.spilled_bytes == 0, where
    resident = chip.blocks_resident(
        threads=taken.threads, registers=taken.registers, smem_bytes=taken.smem_bytes
    )
    assert resident >= launch.ctas, where
    return taken


@BOTH
@pytest.mark.parametrize(
    ("shape", "pattern", "index"),
    [
        (NARROWER, tw(128, 16, split="inputs"), 0),
        (NARROWER, tw(64, 8), 1),
        (THREE, tw(64, 8), 0),
        (LAST, DENSE, 1),
        (TYPICAL["skipping"], tw(64, 8), 0),
        (TYPICAL["decoding"], tw(64, 8), 0),
    ],
)
def test_launches_of_typical_layers(
    shape: LayerShape, pattern: Pattern, index: int, chip: Chip
) -> None:
    taken = check(shape, pattern, offered(shape, pattern, chip)[index], chip)
    if pattern.is_dense or pattern.split == "inputs":
        assert taken.instructions["STG.128"] > 0


def test_scattered_outputs_with_all_that_follows_spill_nothing() -> None:
    shape = dataclasses.replace(WIDER, residual=True)
    check(shape, tw(128, 16), offered(shape, tw(128, 16), HOPPER)[0], HOPPER)


@pytest.mark.long
@BOTH
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
@pytest.mark.parametrize("name", TYPICAL)
def test_all_launches_of_typical_layers(name: str, pattern: Pattern, chip: Chip) -> None:
    for text in offered(TYPICAL[name], pattern, chip):
        check(TYPICAL[name], pattern, text, chip)


def test_stages_are_steps_under_way() -> None:
    sizes = {}
    for stages in (3, 4):
        launch = Launch(bm=128, bn=128, bk=64, warps=8, stages=stages)
        for chip in (AMPERE, HOPPER):
            taken = check(linear(4096, 768, 768), tw(128, 8, split="inputs"), launch.text, chip)
            sizes[chip.name, stages] = taken.smem_bytes // (2 * 128 * 64 * 2)
    assert sizes == {("Ampere", 3): 2, ("Ampere", 4): 3, ("Hopper", 3): 3, ("Hopper", 4): 4}


def test_what_does_not_compile_says_so() -> None:
    layer = make(linear(16, 32, 32), DENSE).layer(Launch(bm=16, bn=16, bk=32, warps=4, stages=2))
    x, out = torch.empty(16, 32, dtype=torch.bfloat16), torch.empty(16, 32, dtype=torch.bfloat16)
    (call,) = layer.calls(x, None, out, None)
    wrong = dataclasses.replace(call, arguments={**call.arguments, "ACTIVATION": "swish"})
    with pytest.raises(NoKernel, match="forward does not compile for sm_80"):
        wrong.compiled(AMPERE)


def test_f16_takes_the_same() -> None:
    text = Launch(bm=128, bn=64, bk=64, warps=4, stages=4).text
    pattern = tw(64, 8, split="inputs")
    assert check(LLAMA, pattern, text, HOPPER, "f16") == check(LLAMA, pattern, text, HOPPER)


@pytest.mark.parametrize(("chip", "product"), [(CHIPS[8, 9], "QMMA"), (HOPPER, "QGMMA")])
def test_floats_of_8_bits(chip: Chip, product: str) -> None:
    kernel, pattern = get("fp8_tw__cuda_triton"), tw(128, 16, split="inputs")
    text = method_of(kernel).launches(kernel, LLAMA, pattern, chip)[0]
    taken = method_of(kernel).compiled(kernel, LLAMA, pattern, text, chip)
    assert taken is not None
    assert taken.instructions[product] > 0
    assert taken.instructions["LDGSTS.128"] == taken.instructions["cp.async.16"] > 0
    assert "LDGSTS.64" not in taken.instructions
    assert taken.spilled_bytes == 0
    assert taken.smem_bytes <= chip.smem_block_bytes


@pytest.mark.parametrize(("unit_in", "copy"), [(4, "cp.async.8"), (2, "cp.async.4"), (1, "")])
def test_shorter_runs_make_smaller_copies(unit_in: int, copy: str) -> None:
    pattern, launch = tw(64, unit_in), Launch(bm=128, bn=64, bk=32, warps=4, stages=4)
    kernel = kernel_of(pattern)
    taken = method_of(kernel).compiled(kernel, linear(512, 256, 256), pattern, launch.text, HOPPER)
    assert taken is not None
    assert taken.spilled_bytes == 0
    assert not copy or taken.instructions[copy] > 0
    assert copy or taken.instructions["LDG.16"] >= 32


def test_sums_in_parts() -> None:
    launch = Launch(bm=64, bn=64, bk=64, warps=4, stages=4, split_k=4)
    taken = check(linear(64, 4096, 4096), tw(64, 8), launch.text, HOPPER)
    assert taken.instructions["STG.128"] > 0
    case = make(linear(64, 64, 64), tw(64, 8), 0.5)
    layer = case.layer(launch)
    parts = torch.empty(layer.product.parts_shape)
    finish = layer.calls(case.x, None, torch.empty(case.out_extents, dtype=DTYPES["bf16"]), parts)[1]
    second = finish.compiled(AMPERE).resources
    assert (second.spilled_bytes, second.instructions["LDG.128"] > 0) == (0, True)


@BOTH
def test_backward_products(chip: Chip) -> None:
    shape = LayerShape(
        op="conv2d", batch_size=1, in_height=8, in_width=8, in_channels=64, out_channels=128,
        kernel=(3, 3), padding=(1, 1),
    )  # fmt: skip
    case = make(shape, tw(64, 8), 0.75)
    assert case.structure is not None
    plan = TilePlan(
        case.structure, shape, torch.device("cpu"),
        launch=Launch(bm=128, bn=64, bk=64, warps=4, stages=4),
    )  # fmt: skip
    grad = plan.ordered(torch.empty(case.out_extents, dtype=torch.bfloat16))
    (product,) = plan.inputs
    weight = torch.empty(product.packing.source.shape, dtype=torch.bfloat16)
    (of_inputs,) = product.calls(grad, weight, torch.empty_like(case.x))
    of_weights = plan.weights.call(case.x, grad, torch.empty(plan.weights.parts_shape))
    depth = 4 if chip.has_wgmma else 3
    for call, step in ((of_inputs, (128 + 64) * 64), (of_weights, 64 * (64 + 64))):
        taken = call.compiled(chip).resources
        assert taken.spilled_bytes == 0
        assert taken.instructions["cp.async.16"] == taken.instructions["LDGSTS.128"] >= 24
        assert "LDG.16" not in taken.instructions
        assert ("HGMMA" in taken.instructions) == chip.has_wgmma
        assert taken.smem_bytes >= depth * 2 * step
