"""Both products of a training step's way back, on the device.

For the gradient of x, every tile adds to the inputs that it keeps, and several tiles keep one input.
Adding where they meet would take an atomic addition of 4 bytes for every kept input of every tile and
row: at 75 % zeros in BERT-base's widest layer six times as many bytes as its inputs and outputs
together, in an order that differs from run to run. So the product is turned around: a block owns some
inputs, and its columns are the outputs of all tiles that keep one of these. What a tile does not keep
of a block is multiplied by zero, so pruned outputs save work here and pruned inputs little; results
are the same every time.

For the gradient of weights, inputs are gathered as in the layer itself, and condensed weights come out.

Both read outputs' gradients without those of pruned outputs, tile after tile (`OutputOrder`).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from autosparse.errors import NoKernel
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.methods.triton.call import Call
from autosparse.kernels.gpu.methods.triton.geometry import Geometry, Phase, of_layer
from autosparse.kernels.gpu.methods.triton.packing import (
    Packing,
    TileColumns,
    live_tiles,
    pack,
    run_of,
    tile_columns,
)
from autosparse.patterns.structure import IntArray
from autosparse.patterns.tile_structure import TileStructure
from autosparse.records import LayerShape

_ALIGNED = 8  # elements of 16 bits that 16 bytes hold
_INT16 = 1 << 15


@dataclass(frozen=True, slots=True, eq=False)
class OutputOrder:
    """Outputs of tiles, tile after tile, filled up to a multiple of 16 bytes.

    Attributes:
        outputs: int32 ``[size]``, numbers of outputs; -1 for what fills up.
        starts: int32 ``[tiles + 1]``, where each tile starts, and where the last ends.
        is_natural: whether these are all outputs, in order.
    """

    outputs: IntArray
    starts: IntArray
    is_natural: bool

    @classmethod
    def of(cls, structure: TileStructure) -> OutputOrder:
        """Gives the order of a layer's outputs."""
        none = np.zeros(0, dtype=np.int32)
        tiles = live_tiles(structure)
        found = np.concatenate([none, *(tile.outputs for tile in tiles)])
        starts = np.cumsum([0, *(tile.outputs.size for tile in tiles)])
        fill = np.full(-found.size % _ALIGNED if found.size else _ALIGNED, -1)
        outputs = np.concatenate([found, fill]).astype(np.int32)
        is_natural = np.array_equal(outputs, np.arange(structure.shape[0]))
        return cls(outputs, starts.astype(np.int32), is_natural)

    def run(self, limit: int) -> int:
        """Gives how many outputs lie together in every tile, at most `limit`."""
        return run_of(
            *(int(n) for n in self.starts[:-1]), self.outputs.size, element_bytes=2, limit=limit
        )


