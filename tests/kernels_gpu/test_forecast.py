"""The analytic model against sums done by hand, and what must hold of it whatever its numbers."""

from __future__ import annotations

import dataclasses

import pytest

from autosparse.kernels.gpu.chips import CHIPS, chip_of
from autosparse.kernels.gpu.forecast import (
    ASSUMED,
    PRODUCTS,
    Assumptions,
    Forecast,
    TileWork,
    forecast,
    library_forecast,
    uniform_work,
)
from autosparse.kernels.gpu.launch import Launch
from autosparse.records import LayerShape

A100, H100 = PRODUCTS["A100-SXM4-80GB"], PRODUCTS["H100-SXM5-80GB"]
FREE = Assumptions(
    issue=1.0, latency_clocks=0.0, lookup_clocks=0.0, epilogue_contiguous=0.0, epilogue_scattered=0.0,
    launch_us=0.0, memory_share=1.0, split_us=0.0,
)  # fmt: skip
LAUNCH = Launch(bm=128, bn=128, bk=64, warps=8, stages=4)


def linear(rows: int, inputs: int, outputs: int, *, residual: bool = False) -> LayerShape:
    return LayerShape(
        op="linear", batch_size=1, in_channels=inputs, out_channels=outputs, in_height=rows,
        residual=residual,
    )  # fmt: skip


def predicted(work: TileWork, launch: Launch = LAUNCH, assumed: Assumptions = ASSUMED) -> Forecast:
    found = forecast(work, launch, A100, registers=128, smem_bytes=98_304, assumed=assumed)
    assert found is not None
    return found


def test_one_wave_of_multiplying_is_what_the_datasheet_says() -> None:
    # 108 tiles of 128 x 128 by 4096 columns, one per multiprocessor: 64 steps of 2 * 128 * 128 * 64
    # operations at 2048 * 0.87 per clock, with nothing else taking time.
    shape = linear(128 * 9, 4096, 128 * 12)
    work = uniform_work(shape, outputs=1536, columns=4096, group_out=128, unit_in=64)
    found = predicted(work, assumed=FREE)
    steps_us = 64 * 2 * 128 * 128 * 64 / (2048 * 0.87) / 1410
    assert found.us == pytest.approx(steps_us)
    assert (found.bound_by, found.waves) == ("multiplying", 1.0)
    assert found.flops_share == pytest.approx(0.87)


def test_a_thin_layer_waits_for_the_bus() -> None:
    # 64 columns in, 64 out, a million rows: 2 bytes of each, in and out, at 2039 GB/s.
    work = uniform_work(linear(1 << 20, 64, 64), outputs=64, columns=64, group_out=64, unit_in=64)
    found = predicted(work, Launch(bm=128, bn=64, bk=64, warps=4, stages=3), FREE)
    assert found.bound_by == "memory"
    assert found.us == pytest.approx((2 * 64 * 64 + (1 << 20) * 256) / 2039e3)
    added = uniform_work(
        linear(1 << 20, 64, 64, residual=True), outputs=64, columns=64, group_out=64, unit_in=64
    )
    assert added.memory_bytes() - work.memory_bytes() == (1 << 20) * 128


def test_runs_narrower_than_a_sector_are_fetched_whole() -> None:
    def of(unit_in: int) -> float:
        work = uniform_work(
            linear(4096, 4096, 4096), outputs=4096, columns=1024, group_out=128, unit_in=unit_in
        )
        found = forecast(work, LAUNCH, H100, registers=128, smem_bytes=131_072, assumed=FREE)
        assert found is not None
        assert found.bound_by == "L2"
        return found.us

    assert of(16) == of(32) == of(64)
    assert of(8) / of(16) == pytest.approx(1.5)  # x fetched twice, weights once
    assert of(1) / of(16) == pytest.approx((16 + 1) / 2)


def test_the_last_long_tile_decides() -> None:
    work = TileWork(
        rows=128, tiles=((128, 6400),) + 107 * ((128, 64),), unit_in=64, inputs=6400, input_rows=128,
        outputs=128 * 108,
    )  # fmt: skip
    even = dataclasses.replace(work, tiles=108 * ((128, 128),))
    assert predicted(work, assumed=FREE).us > 15 * predicted(even, assumed=FREE).us
    split = predicted(work, dataclasses.replace(LAUNCH, split_k=4), FREE)
    assert split.us < 0.3 * predicted(work, assumed=FREE).us


def test_pruned_outputs_are_written_too() -> None:
    half = uniform_work(linear(4096, 512, 512), outputs=256, columns=256, group_out=128, unit_in=16)
    assert not half.is_contiguous
    # Two tiles and one of pruned outputs twice as wide, over 32 blocks of rows.
    assert predicted(half).waves == 128 / 108
    none = uniform_work(linear(4096, 512, 512), outputs=0, columns=0, group_out=128, unit_in=16)
    assert none.flops == 0
    assert predicted(none).us < predicted(half).us


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_less_work_never_takes_longer(product: object) -> None:
    shape = linear(4096, 4096, 4096)
    times = [
        forecast(
            uniform_work(shape, outputs=4096, columns=columns, group_out=128, unit_in=16),
            LAUNCH, product, registers=128, smem_bytes=131_072,  # type: ignore[arg-type]
        )
        for columns in (4096, 2048, 1024, 512)
    ]  # fmt: skip
    us = [found.us for found in times if found is not None]
    assert len(us) == 4 and us == sorted(us, reverse=True)


def test_what_does_not_fit_has_no_forecast() -> None:
    work = uniform_work(linear(64, 64, 64), outputs=64, columns=64, group_out=64, unit_in=16)
    for registers, smem_bytes in ((256, 1024), (128, 200_000)):
        assert forecast(work, LAUNCH, A100, registers=registers, smem_bytes=smem_bytes) is None


def test_two_of_four_on_a_hopper_is_held_by_shared_memory() -> None:
    # Known of libraries on real machines: 1.3 to 1.6 times dense for large products, not 2.
    dense = library_forecast(linear(4096, 4096, 4096), H100)
    sparse = library_forecast(linear(4096, 4096, 4096), H100, sparse=True)
    assert 1.2 < dense.us / sparse.us < 1.7


def test_blocks_that_a_multiprocessor_holds() -> None:
    hopper, ada = CHIPS[9, 0], CHIPS[8, 9]
    assert chip_of("9.0") is hopper and chip_of("7.5") is None
    # By shared memory (98 + 1 of 228 KiB), registers (168 of 65536 / 256 threads), and warps.
    assert hopper.blocks_resident(threads=256, registers=64, smem_bytes=98 * 1024) == 2
    assert hopper.blocks_resident(threads=256, registers=168, smem_bytes=1024) == 1
    assert hopper.blocks_resident(threads=256, registers=32, smem_bytes=0) == 8
    assert ada.blocks_resident(threads=256, registers=32, smem_bytes=0) == 6
    assert hopper.blocks_resident(threads=256, registers=64, smem_bytes=228 * 1024) == 0
