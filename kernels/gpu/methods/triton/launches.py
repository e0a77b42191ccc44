"""Launch parameters worth trying on a layer: those that fit on a chip, most promising first.

What a block takes is known without compiling: its shared memory is the operands of the steps that are
under way, and of its registers the sums are known, and the rest is bounded by what compiling all of
these for the chips here has shown (`tests/kernels_gpu/triton`).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

from autosparse.kernels.gpu.chips import SMEM_RESERVED_BYTES, Chip
from autosparse.kernels.gpu.forecast import PRODUCTS, Product, TileWork, forecast, uniform_work
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.methods.triton.call import registers
from autosparse.patterns.pattern import Pattern
from autosparse.records import LayerShape

MOST = 12
_TYPICAL_SPARSITY = 0.75
"""What a sparse layer is taken to have; the order alone depends on it, and which steps are too wide."""
# Rows, outputs and warps of blocks: large ones reuse operands most, small ones fill a chip with little.
_BLOCKS = (
    (128, 256, 8),
    (256, 128, 8),
    (128, 128, 8),
    (128, 128, 4),
    (256, 64, 8),
    (128, 64, 4),
    (64, 128, 4),
    (64, 64, 4),
    (128, 32, 4),
    (64, 32, 4),
    (128, 16, 4),
    (64, 16, 4),
    (32, 128, 4),
    (32, 64, 4),
    (32, 32, 4),
    (32, 16, 4),
    (16, 128, 4),
    (16, 64, 4),
    (16, 32, 4),
    (16, 16, 4),
)
_CTAS, _DEPTHS, _PARTS = (1, 2, 3), (4, 6), (1, 2, 4, 8)
_FEWEST_STEPS = 4  # of a part, below which its prologue is most of it
# Registers of a thread beside its sums, and those for the places of each 16 bytes of x that it copies;
# operands that pass through registers take some more.
_OTHER_REGISTERS, _COPY_REGISTERS, _OPERAND_REGISTERS = 48, 4, 48
_LIKE = PRODUCTS["A100-SXM4-80GB"]
"""What chips of no known product are taken to be many of."""


def launches(
    shape: LayerShape, pattern: Pattern, chip: Chip, *, element_bytes: int = 2
) -> tuple[str, ...]:
    """Lists launch parameters of a layer.

    Args:
        shape: the layer.
        pattern: its tiles, or dense.
        chip: where.
        element_bytes: of weights and activations.
    """
    work = _typical(shape, pattern, element_bytes)
    known = [each for each in PRODUCTS.values() if each.capability == chip.capability]
    product = known[0] if known else dataclasses.replace(_LIKE, capability=chip.capability)
    fitting = _fitting(work, chip, _group_out(shape, pattern), product.multiprocessors)
    found = sorted(dict.fromkeys(fitting), key=lambda launch: _forecast_us(launch, work, product))
    return tuple(launch.text for launch in found[:MOST])


def _typical(shape: LayerShape, pattern: Pattern, element_bytes: int) -> TileWork:
    """Gives the work of a layer of usual sparsity."""
    outputs, columns = shape.out_channels, shape.in_channels * math.prod(shape.kernel)
    if not pattern.is_dense:
        density = 1 - _TYPICAL_SPARSITY
        share = math.sqrt(density) if pattern.split == "even" else 1.0
        outputs, columns = math.ceil(outputs * share), math.ceil(columns * density / share)
    work = uniform_work(
        shape,
        outputs=outputs,
        columns=columns,
        group_out=_group_out(shape, pattern),
        unit_in=shape.in_channels if pattern.is_dense else pattern.unit_in,
    )
    return dataclasses.replace(work, element_bytes=element_bytes)


def _group_out(shape: LayerShape, pattern: Pattern) -> int:
    return min(pattern.group_out or shape.out_channels, shape.out_channels)


def _fitting(work: TileWork, chip: Chip, group_out: int, multiprocessors: int) -> Iterator[Launch]:
    """Lists what fits, the largest blocks first."""
    columns = work.tiles[0][1]
    # 64 columns of 16 bits are a line of the widest swizzle; registers hold half of that better.
    widths = (64, 32) if not chip.has_wgmma else (64,)
    for (bm, bn, warps), width in itertools.product(_BLOCKS, widths):
        is_wide = bm > max(16, _up(work.rows)) or bn > max(16, _up(group_out))
        if is_wide or (bm < 64 and work.rows > 64):
            continue
        bk = max(16, min(width, _up(columns))) * 2 // work.element_bytes
        if width < min(64, _up(columns)) and min(bm, bn) * bk * work.element_bytes < 16 * 32 * warps:
            continue  # threads would copy less than 16 bytes each of the narrower operand
        steps = math.ceil(columns / bk)
        blocks = sum(math.ceil(size / bn) for size, _ in work.tiles)
        for ctas, most in itertools.product(_CTAS, _DEPTHS):
            launch = Launch(bm=bm, bn=bn, bk=bk, warps=warps, ctas=ctas)
            stages = _stages(launch, min(most, max(steps, 2)), work.element_bytes, chip)
            if not stages or registers_of(launch, work.element_bytes, chip) > registers(warps, ctas):
                continue
            items = math.ceil(work.rows / bm) * blocks
            for parts in _parts(items, multiprocessors * ctas, steps):
                yield dataclasses.replace(launch, stages=stages, split_k=parts)


def passes_registers(launch: Launch, chip: Chip) -> bool:
    """Whether operands of products pass through registers, instead of coming from shared memory."""
    return not (chip.has_wgmma and launch.bm >= 64 and launch.warps % 4 == 0)


def smem_bytes(launch: Launch, element_bytes: int, chip: Chip) -> int:
    """Gives the shared memory that operands of steps under way take.

    Where they pass through registers, a step that is multiplied has left its stage, and none is kept
    for it.
    """
    kept = launch.stages - 1 if passes_registers(launch, chip) else launch.stages
    return kept * (launch.bm + launch.bn) * launch.bk * element_bytes


def _stages(launch: Launch, depth: int, element_bytes: int, chip: Chip) -> int:
    """Gives the stages that keep at most `depth` steps, as many as fit; 0 if no two of them do."""
    room = min(chip.smem_block_bytes, chip.smem_bytes // launch.ctas - SMEM_RESERVED_BYTES)
    extra = 1 if passes_registers(launch, chip) else 0
    for kept in range(depth, 1, -1):
        stages = kept + extra
        if smem_bytes(dataclasses.replace(launch, stages=stages), element_bytes, chip) <= room:
            return stages
    return 0


def registers_of(launch: Launch, element_bytes: int, chip: Chip) -> int:
    """Gives the registers of a thread that a block needs, so that none is spilled."""
    threads = 32 * launch.warps
    copies = math.ceil(launch.bm * launch.bk * element_bytes / 16 / threads)
    operands = _OPERAND_REGISTERS if passes_registers(launch, chip) else 0
    return launch.bm * launch.bn // threads + _OTHER_REGISTERS + _COPY_REGISTERS * copies + operands


def _parts(items: int, slots: int, steps: int) -> tuple[int, ...]:
    """Gives the parts that columns may be summed in, more than one where items leave a chip idle."""
    return tuple(
        parts for parts in _PARTS
        if parts == 1 or (2 * items * parts <= 3 * slots and steps >= parts * _FEWEST_STEPS)
    )  # fmt: skip


def _up(value: int) -> int:
    """Gives the next power of two."""
    return 1 << (value - 1).bit_length()


def _forecast_us(launch: Launch, work: TileWork, product: Product) -> float:
    size = work.element_bytes
    found = forecast(
        work,
        launch,
        product,
        registers=registers_of(launch, size, product.chip),
        smem_bytes=smem_bytes(launch, size, product.chip),
    )
    return math.inf if found is None else found.us
