"""A packed product on a device: its lists, and the launches that compute it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from autosparse.errors import NoKernel, UsageError
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.methods.triton.call import Call, registers
from autosparse.kernels.gpu.methods.triton.geometry import Geometry
from autosparse.kernels.gpu.methods.triton.packing import Packing

_LISTS = ("blocks", "entries", "taps", "columns", "pruned")
# The interpreter computes programs in turn; a few of them show that items are shared out rightly.
_INTERPRETED_PROGRAMS = 3
_FINISH_ROWS, _FINISH_WARPS = 32, 4
# What an input may take of the L2 cache of an A100 or larger, beside weights and outputs.
# Fewer blocks of rows than these would read weights from it more often than inputs.
_L2_BYTES, _FEWEST_ROW_BLOCKS = 16 << 20, 8
_SMALLEST_SLICE = {True: 16, False: 8}  # outputs, where they are stored 16 bytes at a time, or singly


class TileProduct:
    """Gathered columns of a matrix or image times the condensed weights of tiles.

    Attributes:
        geometry: its rows.
        packing: its lists.
        launch: how it is cut up.
        device: where the lists lie.
    """

    def __init__(
        self, geometry: Geometry, packing: Packing, launch: Launch, device: torch.device
    ) -> None:
        self.geometry, self.packing, self.launch, self.device = geometry, packing, launch, device
        self._lists = {name: torch.from_numpy(getattr(packing, name)).to(device) for name in _LISTS}
        self._programs = _INTERPRETED_PROGRAMS
        if device.type == "cuda":
            found = torch.cuda.get_device_properties(device)
            self._programs = found.multi_processor_count * launch.ctas

    @property
    def list_bytes(self) -> int:
        """Bytes of its lists."""
        return sum(each.nbytes for each in self._lists.values())

    @property
    def parts_shape(self) -> tuple[int, int, int, int]:
        """Extents of the float32 tensor that sums of parts are kept in; of no use with one part."""
        return (self.launch.split_k, len(self.packing.blocks), self.geometry.rows, self.launch.bn)

    def run(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        out: torch.Tensor,
        *,
        parts: torch.Tensor | None = None,
        **after: Any,
    ) -> None:
        """Computes it on the current stream.

        Args:
            x: the input of its geometry.
            weight: `Packing.values`, in the type of `x`.
            out: the output of its geometry.
            parts: of `parts_shape`, made here if left out.
            after: `scale`, `bias`, `residual`, `activation`, see `calls`.
        """
        if parts is None and self.launch.split_k > 1:
            parts = torch.empty(self.parts_shape, dtype=torch.float32, device=x.device)
        for call in self.calls(x, weight, out, parts, **after):
            call.run()

    def calls(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        out: torch.Tensor,
        parts: torch.Tensor | None = None,
        *,
        scale: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
        activation: str = "none",
        is_checked: bool = True,
    ) -> tuple[Call, ...]:
        """Gives its launches: one, or two where columns are summed in parts.

        Args:
            x: the input.
            weight: condensed.
            out: the output.
            parts: of `parts_shape`; None with one part.
            scale: float32, one per output, multiplied with sums.
            bias: float32, one per output.
            residual: as `out`.
            activation: applied last.
            is_checked: whether tensors of other sizes are refused.

        Raises:
            UsageError: a tensor is of another size, not contiguous, or not aligned.
        """
        if is_checked:
            self._check(x, residual, out)
        after = {
            "scale": scale,
            "bias": bias,
            "residual": residual,
            "out": out,
            "ACTIVATION": str(activation),
            **self._outputs(),
            "INTERPRETED": x.device.type == "cpu",
        }
        if self.launch.split_k == 1:
            return (self._forward(x, weight, dict(after, parts=None)),)
        none = dict.fromkeys(("scale", "bias", "residual", "out"))
        first = self._forward(x, weight, {**after, **none, "parts": parts, "ACTIVATION": "none"})
        return first, self._finish({**after, "parts": parts})

    def _forward(self, x: torch.Tensor, weight: torch.Tensor, after: dict[str, Any]) -> Call:
        geometry, launch = self.geometry, self.launch
        row_blocks = math.ceil(geometry.rows / launch.bm)
        items = row_blocks * len(self.packing.blocks) * launch.split_k
        arguments = {
            **after,
            "x": x,
            "weight": weight,
            "entries": self._lists["entries"],
            "taps": self._lists["taps"] if geometry.is_padded else None,
            "items": items,
            "block_count": len(self.packing.blocks),
            "row_blocks": row_blocks,
            "row_group": self._row_group(row_blocks, x.element_size()),
            "in_height": geometry.input[0],
            "in_width": geometry.input[1],
            "in_runs": geometry.input[2] // self.packing.run,
            "top": geometry.origin[0],
            "left": geometry.origin[1],
            "stride_y": geometry.stride[0],
            "stride_x": geometry.stride[1],
            "BM": launch.bm,
            "BK": launch.bk,
            "RUN": self.packing.run,
            "SLICE": slice_of(launch, is_contiguous=self.packing.is_contiguous),
            "CONV": geometry.is_decoded,
            "PADDED": geometry.is_padded,
        }
        return Call(
            kernel="forward",
            arguments=arguments,
            programs=min(items, self._programs),
            warps=launch.warps,
            stages=launch.stages,
            ctas=launch.ctas,
        )

    def _row_group(self, row_blocks: int, element_bytes: int) -> int:
        """Gives the blocks of rows whose part of the input stays in the L2 cache."""
        whole = self.geometry.images * math.prod(self.geometry.input) * element_bytes
        held = _L2_BYTES * row_blocks // max(whole, 1)
        return min(max(held, _FEWEST_ROW_BLOCKS), row_blocks)

    def _finish(self, after: dict[str, Any]) -> Call:
        row_blocks = math.ceil(self.geometry.rows / _FINISH_ROWS)
        blocks = len(self.packing.blocks)
        arguments = {
            **after,
            "row_blocks": row_blocks,
            "block_count": blocks,
            "BM": _FINISH_ROWS,
            "SLICE": min(self.launch.bn, 64),
        }
        return Call(
            kernel="finish",
            arguments=arguments,
            programs=row_blocks * blocks,
            warps=_FINISH_WARPS,
            stages=1,
        )

    def _outputs(self) -> dict[str, Any]:
        """Gives what both kernels are told of outputs."""
        geometry, packing, placement = self.geometry, self.packing, self.geometry.placement
        image, step, shift = (1, 1), (1, 1), (0, 0)
        if placement is not None:
            image, step, shift = placement.image, placement.step, placement.shift
        return {
            "blocks": self._lists["blocks"],
            "columns": None if packing.is_contiguous else self._lists["columns"],
            "pruned": self._lists["pruned"] if packing.pruned_count else None,
            "rows": geometry.rows,
            "out_height": geometry.output[0],
            "out_width": geometry.output[1],
            "out_runs": geometry.channels // packing.out_run,
            **dict(zip(("image_height", "image_width"), image, strict=True)),
            **dict(zip(("step_y", "step_x"), step, strict=True)),
            **dict(zip(("shift_y", "shift_x"), shift, strict=True)),
            "BN": self.launch.bn,
            "OUT_RUN": packing.out_run,
            "PARTS": self.launch.split_k,
            "APART": placement is not None,
            "CONTIGUOUS": packing.is_contiguous,
            "PRUNED": packing.pruned_count > 0,
        }

    def _check(self, x: torch.Tensor, residual: torch.Tensor | None, out: torch.Tensor) -> None:
        """Refuses what kernels would read or write out of bounds, or at addresses not foreseen."""
        geometry = self.geometry
        pixels = geometry.rows
        if geometry.placement is not None:
            pixels = geometry.images * math.prod(geometry.placement.image)
        sizes = {"x": geometry.images * math.prod(geometry.input), "out": pixels * geometry.channels}
        given = {"x": x, "out": out} if residual is None else {"x": x, "out": out, "residual": residual}
        for name, tensor in given.items():
            size = sizes["x" if name == "x" else "out"]
            if tensor.numel() != size or not tensor.is_contiguous() or tensor.data_ptr() % 16:
                raise UsageError(
                    f"{name} must be {size} contiguous elements from a multiple of 16 bytes on, but "
                    f"got {tensor.numel()} of shape {tuple(tensor.shape)}, strides {tensor.stride()}, "
                    f"at {tensor.data_ptr() % 16} bytes from one"
                )


def slice_of(launch: Launch, *, is_contiguous: bool) -> int:
    """Gives the outputs that are written at a time, by the registers that sums leave free.

    Scattered outputs need an address for each row of a thread.
    """
    sums = launch.bm * launch.bn // (32 * launch.warps)
    spare = registers(launch.warps, launch.ctas) - sums
    values = 16 if spare >= (64 if is_contiguous else 160) else 8
    width = values * 32 * launch.warps // launch.bm
    return min(max(width, _SMALLEST_SLICE[is_contiguous]), launch.bn)


def check_launch(launch: Launch, group_out: int, element_bytes: int) -> None:
    """Refuses launch parameters that the kernels are not made for.

    Args:
        launch: to judge.
        group_out: outputs of the largest tile.
        element_bytes: of weights and inputs.

    Raises:
        NoKernel: the message says which rule is broken.
    """
    sizes = (launch.bm, launch.bn, launch.bk, launch.warps)
    narrowest = 32 // element_bytes  # columns of one instruction
    if any(size & (size - 1) for size in sizes) or min(sizes[:2]) < 16 or launch.bk < narrowest:
        raise NoKernel(
            f"bm, bn, bk and warps must be powers of two, bm and bn from 16 on and bk from {narrowest} "
            f"on, but got {launch.text}",
            {},
        )
    widest = max(16, 1 << (group_out - 1).bit_length())
    if launch.bn > widest:
        raise NoKernel(
            f"bn must be at most {widest} for tiles of {group_out} outputs, but got {launch.text}", {}
        )


def gathered(weight: torch.Tensor, places: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Condenses weights on their device: `Packing.values` there.

    Args:
        weight: OIHW.
        places: `Packing.source` there, where the number of weights stands for none.
        dtype: of the result.
    """
    flat = weight.reshape(-1).to(dtype)
    return torch.cat([flat, flat.new_zeros(1)]).index_select(0, places.reshape(-1)).view(places.shape)


def as_tensor(values: np.ndarray[Any, Any], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Puts an array on a device."""
    return torch.from_numpy(values).to(device=device, dtype=dtype)
