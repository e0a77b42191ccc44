"""An analytic model of kernels of tiles: what each should take on a GPU, before anybody has run it.

A block computes items one after another, each `bm` rows by `bn` outputs of one tile. An item is a
prologue, as many steps of `bk` columns as its tile keeps, and an epilogue. A step takes as long as the
slowest of: multiplying; moving its operands into shared memory and out again; fetching them from the
L2 cache; and its share of the fetch's latency, which stages hide. Items go longest first to whichever
block is free; the launch ends with the last one, and not before its bytes have crossed the memory bus.

    t = max(makespan(items) / clock, bytes / bandwidth) + launch

What it leaves out: contention between multiprocessors beyond the L2's mean rate, bank conflicts, and
whatever makes a real compiler's loop slower than its slowest unit, which `Assumptions.issue` stands
for. Every number that is no datasheet's is an assumption, kept in one record so that a first real run
can refute it; nothing is chosen by forecasts but the order in which launch parameters are tried.

Sources: Williams et al., "Roofline", CACM 52(4), 2009; Graham, "Bounds on multiprocessing timing
anomalies", 1969 (longest first); product datasheets in `PRODUCTS`.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autosparse.kernels.gpu.chips import CHIPS, Chip
from autosparse.kernels.gpu.launch import Launch
from autosparse.patterns.tile_structure import TileStructure
from autosparse.records import LayerShape
from autosparse.storage.serial import Record

SECTOR_BYTES = 32
"""What the L2 cache hands out at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product(Record):
    """A GPU as its datasheet describes it.

    Attributes:
        name: of the product.
        capability: compute capability.
        multiprocessors: how many.
        clock_mhz: boost clock.
        memory_gbytes_per_s: of its memory.
        l2_gbytes_per_s: reads from its L2 cache, all multiprocessors together.
        l2_bytes: size of the L2 cache.
        sustained: share of the boost rate that long matrix products hold within its power.
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    clock_mhz: int
    memory_gbytes_per_s: float
    l2_gbytes_per_s: float
    l2_bytes: int
    sustained: float

    @property
    def chip(self) -> Chip:
        """Its multiprocessor."""
        return CHIPS[self.capability]


_MB = 1 << 20
PRODUCTS: Mapping[str, Product] = {
    product.name: product
    for product in (
        # sustained: bf16 products of 8192^3 run at some 270 of 312 TFLOP/s on an A100,
        # at 790 of 989 on an H200.
        Product(
            name="A100-SXM4-80GB", capability=(8, 0), multiprocessors=108, clock_mhz=1410,
            memory_gbytes_per_s=2039.0, l2_gbytes_per_s=4_600.0, l2_bytes=40 * _MB, sustained=0.87,
        ),
        Product(
            name="H100-SXM5-80GB", capability=(9, 0), multiprocessors=132, clock_mhz=1830,
            memory_gbytes_per_s=3350.0, l2_gbytes_per_s=7_000.0, l2_bytes=50 * _MB, sustained=0.80,
        ),
        Product(
            name="H200-SXM-141GB", capability=(9, 0), multiprocessors=132, clock_mhz=1830,
            memory_gbytes_per_s=4800.0, l2_gbytes_per_s=7_000.0, l2_bytes=50 * _MB, sustained=0.80,
        ),
    )
}  # fmt: skip
"""Products by name. Rates of L2 caches are no datasheet's: they are what others measured, rounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions(Record):
    """What the model takes for granted, beside datasheets.

    Attributes:
        issue: share of a step's slowest unit that a compiled loop reaches.
        latency_clocks: of a fetch from the L2 cache, under load.
        lookup_clocks: of a list's entry, before an item's first fetch.
        epilogue_contiguous: instructions per output where columns lie side by side.
        epilogue_scattered: where they do not.
        launch_us: of a node in a captured graph.
        memory_share: share of the datasheet's memory rate that streams reach.
        split_us: of the second kernel that sums the parts of a split.
    """

    issue: float = 0.9
    latency_clocks: float = 700.0
    lookup_clocks: float = 500.0
    epilogue_contiguous: float = 3.0
    epilogue_scattered: float = 8.0
    launch_us: float = 1.5
    memory_share: float = 0.9
    split_us: float = 2.0


