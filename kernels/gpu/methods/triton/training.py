"""A layer of tiles that torch differentiates: forward, and both backward products, by our kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from autosparse.errors import UsageError
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.methods.triton.backward import OutputOrder, WeightGradient, input_tiles
from autosparse.kernels.gpu.methods.triton.geometry import phases
from autosparse.kernels.gpu.methods.triton.layer import forward_product
from autosparse.kernels.gpu.methods.triton.packing import pack
from autosparse.kernels.gpu.methods.triton.product import TileProduct, gathered
from autosparse.patterns.tile_structure import TileStructure
from autosparse.records import LayerShape

_BUSY_PROGRAMS = 256  # about two for each multiprocessor of a large chip
_FEWEST_ROWS = 1024  # of a part of the gradient of weights
_TYPES = (torch.bfloat16, torch.float16)


class TilePlan:
    """Tiles of a layer, packed for training on a device; weights may change from step to step.

    Attributes:
        shape: of the layer, batch included; activation and residual play no part.
        structure: its tiles.
        layer: the product of the layer itself.
        inputs: those that make up the gradient of its input, one per phase of the stride.
        weights: that of its weights.
    """

    def __init__(
        self,
        structure: TileStructure,
        shape: LayerShape,
        device: torch.device,
        *,
        launch: Launch | None = None,
    ) -> None:
        """Packs the lists of all three products.

        Args:
            structure: tiles of the layer.
            shape: the layer.
            device: where it is trained; on the CPU, kernels are interpreted.
            launch: launch parameters of the layer itself, or usual ones; its block sizes are taken for
                the other products as well, as far as they fit.

        Raises:
            NoKernel: what kernels are not made for.
        """
        self.shape, self.structure = shape, structure
        group = min(structure.group_out, structure.shape[0])
        launch = launch or usual_launch(group)
        self._order = OutputOrder.of(structure)
        self.layer = forward_product(structure, shape, launch, device)
        self.inputs = _input_products(structure, self._order, shape, launch, device)
        self.weights = WeightGradient(
            structure, self._order, shape, _gradient_launch(structure, shape, launch), device
        )
        # Indices on the device: where condensed weights come from and go to, whose gradients are read.
        none = math.prod(structure.shape)
        self._places = [
            torch.from_numpy(np.where(each.packing.source >= 0, each.packing.source, none)).to(device)
            for each in (self.layer, *self.inputs)
        ]
        source = torch.from_numpy(self.weights.packing.source.reshape(-1))
        kept = torch.nonzero(source >= 0)[:, 0]
        self._kept, self._kept_places = kept.to(device), source[kept].long().to(device)
        self._outputs = torch.from_numpy(self._order.outputs).to(device).long()

    def forward(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Computes the layer: ``[batch, out height, out width, out]``."""
        shape = self.shape
        out = x.new_empty(shape.batch_size, shape.out_height, shape.out_width, shape.out_channels)
        condensed = gathered(weight, self._places[0], x.dtype)
        self.layer.run(x, condensed, out, bias=None if bias is None else bias.float())
        return out

    def ordered(self, grad: torch.Tensor) -> torch.Tensor:
        """Gives outputs' gradients without those of pruned outputs, ``[rows, outputs]``."""
        flat = grad.reshape(-1, grad.shape[-1])
        if self._order.is_natural:
            return flat
        found = flat.index_select(1, self._outputs.clamp(min=0))
        found[:, self._outputs < 0] = 0
        return found

    def input_gradient(self, ordered: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Gives the gradient of the input, ``[batch, height, width, in]``."""
        shape = self.shape
        grad = ordered.new_empty(shape.batch_size, shape.in_height, shape.in_width, shape.in_channels)
        for product, places in zip(self.inputs, self._places[1:], strict=True):
            product.run(ordered, gathered(weight, places, ordered.dtype), grad)
        return grad

    def weight_gradient(self, x: torch.Tensor, ordered: torch.Tensor) -> torch.Tensor:
        """Gives the gradient of kept weights, OIHW, float32; others get 0."""
        grad = torch.zeros(math.prod(self.structure.shape), dtype=torch.float32, device=x.device)
        if self._kept.numel():
            parts = grad.new_empty(self.weights.parts_shape)
            self.weights.call(x, ordered, parts).run()
            grad[self._kept_places] = parts.sum(0).reshape(-1)[self._kept]
        return grad.reshape(self.structure.shape)


class TileWiseFunction(torch.autograd.Function):
    """A layer of tiles with its backward products."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, plan: TilePlan
    ) -> torch.Tensor:
        """Computes the layer."""
        ctx.plan, ctx.bias_dtype = plan, None if bias is None else bias.dtype
        ctx.save_for_backward(x, weight)
        return plan.forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gives the gradients of x, of weights that are kept, and of the bias."""
        (grad,) = grads
        x, weight = ctx.saved_tensors
        plan, grad = ctx.plan, grad.contiguous()
        ordered = plan.ordered(grad)
        of_x = plan.input_gradient(ordered, weight) if ctx.needs_input_grad[0] else None
        of_weight = of_bias = None
        if ctx.needs_input_grad[1]:
            of_weight = plan.weight_gradient(x, ordered).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            summed = grad.reshape(-1, grad.shape[-1]).sum(0, dtype=torch.float32)
            of_bias = summed.to(ctx.bias_dtype)
        return of_x, of_weight, of_bias, None


def tile_wise(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, plan: TilePlan
) -> torch.Tensor:
    """Computes a layer of tiles, so that gradients flow to x, kept weights and bias.

    Args:
        x: ``[batch, height, width, in]``, contiguous, bfloat16 or float16.
        weight: OIHW or OI, of any floating type; what tiles do not keep is not read, and gets 0.
        bias: one per output, or None.
        plan: the layer's tiles.

    Returns:
        ``[batch, out height, out width, out]``, in the type of `x`.

    Raises:
        UsageError: tensors that do not fit the plan.
    """
    shape = plan.shape
    wanted = (shape.batch_size, shape.in_height, shape.in_width, shape.in_channels)
    if tuple(x.shape) != wanted or tuple(weight.shape) != plan.structure.shape or x.dtype not in _TYPES:
        raise UsageError(
            f"x must be {wanted} in bfloat16 or float16 and the weight {plan.structure.shape}, but got "
            f"{tuple(x.shape)} in {x.dtype} and {tuple(weight.shape)}"
        )
    apply: Callable[..., torch.Tensor] = TileWiseFunction.apply
    return apply(x.contiguous(), weight, bias, plan)


def usual_launch(group_out: int) -> Launch:
    """Gives launch parameters that fit every chip there is.

    Args:
        group_out: outputs of the largest tile.
    """
    bn = min(128, max(16, 1 << (group_out - 1).bit_length()))
    return Launch(bm=128, bn=bn, bk=32, warps=8 if bn > 64 else 4, stages=4)


def _input_products(
    structure: TileStructure,
    order: OutputOrder,
    shape: LayerShape,
    launch: Launch,
    device: torch.device,
) -> list[TileProduct]:
    found = []
    run = order.run(launch.bk)
    for phase in phases(shape, order.outputs.size):
        tiles = input_tiles(structure, order, phase, group=launch.bn, run=run)
        packing = pack(tiles, phase.geometry, bn=launch.bn, bk=launch.bk, run=run)
        found.append(TileProduct(phase.geometry, packing, launch, device))
    return found


def _gradient_launch(structure: TileStructure, shape: LayerShape, launch: Launch) -> Launch:
    """Gives launch parameters of the gradient of weights, whose blocks are steps of the layer's.

    Rows are summed in parts where there are few steps, so that a chip has enough to do.
    """
    rows = shape.batch_size * shape.out_height * shape.out_width
    columns = structure.kept_per_tile
    blocks = sum(math.ceil(tile.outputs.size / launch.bn) for tile in structure.tiles)
    mean = float(columns.mean()) if columns.size else 0.0
    steps = max(1, blocks * math.ceil(mean / launch.bk))
    parts = max(1, min(_BUSY_PROGRAMS // steps, rows // _FEWEST_ROWS))
    return Launch(
        bm=min(64, launch.bm), bn=launch.bn, bk=launch.bk, warps=launch.warps,
        stages=launch.stages, split_k=parts,
    )  # fmt: skip
