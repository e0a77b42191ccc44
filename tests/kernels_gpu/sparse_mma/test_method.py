"""The face: what is refused and why, launch parameters that fit, machine code for absent chips."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from autosparse.errors import NoKernel, UsageError
from autosparse.kernels.gpu import method as registry
from autosparse.kernels.gpu import nvrtc, resources
from autosparse.kernels.gpu.chips import CHIPS, Chip
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.methods.sparse_mma.build import source_of
from autosparse.kernels.gpu.methods.sparse_mma.launches import launches, most_registers, registers_of
from autosparse.kernels.gpu.methods.sparse_mma.variants import fits, variant_of
from autosparse.patterns.families.nm import nm
from autosparse.patterns.families.tvw import tvw
from autosparse.records import Activation, LayerShape
from tests.kernels_gpu.sparse_mma.layers import conv, linear, tvw_layer

AMPERE, GAMING, ADA, HOPPER = (CHIPS[cap] for cap in ((8, 0), (8, 6), (8, 9), (9, 0)))
LAYER = linear(4096, 768, 3072)
TVW = tvw(128, 16)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSPARSE_HOME", str(tmp_path))


def why_not(
    shape: LayerShape, pattern: object = TVW, chip: Chip = AMPERE, name: str = "bf16_tvw__cuda_mma"
) -> str:
    return registry.why_not(registry.get(name), shape, pattern, chip)  # type: ignore[arg-type]


@pytest.mark.smoke
def test_what_it_does_not_run_it_says() -> None:
    assert why_not(LAYER) == ""
    assert why_not(conv(8, 64, 64, (56, 56), kernel=(3, 3), padding=(1, 1))) == ""
    assert "multiple of 8, 16 bytes, but got 3" in why_not(conv(8, 3, 64, (224, 224), kernel=(7, 7)))
    assert "multiple of 8, 16 bytes, but got 4" in why_not(LAYER, tvw(128, 4))
    assert "without groups, but got 2" in why_not(conv(1, 64, 64, (8, 8), groups=2))
    assert "not tw128k16+1:4" in why_not(LAYER, tvw(128, 16, inside=(1, 4)))
    assert "2^31 elements" in why_not(linear(1 << 20, 4096, 64))
    assert "below 32768" in why_not(conv(1, 8, 8, (40_000, 3), kernel=(3, 3), padding=(1, 1)))
    assert why_not(LAYER, nm(2, 4), name="f16_nm24__cuda_mma") == ""
    assert why_not(LAYER, name="bf16_tvw__cuda_wgmma") == "Ampere has no wgmma"
    assert why_not(LAYER, chip=HOPPER, name="bf16_tvw__cuda_wgmma") == ""
    old = dataclasses.replace(AMPERE, sparse_factor=1, name="Volta")
    assert why_not(LAYER, chip=old) == "Volta has no sparse tensor cores"


@pytest.mark.parametrize("chip", [AMPERE, GAMING, ADA, HOPPER], ids=lambda chip: chip.target)
@pytest.mark.parametrize(
    "shape",
    [
        LAYER,
        linear(16, 4096, 4096),
        conv(64, 256, 64, (56, 56)),
        conv(2, 64, 40, (7, 7), kernel=(3, 3)),
    ],
    ids=["linear", "few rows", "1x1", "3x3"],
)
def test_launches_fit(chip: Chip, shape: LayerShape) -> None:
    instructions = ("mma", "wgmma") if chip.has_wgmma else ("mma",)
    for instruction, pattern in itertools.product(instructions, (TVW, tvw(64, 8), nm(2, 4))):
        texts = launches(instruction, "bf16", shape, pattern, chip)
        if instruction == "mma" or shape is LAYER:
            assert 1 <= len(texts) == len(set(texts)) <= 12
        for launch in map(Launch.parse, texts):
            variant = variant_of(instruction, "bf16", shape, launch)
            assert fits(variant, chip)
            assert registers_of(variant) <= most_registers(variant)
            assert (launch.bk, launch.split_k) == (64, 1)


def test_large_blocks_come_first_where_there_is_much_to_do() -> None:
    first = Launch.parse(launches("mma", "bf16", linear(16_384, 4096, 4096), tvw(256, 16), AMPERE)[0])
    assert first.bn * first.bm >= 128 * 128
    few = [Launch.parse(text) for text in launches("mma", "bf16", linear(16, 4096, 4096), TVW, AMPERE)]
    assert max(launch.bm for launch in few) <= 32


CODE = [
    ("mma", AMPERE, Launch(bn=256, bm=128, warps=8, stages=4), "bf16", Activation.GELU),
    ("mma", AMPERE, Launch(bn=128, bm=128, warps=4, stages=3, ctas=2), "f16", Activation.NONE),
    ("mma", GAMING, Launch(bn=64, bm=128, warps=4, stages=4), "bf16", Activation.RELU),
    ("mma", ADA, Launch(bn=128, bm=64, warps=4, stages=5), "bf16", Activation.SILU),
    ("mma", HOPPER, Launch(bn=128, bm=256, warps=8, stages=5), "bf16", Activation.NONE),
    ("wgmma", HOPPER, Launch(bn=256, bm=160, warps=12, stages=5), "bf16", Activation.GELU),
    ("wgmma", HOPPER, Launch(bn=128, bm=256, warps=12, stages=4), "f16", Activation.RELU),
    ("wgmma", HOPPER, Launch(bn=64, bm=128, warps=12, stages=4, ctas=2), "bf16", Activation.SILU),
]
SHAPE = conv(32, 64, 256, (14, 14), kernel=(3, 3), padding=(1, 1), residual=True)


@pytest.mark.parametrize(
    "case", CODE, ids=lambda case: f"{case[0]} {case[1].target} {case[2].bn}x{case[2].bm}"
)
def test_machine_code(case: tuple[str, Chip, Launch, str, Activation]) -> None:
    instruction, chip, launch, dtype, activation = case
    shape = dataclasses.replace(SHAPE, activation=activation)
    kernel = registry.get(f"{dtype}_tvw__cuda_{instruction}")
    found = registry.method_of(kernel).compiled(kernel, shape, TVW, launch.text, chip)
    assert found is not None
    assert found.spilled_bytes == 0
    assert found.smem_bytes <= chip.smem_block_bytes
    blocks = chip.blocks_resident(
        threads=found.threads, registers=found.registers, smem_bytes=found.smem_bytes
    )
    assert blocks >= launch.ctas
    counts = found.instructions
    if instruction == "wgmma":
        # Two selectors per 64 outputs of a warpgroup, in a loop that the compiler may repeat.
        across = 2 if launch.bn >= 128 else 1
        assert counts["HGMMA.SP"] % (2 * launch.bn // across // 64) == 0 and "HGMMA" not in counts
        assert counts["UBLKCP"] == 1
        assert counts["LDGSTS.128"] == launch.bm // 16  # rows of inputs that a thread gathers
        return
    assert counts["HMMA.SP"] == 2 * launch.bn * launch.bm // launch.warps // 128
    # Every 16 bytes of a step by their own asynchronous copy, before the loop and in it.
    copied = launch.bm * 128 + launch.bn * 72
    assert counts["LDGSTS.128"] >= copied // 16 // (32 * launch.warps)
    assert counts["LDSM"] > 0


def test_products_of_four_warps_are_pipelined() -> None:
    # The compiler waits for each product where it cannot tell that sums are left alone, and says so.
    # The kernel shares out all registers of a block, so that it must have been given as many.
    for launch, registers in (
        (Launch(bn=256, bm=160, stages=4), 168),
        (Launch(bn=64, bm=128, ctas=2), 80),
    ):
        variant = variant_of("wgmma", "bf16", SHAPE, dataclasses.replace(launch, warps=12))
        assert variant.cluster == 2
        code, remarks = nvrtc.compiled(source_of(variant), "sm_90a")
        assert "serialized" not in remarks and f"Used {registers} registers" in remarks
        assert resources.of_cubin(code, threads=384).registers == registers


def test_a_processor_runs_none() -> None:
    import torch

    kernel = registry.get("bf16_tvw__cuda_mma")
    layer = tvw_layer(linear(8, 64, 32))
    with pytest.raises(NoKernel, match="need a GPU, but got device cpu"):
        registry.method_of(kernel).prepare(kernel, layer, Launch().text, torch.device("cpu"))


@pytest.mark.parametrize("launch", [Launch(bk=32), Launch(split_k=2)])
def test_launch_parameters_that_mean_nothing_are_refused(launch: Launch) -> None:
    kernel = registry.get("bf16_tvw__cuda_mma")
    with pytest.raises(UsageError, match="bk=64 columns and sum them in split_k=1"):
        registry.method_of(kernel).compiled(kernel, LAYER, TVW, launch.text, AMPERE)


def test_blocks_that_warps_cannot_share_do_not_compile() -> None:
    kernel = registry.get("bf16_tvw__cuda_mma")
    launch = Launch(bn=64, bm=16, warps=4, stages=2)
    with pytest.raises(NoKernel, match="no part for a warp"):
        registry.method_of(kernel).compiled(kernel, LAYER, TVW, launch.text, AMPERE)


def test_sources_are_files_and_facts_name_the_compiler() -> None:
    method = registry.method_of(registry.get("bf16_tvw__cuda_mma"))
    names = {path.name for path in method.sources()}
    assert {"mma.cu", "layer.cuh", "primitives.cuh", "packing.py"} <= names
    assert f"nvidia-cuda-nvrtc {nvrtc.compiler_version()}" in method.facts()


SHAPES = {
    "linear": linear(777, 512, 384, activation=Activation.GELU),
    "3x3": conv(5, 64, 96, (15, 13), kernel=(3, 3), padding=(1, 1), stride=(2, 1), residual=True),
}


@pytest.mark.parametrize("name", SHAPES)
def test_on_a_gpu(name: str) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU: the emulated machine alone has run this kernel")
    from tests.kernels_gpu.sparse_mma.on_gpu import check_layer

    check_layer(tvw_layer(SHAPES[name], group_out=128, unit_in=16))