ASSUMED = Assumptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class TileWork(Record):
    """What a kernel of tiles is given to do.

    Attributes:
        rows: output pixels or rows of the layer.
        tiles: outputs and columns of every tile.
        unit_in: consecutive inputs per unit.
        inputs: elements that one row holds in memory: all inputs of the layer.
        input_rows: rows of the input in memory; less or more than `rows` for convolutions.
        outputs: outputs of the layer, pruned ones included.
        is_contiguous: whether the outputs of a tile lie side by side.
        adds: whether a residual is read.
        sparse: whether operands are 2:4 inside of tiles.
        element_bytes: of weights and activations.
    """

    rows: int
    tiles: tuple[tuple[int, int], ...]
    unit_in: int
    inputs: int
    input_rows: int
    outputs: int
    is_contiguous: bool = True
    adds: bool = False
    sparse: bool = False
    element_bytes: int = 2

    @property
    def flops(self) -> int:
        """Operations that the kept weights stand for; of 2:4, half of what is between them counts."""
        kept = sum(outputs * columns for outputs, columns in self.tiles)
        return 2 * self.rows * kept // (2 if self.sparse else 1)

    def memory_bytes(self) -> int:
        """Bytes that must cross the memory bus once: inputs, weights, outputs, what is added."""
        weights = sum(outputs * columns for outputs, columns in self.tiles)
        stored = weights * self.element_bytes * (9 if self.sparse else 16) // 16
        writes = self.rows * self.outputs * (2 if self.adds else 1)
        return stored + self.element_bytes * (self.input_rows * self.inputs + writes)


def uniform_work(
    shape: LayerShape,
    *,
    outputs: int,
    columns: int,
    group_out: int,
    unit_in: int,
    sparse: bool = False,
) -> TileWork:
    """Gives the work of a layer whose tiles keep equally many columns.

    Args:
        shape: the layer.
        outputs: that are left.
        columns: that a tile reads, of all kernel positions.
        group_out: outputs per tile.
        unit_in: inputs per unit.
        sparse: whether there is 2:4 inside.
    """
    sizes = [min(group_out, outputs - first) for first in range(0, outputs, group_out)]
    tiles = tuple((size, columns) for size in sizes)
    return _work(shape, tiles, unit_in, is_contiguous=outputs == shape.out_channels, sparse=sparse)


def work_of(shape: LayerShape, structure: TileStructure, *, sparse: bool = False) -> TileWork:
    """Gives the work of a layer with the tiles that it has.

    Args:
        shape: the layer.
        structure: its tiles.
        sparse: whether there is 2:4 inside.
    """
    kept = structure.kept_per_tile
    tiles = tuple(
        (int(tile.outputs.size), int(columns))
        for tile, columns in zip(structure.tiles, kept, strict=True)
    )
    contiguous = all(np.all(np.diff(tile.outputs) == 1) for tile in structure.tiles)
    return _work(shape, tiles, structure.unit_in, is_contiguous=contiguous, sparse=sparse)


