"""A layer's weights in the order in which kernels read them, packed once when a layer is prepared.

A tile is cut into parts of `bn` outputs; of each, one step of 64 columns is a block:

    values   [bn][32] of 16 bits: two of every four columns
    words    [bn / 16][32] of 32 bits: where they were (`metadata`)

Values lie as fragments, so that a lane of `mma.sp` loads its four registers at once, or as the image
that `wgmma` reads from shared memory, in swizzled rows of 64 bytes. What is short is filled up with
zeros: outputs to `bn`, columns to 64, whose inputs are never read. Outputs that no tile has are parts
without steps, so that bias, residual and activation reach them too. Parts stand longest first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autosparse.errors import NoKernel, PlanError
from autosparse.kernels.bf16 import round_to_bf16
from autosparse.kernels.gpu.method import GivenLayer
from autosparse.kernels.gpu.methods.sparse_mma import metadata
from autosparse.patterns.structure import Array, IntArray
from autosparse.patterns.tile_structure import TileStructure
from autosparse.patterns.tiles import to_columns
from autosparse.records import LayerShape

STEP = metadata.COLUMNS
"""Columns of one step of a kernel's main loop."""
RUN = 8
"""Columns that are gathered at once: 16 bytes."""
NOWHERE = -(1 << 31)
"""The shift of a run that is not there: far above the first row of any image."""
BYTES_PER_OUTPUT = 2 * STEP // 2 + 4 * metadata.LANES // metadata.ROWS
"""Of one step, values and words."""


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """What a kernel reads beside the input.

    Attributes:
        blocks: uint8 ``[blocks, bn * 72]``.
        runs: int32 ``[runs, 2]``: elements from an output pixel's first input to the run, and by how
            many rows (upper 16 bits) and columns (lower) it is shifted against it.
        parts: int32 ``[parts, 4]``: steps, first block, first run, and 1 where every 8 outputs lie side
            by side from a multiple of 8 on, or are not there.
        outputs: int32 ``[parts, bn]``, -1 where there is none.
        bias: float32 ``[parts, bn]``.
    """

    blocks: NDArray[np.uint8]
    runs: IntArray
    parts: IntArray
    outputs: IntArray
    bias: NDArray[np.float32]

    @property
    def bytes(self) -> int:
        """Bytes of all of it."""
        arrays = (self.blocks, self.runs, self.parts, self.outputs, self.bias)
        return sum(array.nbytes for array in arrays)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Outputs of a tile that one block computes at a time, and the number of the tile's list."""

    outputs: IntArray
    columns: IntArray
    list: int

    @property
    def steps(self) -> int:
        return -(-self.columns.size // STEP)


def pack(layer: GivenLayer, dtype: str, bn: int, *, image: bool) -> Packed:
    """Packs a layer.

    Args:
        layer: of tiles with 2:4 inside, or of 2:4 alone, for which all outputs read all inputs.
        dtype: ``bf16`` or ``f16``.
        bn: outputs per part, a multiple of 16.
        image: values as an image of shared memory instead of fragments.

    Raises:
        NoKernel: the weight is not 2:4 over the columns that its tiles keep.
    """
    structure = layer.structure or TileStructure.dense(layer.weight.shape, bn, layer.weight.shape[1])
    lists = [structure.columns(tile) for tile in structure.tiles]
    parts = sorted(_parts(structure, lists, bn), key=lambda part: -part.steps)
    weight = to_columns(layer.weight)
    blocks = [_blocks(weight, part, dtype, bn, image) for part in parts]
    outputs = np.full((len(parts), bn), -1, dtype=np.int32)
    for row, part in zip(outputs, parts, strict=True):
        row[: part.outputs.size] = part.outputs
    bias = np.zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias
    runs = [_runs(columns, layer.shape) for columns in lists]
    return Packed(
        blocks=np.concatenate(blocks),
        runs=np.concatenate([np.empty((0, 2), np.int32), *runs]),
        parts=_table(parts, runs, outputs, layer.weight.shape[0]),
        outputs=outputs,
        bias=np.where(outputs < 0, 0, bias[outputs]).astype(np.float32),
    )


def _parts(structure: TileStructure, lists: Sequence[IntArray], bn: int) -> Iterator[_Part]:
    for number, (tile, columns) in enumerate(zip(structure.tiles, lists, strict=True)):
        for first in range(0, tile.outputs.size, bn):
            yield _Part(tile.outputs[first : first + bn], columns, number)
    for first in range(0, structure.pruned.size, bn):
        yield _Part(structure.pruned[first : first + bn], np.empty(0, np.int32), -1)


def _blocks(weight: Array, part: _Part, dtype: str, bn: int, image: bool) -> NDArray[np.uint8]:
    if not part.steps:
        return np.empty((0, bn * BYTES_PER_OUTPUT), np.uint8)
    rows = np.zeros((bn, part.steps * STEP), dtype=np.float32)
    rows[: part.outputs.size, : part.columns.size] = weight[np.ix_(part.outputs, part.columns)]
    try:
        kept, at = metadata.compress(rows)
    except PlanError as error:
        raise NoKernel(
            f"sparse tensor cores need 2:4 over the columns that are kept: {error}", {}
        ) from None
    values = _image(to_bits(kept, dtype)) if image else _fragments(to_bits(kept, dtype))
    words = metadata.pack(at).transpose(1, 0, 2)
    both = [np.ascontiguousarray(each).view(np.uint8) for each in (values, words)]
    return np.concatenate([each.reshape(part.steps, -1) for each in both], axis=1)


def to_bits(values: Array, dtype: str) -> NDArray[np.uint16]:
    """Gives the nearest values of a 16-bit type, as it stores them."""
    if dtype == "f16":
        return values.astype(np.float16).view(np.uint16)
    return (round_to_bf16(values).view(np.uint32) >> 16).astype(np.uint16)


def _fragments(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Gives ``[steps, 16 outputs, instruction, lane, 8]`` of ``[bn, K/2]``: `metadata.a_fragments`."""
    # [16 outputs, half, row, step, instruction, half, thread, pair]
    #  -> [step, 16 outputs, instruction, row, thread, half of columns, half of rows, pair]
    split = values.reshape(len(values) // 16, 2, 8, -1, 2, 2, 4, 2)
    return split.transpose(3, 0, 4, 2, 6, 5, 1, 7)


def _image(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Gives ``[steps, bn, 4 chunks, 8]`` of ``[bn, K/2]``, chunks of 16 bytes swizzled."""
    chunks = values.reshape(len(values), -1, 4, 8).transpose(1, 0, 2, 3)
    flat = chunks.reshape(chunks.shape[0], -1, 8)
    swizzled = np.empty_like(flat)
    swizzled[:, metadata.swizzled(np.arange(0, flat.shape[1] * 16, 16), 64) // 16] = flat
    return swizzled


def _runs(columns: IntArray, shape: LayerShape) -> IntArray:
    """Gives the runs of a list of columns, ``[steps * 8, 2]``."""
    firsts = columns.reshape(-1, RUN)[:, 0]
    position, channel = np.divmod(firsts, shape.in_channels)
    down, right = np.divmod(position, shape.kernel[1])
    down, right = down * shape.dilation[0], right * shape.dilation[1]
    runs = np.zeros((-(-columns.size // STEP) * STEP // RUN, 2), dtype=np.int32)
    runs[:, 1] = NOWHERE
    runs[: firsts.size, 0] = (down * shape.in_width + right) * shape.in_channels + channel
    runs[: firsts.size, 1] = down << 16 | right
    return runs


def _table(
    parts: Sequence[_Part], runs: Sequence[IntArray], outputs: IntArray, out_channels: int
) -> IntArray:
    starts = np.cumsum([0, *map(len, runs)])
    blocks = np.cumsum([0, *(part.steps for part in parts)])
    by_eight = outputs.reshape(len(parts), -1, RUN)
    together = (np.diff(by_eight, axis=2) == 1).all(axis=2) & (by_eight[:, :, 0] % RUN == 0)
    wide = (together | (by_eight < 0).all(axis=2)).all(axis=1) & (out_channels % RUN == 0)
    rows = [
        (part.steps, blocks[at], starts[part.list] if part.steps else 0, wide[at])
        for at, part in enumerate(parts)
    ]
    return np.array(rows, dtype=np.int32).reshape(-1, 4)
