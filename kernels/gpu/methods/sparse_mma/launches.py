"""Launch parameters worth trying on a layer: those that fit on a chip, most promising first.

Roofline: what 2:4 can win
--------------------------
A step of a block multiplies BN outputs by BM pixels by 64 columns. Its weights are 72 bytes per
output, its inputs 128 per pixel. A multiprocessor of an A100 or H100 has 2 * 2048 or 2 * 4096
operations of sparse products per clock, 128 bytes to and from shared memory, and some 30 from the L2
cache. Clocks of one step, by what holds it back:

                    multiplying   shared memory   L2 cache   dense, multiplying
    A100 256 x 128      1024           1072          1160         2048
    A100 128 x 128       512            744           853         1024
    H100 256 x 160       640           1088           990         1280
    H100 256 x 128       512            928           853         1024
    H100 128 x 256       512            912          1246         1024

Shared memory: a step is written once, and a warp of mma.sp reads its part of it, of 64 outputs by 64
pixels at most. wgmma.sp reads all pixels anew for every 64 outputs, 64 bytes each per 32 columns: 128
bytes per clock, which by itself is all that there is. L2 cache: on an H100 two blocks share the fetch
of weights; inputs, which are gathered, each fetches itself. So, against dense products at 0.8 (H100)
and 0.87 (A100) of their own rate, and with no other loss:

-   on an A100 2:4 is worth up to 2.0 times with blocks of 256 x 128 (the vendor's library measures 1.5
    to 1.7), 1.4 times with 128 x 128;
-   on an H100 1.4 times with tiles of 256 outputs, and nothing with 128 (1.03). At equal sparsity,
    tiles alone have the higher ceiling (75 %: 4 times, against 2 * 1.4), and 2:4 buys accuracy;
-   where weights, not inputs, are what is read (64 rows or fewer), 2:4 is worth the bytes: 16/9 times;
-   layers below some 1024 rows by 1024 outputs do not fill a chip with such blocks, and gain nothing.

That is why nothing here is chosen without measuring, and why the dense layer is always a candidate.

Assumptions: 128 bytes per clock and multiprocessor (CUDA C++ Programming Guide, shared memory of
compute capability 8.0 and 9.0); L2 rates of `forecast.PRODUCTS`; nothing overlaps worse than perfectly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from autosparse.errors import UsageError
from autosparse.kernels.gpu.chips import Chip
from autosparse.kernels.gpu.forecast import PRODUCTS, Product, TileWork, forecast, uniform_work
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.methods.sparse_mma.packing import STEP
from autosparse.kernels.gpu.methods.sparse_mma.variants import (
    MULTIPLYING_THREADS,
    Variant,
    fits,
    variant_of,
)
from autosparse.patterns.pattern import Pattern
from autosparse.records import LayerShape

MOST = 12
# Outputs, pixels and warps of blocks.
_BLOCKS = {
    "mma": (
        (256, 128, 8),
        (128, 256, 8),
        (128, 128, 8),
        (128, 128, 4),
        (64, 256, 8),
        (64, 128, 4),
        (128, 64, 4),
        (64, 64, 4),
        (32, 128, 4),
        (256, 32, 4),
        (32, 32, 4),
        (128, 16, 4),
    ),
    "wgmma": (
        (256, 160, 12),
        (256, 128, 12),
        (128, 256, 12),
        (128, 128, 12),
        (64, 256, 12),
        (256, 64, 12),
        (64, 128, 12),
        (128, 64, 12),
    ),
}
_FEWEST_STAGES = {"mma": 2, "wgmma": 3}
_MOST_STAGES = 6
_CTAS = (1, 2, 3, 4)
# Registers of a thread beside its sums, by what compiling all of these for the chips here has shown:
# of mma, fragments and what places of pixels take come on top; of wgmma, threads that copy have theirs.
_OTHER_REGISTERS, _SPATIAL_REGISTERS = {"mma": 64, "wgmma": 48}, 8
_COPYING_REGISTERS = {False: 40, True: 56}
_TYPICAL_SPARSITY = 0.75  # the order alone depends on it


def launches(
    instruction: str, dtype: str, shape: LayerShape, pattern: Pattern, chip: Chip
) -> tuple[str, ...]:
    """Lists launch parameters of a layer.

    Args:
        instruction: ``mma`` or ``wgmma``.
        dtype: ``bf16`` or ``f16``.
        shape: the layer.
        pattern: tiles with 2:4 inside, or 2:4 alone.
        chip: where.
    """
    work = _typical(shape, pattern)
    product = next((each for each in PRODUCTS.values() if each.capability == chip.capability), None)
    found = list(_fitting(instruction, dtype, shape, work, chip))
    if product is not None:
        found.sort(key=lambda launch: _forecast_us(instruction, dtype, shape, launch, work, product))
    return tuple(launch.text for launch in found[:MOST])


def _typical(shape: LayerShape, pattern: Pattern) -> TileWork:
    """Gives the work of a layer of usual sparsity."""
    outputs, columns, group_out = shape.out_channels, shape.in_channels * shape.taps, shape.out_channels
    if pattern.family != "nm":
        left = 2 * (1 - _TYPICAL_SPARSITY)
        share = math.sqrt(left) if pattern.split == "even" else 1.0
        outputs, columns = math.ceil(outputs * share), math.ceil(columns * left / share)
        group_out = pattern.group_out
    return uniform_work(
        shape,
        outputs=outputs,
        columns=columns,
        group_out=group_out,
        unit_in=pattern.unit_in,
        sparse=True,
    )


def _fitting(
    instruction: str, dtype: str, shape: LayerShape, work: TileWork, chip: Chip
) -> Iterator[Launch]:
    """Lists what fits, the largest blocks first, with as many stages as fit."""
    widest = max(outputs for outputs, _ in work.tiles)
    fewest = _FEWEST_STAGES[instruction]
    steps = max(fewest, math.ceil(max(columns for _, columns in work.tiles) / STEP))
    for (bn, bm, warps), ctas in itertools.product(_BLOCKS[instruction], _CTAS):
        if bn >= 2 * max(widest, 32) or bm >= 2 * max(work.rows, 32):
            continue
        for stages in range(min(_MOST_STAGES, steps), fewest - 1, -1):
            launch = Launch(bn=bn, bm=bm, bk=STEP, warps=warps, stages=stages, ctas=ctas)
            variant = variant_of(instruction, dtype, shape, launch)
            if registers_of(variant) <= most_registers(variant) and fits(variant, chip):
                yield launch
                break


def parsed(text: str) -> Launch:
    """Reads launch parameters.

    Raises:
        UsageError: a step is not of 64 columns, or columns are to be summed in parts.
    """
    launch = Launch.parse(text)
    if (launch.bk, launch.split_k) != (STEP, 1):
        raise UsageError(
            f"sparse kernels take steps of bk={STEP} columns and sum them in split_k=1 part, but got "
            f"{text!r}"
        )
    return launch


def registers_of(variant: Variant) -> int:
    """Gives the registers that a thread which multiplies needs, so that none is spilled."""
    launch, other = variant.launch, _OTHER_REGISTERS[variant.instruction]
    if variant.instruction == "wgmma":
        return launch.bm * launch.bn // MULTIPLYING_THREADS + other
    fragments = 5 * min(launch.bn, 64) // 16
    places = _SPATIAL_REGISTERS if variant.is_spatial else 0
    return launch.bm * launch.bn // variant.threads + fragments + other + places


def most_registers(variant: Variant) -> int:
    """Gives the registers that such a thread may have."""
    given = 65_536 // (variant.threads * variant.launch.ctas)
    if variant.instruction == "mma":
        return min(255, given)
    copying = _COPYING_REGISTERS[variant.is_spatial]
    return (given // 8 * 8 * 3 - copying) // 2 // 8 * 8


def _forecast_us(
    instruction: str, dtype: str, shape: LayerShape, launch: Launch, work: TileWork, product: Product
) -> float:
    variant = variant_of(instruction, dtype, shape, launch)
    found = forecast(
        work,
        launch,
        product,
        registers=min(255, 65_536 // (variant.threads * launch.ctas) // 8 * 8),
        smem_bytes=variant.shared_bytes,
    )
    return math.inf if found is None else found.us