def _work(
    shape: LayerShape,
    tiles: tuple[tuple[int, int], ...],
    unit_in: int,
    *,
    is_contiguous: bool,
    sparse: bool,
) -> TileWork:
    return TileWork(
        rows=shape.batch_size * shape.out_height * shape.out_width,
        tiles=tiles,
        unit_in=unit_in,
        inputs=shape.in_channels,
        input_rows=shape.batch_size * shape.in_height * shape.in_width,
        outputs=shape.out_channels,
        is_contiguous=is_contiguous,
        adds=shape.residual,
        sparse=sparse,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast(Record):
    """What a launch should take, and why.

    Attributes:
        us: microseconds.
        bound_by: what a step waits for: ``multiplying``, ``shared memory``, ``L2``, ``latency``; or
            ``memory`` where the bus decides.
        flops_share: operations over what the product's datasheet allows in that time; operations on
            2:4 operands count once, against the dense rate.
        blocks: resident per multiprocessor.
        waves: items per block.
    """

    us: float
    bound_by: str
    flops_share: float
    blocks: int
    waves: float


def forecast(
    work: TileWork,
    launch: Launch,
    product: Product,
    *,
    registers: int,
    smem_bytes: int,
    multicast: int = 1,
    assumed: Assumptions = ASSUMED,
) -> Forecast | None:
    """Predicts one launch; None if no block of it fits on a multiprocessor.

    Args:
        work: what is computed.
        launch: how it is cut up.
        product: where.
        registers: per thread, as compiled.
        smem_bytes: of a block, as compiled.
        multicast: blocks that share one fetch of an operand: 1 without clusters.
        assumed: what is taken for granted.
    """
    chip = product.chip
    fits = chip.blocks_resident(threads=32 * launch.warps, registers=registers, smem_bytes=smem_bytes)
    blocks = min(fits, launch.ctas)
    if not blocks:
        return None
    step = _step(work, launch, product, blocks, multicast, assumed)
    bound_by = max(step, key=lambda unit: step[unit])
    step_clocks = step[bound_by] / assumed.issue
    items = _items(work, launch, step_clocks, blocks, assumed)
    slots = product.multiprocessors * blocks
    compute_us = _makespan(items, slots) / product.clock_mhz
    memory_us = work.memory_bytes() / (product.memory_gbytes_per_s * 1e3 * assumed.memory_share)
    us = max(compute_us, memory_us) + assumed.launch_us
    us += assumed.split_us if launch.split_k > 1 else 0.0
    peak = chip.flops_per_clock * product.multiprocessors * product.clock_mhz
    return Forecast(
        us=us,
        bound_by="memory" if memory_us > compute_us else bound_by,
        flops_share=work.flops / (peak * us),
        blocks=blocks,
        waves=len(items) / slots,
    )


def _step(
    work: TileWork,
    launch: Launch,
    product: Product,
    blocks: int,
    multicast: int,
    assumed: Assumptions,
) -> dict[str, float]:
    """Gives the clocks of one step of one block by each unit, shared with the other blocks there."""
    chip, size = product.chip, work.element_bytes
    bm, bn, bk = launch.bm, launch.bn, launch.bk
    rate = chip.flops_per_clock * product.sustained * (chip.sparse_factor if work.sparse else 1)
    weights = bn * bk * size * (9 if work.sparse else 16) / 16  # 2 bits beside each kept value
    x_bytes = bm * bk * size
    return {
        "multiplying": blocks * 2 * bm * bn * bk / rate,
        "shared memory": blocks
        * (x_bytes + weights + _operand_reads(launch, chip, work))
        / chip.smem_bytes_per_clock,
        "L2": blocks * (bm * _fetched(work, bk) + weights) / multicast / _l2_per_clock(product),
        "latency": assumed.latency_clocks / max(launch.stages - 1, 1),
    }


def _operand_reads(launch: Launch, chip: Chip, work: TileWork) -> float:
    """Gives the bytes that one step's instructions read from shared memory.

    Four warps of a Hopper multiply 64 rows by all of `bn` at a time, both operands from shared memory.
    On others each warp loads what its part of the block needs, as square a part as can be.
    """
    bm, bn, bk, size = launch.bm, launch.bn, launch.bk, work.element_bytes
    halved = 9 / 16 if work.sparse else 1.0
    if chip.has_wgmma:
        # The sparse operand is the weights, so there rows of 64 are outputs, and pixels are read whole.
        first, second = (bn * halved, bm) if work.sparse else (bm, bn)
        times = math.ceil((bn if work.sparse else bm) / 64)
        return size * bk * (first + second * times)
    wide = 1 << math.ceil(math.log2(launch.warps) / 2)
    deep = launch.warps // wide
    return size * bk * (bm * wide + bn * halved * deep)


def _fetched(work: TileWork, bk: int) -> float:
    """Gives the bytes that the L2 cache hands out for one row of one step."""
    run_bytes = min(work.unit_in, bk) * work.element_bytes
    return bk * work.element_bytes / run_bytes * math.ceil(run_bytes / SECTOR_BYTES) * SECTOR_BYTES


def _l2_per_clock(product: Product) -> float:
    return product.l2_gbytes_per_s * 1e3 / product.multiprocessors / product.clock_mhz


def _items(
    work: TileWork, launch: Launch, step_clocks: float, blocks: int, assumed: Assumptions
) -> list[float]:
    """Gives the clocks of every item, longest first; pruned outputs are items without steps."""
    instructions = assumed.epilogue_contiguous if work.is_contiguous else assumed.epilogue_scattered
    # 128 lanes of a multiprocessor, which its blocks share.
    epilogue = blocks * launch.bm * launch.bn * instructions / 128
    prologue = assumed.lookup_clocks + assumed.latency_clocks
    left = sum(outputs for outputs, _ in work.tiles)
    tiles = list(work.tiles) + ([(work.outputs - left, 0)] if work.outputs > left else [])
    items = []
    for outputs, columns in tiles:
        steps = math.ceil(columns / launch.bk / launch.split_k)
        clocks = (prologue if columns else 0.0) + steps * step_clocks + epilogue
        parts = launch.split_k if columns else 1
        count = math.ceil(outputs / launch.bn) * math.ceil(work.rows / launch.bm) * parts
        items += [clocks] * count
    return sorted(items, reverse=True)


def _makespan(items: Sequence[float], slots: int) -> float:
    """Gives when the last slot is done, each taking the longest item that is left when it is free."""
    busy = [0.0] * min(slots, len(items))
    for clocks in items:
        heapq.heapreplace(busy, busy[0] + clocks)
    return max(busy, default=0.0)


# ------------------------------------------------------------------------------- dense libraries

_LIBRARY_TILES = ((128, 256), (256, 128), (128, 128), (128, 64), (64, 64))


def library_forecast(
    shape: LayerShape, product: Product, *, sparse: bool = False, assumed: Assumptions = ASSUMED
) -> Forecast:
    """Predicts a vendor's library on a layer: the best of its usual blocks, nothing gathered.

    On a Hopper pairs of blocks share fetches. The registers and the shared memory are those of four
    steps in flight, which such libraries keep within limits.

    Args:
        shape: the layer.
        product: where.
        sparse: of weights that are 2:4 as a whole.
        assumed: what is taken for granted.
    """
    work = uniform_work(
        shape,
        outputs=shape.out_channels,
        columns=shape.in_channels // shape.groups * shape.taps,
        group_out=shape.out_channels,
        unit_in=shape.in_channels // shape.groups,
        sparse=sparse,
    )
    tuned = dataclasses.replace(assumed, issue=1.0, lookup_clocks=0.0)
    found = []
    for bm, bn in _LIBRARY_TILES:
        stages = 4 if product.chip.smem_block_bytes >= 4 * (bm + bn) * 128 else 3
        launch = Launch(bm=bm, bn=bn, bk=64 if stages == 4 else 32, warps=8, stages=stages, ctas=2)
        smem_bytes = stages * (bm + bn) * launch.bk * work.element_bytes
        registers = 64 + bm * bn // 256
        multicast = 2 if product.chip.has_wgmma else 1
        each = forecast(
            work, launch, product, registers=registers, smem_bytes=smem_bytes,
            multicast=multicast, assumed=tuned,
        )  # fmt: skip
        found += [] if each is None else [each]
    return min(found, key=lambda each: each.us)