def input_tiles(
    structure: TileStructure, order: OutputOrder, phase: Phase, *, group: int, run: int
) -> list[TileColumns]:
    """Gives blocks of inputs as tiles that read outputs' gradients.

    Args:
        structure: of the layer.
        order: of its outputs.
        phase: which input pixels.
        group: inputs per block.
        run: outputs per entry.
    """
    channels, taps, tiles = structure.shape[1], structure.taps, live_tiles(structure)
    kept = np.zeros((len(tiles), taps, structure.units_per_position), dtype=bool)
    for index, tile in enumerate(tiles):
        kept[index].reshape(-1)[tile.units] = True
    found = []
    for first in range(0, channels, group):
        inputs = np.arange(first, min(first + group, channels), dtype=np.int32)
        mine = kept[:, :, inputs // structure.unit_in]
        reads = [
            (tap, tile)
            for tap in phase.taps
            for tile in np.flatnonzero(mine[:, tap].any(axis=1)).tolist()
        ]
        if reads:
            found.append(_input_tile(inputs, reads, mine, order, phase, taps, channels, run))
    return found


def _input_tile(
    inputs: IntArray,
    reads: list[tuple[int, int]],
    kept: NDArray[np.bool_],
    order: OutputOrder,
    phase: Phase,
    taps: int,
    channels: int,
    run: int,
) -> TileColumns:
    """Gives one block of inputs; `kept` is bool ``[tiles, taps, inputs]``."""
    sizes = [-(-(order.starts[tile + 1] - order.starts[tile]) // run) * run for _, tile in reads]
    tap = np.repeat([tap for tap, _ in reads], sizes)
    tile = np.repeat([tile for _, tile in reads], sizes)
    channel = np.concatenate(
        [order.starts[tile] + np.arange(size) for (_, tile), size in zip(reads, sizes, strict=True)]
    )
    places = np.array([phase.taps.get(each, (0, 0)) for each in range(taps)], dtype=np.int32)
    output = order.outputs[channel].astype(np.int64)
    return TileColumns(
        outputs=inputs,
        down=places[tap, 0],
        across=places[tap, 1],
        channel=channel.astype(np.int32),
        of_output=inputs.astype(np.int64) * taps,
        of_column=output * channels * taps + tap,
        is_kept=kept[tile, tap].T & (channel < order.starts[tile + 1]),
    )


def compact_tiles(structure: TileStructure, order: OutputOrder, shape: LayerShape) -> list[TileColumns]:
    """Gives a layer's tiles with outputs numbered in that order; the last has what fills up as well."""
    found, last = [], len(order.starts) - 2
    for index, tile in enumerate(tile_columns(structure, shape)):
        end = order.outputs.size if index == last else order.starts[index + 1]
        outputs = order.outputs[order.starts[index] : end]
        found.append(
            dataclasses.replace(
                tile,
                outputs=np.arange(order.starts[index], end, dtype=np.int32),
                of_output=outputs.astype(np.int64) * (structure.shape[1] * structure.taps),
                is_kept=np.repeat(outputs[:, None] >= 0, tile.channel.size, axis=1),
            )
        )
    return found


class WeightGradient:
    """The gradient of a layer's condensed weights.

    Attributes:
        packing: of the layer's tiles, with outputs in their order.
    """

    def __init__(
        self,
        structure: TileStructure,
        order: OutputOrder,
        shape: LayerShape,
        launch: Launch,
        device: torch.device,
    ) -> None:
        rows = dataclasses.replace(of_layer(shape), channels=order.outputs.size)
        run = run_of(structure.unit_in, shape.in_channels, element_bytes=2, limit=launch.bk)
        tiles = compact_tiles(structure, order, shape)
        self.packing = pack(tiles, rows, bn=launch.bn, bk=launch.bk, run=run)
        self._geometry, self._launch = rows, launch
        lists = {"entries": self.packing.entries, "taps": self.packing.taps}
        lists["steps"] = _steps(self.packing)
        if rows.is_decoded:
            lists["places"] = _places(rows)
        self._lists = {name: torch.from_numpy(each).to(device) for name, each in lists.items()}

    @property
    def parts_shape(self) -> tuple[int, int, int, int]:
        """Extents of the float32 tensor that it is given in, to be added up over the first."""
        steps, bn, bk = self.packing.source.shape
        return (self._launch.split_k, steps, bn, bk)

    def call(self, x: torch.Tensor, grad: torch.Tensor, parts: torch.Tensor) -> Call:
        """Gives its launch.

        Args:
            x: input of the layer.
            grad: of its outputs, in their order, ``[rows, outputs]``.
            parts: float32, of `parts_shape`; every element is written.
        """
        geometry, launch, packing = self._geometry, self._launch, self.packing
        steps = packing.source.shape[0]
        arguments = {
            **{name: self._lists.get(name) for name in ("entries", "steps", "places")},
            "taps": self._lists["taps"] if geometry.is_padded else None,
            "x": x,
            "grad": grad,
            "parts": parts,
            "step_count": steps,
            "rows": geometry.rows,
            "rows_per_part": math.ceil(geometry.rows / launch.split_k / launch.bm) * launch.bm,
            "in_height": geometry.input[0],
            "in_width": geometry.input[1],
            "in_runs": geometry.input[2] // packing.run,
            "grad_runs": geometry.channels // packing.out_run,
            "BR": launch.bm,
            "BN": launch.bn,
            "BK": launch.bk,
            "RUN": packing.run,
            "OUT_RUN": packing.out_run,
            "CONV": geometry.is_decoded,
            "PADDED": geometry.is_padded,
            "INTERPRETED": x.device.type == "cpu",
        }
        return Call(
            kernel="weight_gradient",
            arguments=arguments,
            programs=launch.split_k * steps,
            warps=launch.warps,
            stages=launch.stages,
            ctas=launch.ctas,
        )


def _steps(packing: Packing) -> IntArray:
    """Lists where each step of weights comes from, int32 ``[steps, 4]``: see `device.gradient`."""
    found = np.zeros((packing.source.shape[0], 4), dtype=np.int32)
    for steps, first, entry, output, count, *_ in packing.blocks:
        found[first : first + steps, 0] = entry + np.arange(steps)
        found[first : first + steps, 1:3] = output, count
    return found


def _places(geometry: Geometry) -> IntArray:
    """Lists the pixel that every row starts from, and its row and column; int32 ``[rows, 2]``.

    Raises:
        NoKernel: rows and columns that 16 bits do not count.
    """
    if max(geometry.input[:2]) + max(0, *geometry.origin) >= _INT16:
        raise NoKernel(f"images must have less than {_INT16} rows, but got {geometry.input}", {})
    image, y, x = np.unravel_index(np.arange(geometry.rows), (geometry.images, *geometry.output))
    y = y * geometry.stride[0] - geometry.origin[0]
    x = x * geometry.stride[1] - geometry.origin[1]
    pixel = (image * geometry.input[0] + y) * geometry.input[1] + x
    return np.stack([pixel, (y & 0xFFFF) | x << 16], axis=1).astype(np.int32)
