"""A layer of tiles on a device, ready to be called."""

from __future__ import annotations

import torch

from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.method import GivenLayer
from autosparse.kernels.gpu.methods.triton.call import Call
from autosparse.kernels.gpu.methods.triton.geometry import of_layer
from autosparse.kernels.gpu.methods.triton.packing import pack, run_of, tile_columns
from autosparse.kernels.gpu.methods.triton.product import TileProduct, as_tensor, check_launch
from autosparse.patterns.tile_structure import TileStructure
from autosparse.records import LayerShape

ELEMENT_BYTES = 2
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}


class TileWiseLayer:
    """A layer whose condensed weights lie on a device."""

    def __init__(
        self, given: GivenLayer, dtype: torch.dtype, launch: Launch, device: torch.device
    ) -> None:
        self.dtype = dtype
        structure = structure_of(given)
        self._activation = str(given.shape.activation)
        self.product = forward_product(structure, given.shape, launch, device)
        values = self.product.packing.values(given.weight)
        self._weight = as_tensor(values, device, dtype)
        self._bias = None if given.bias is None else as_tensor(given.bias, device, torch.float32)
        if device.type == "cuda":
            self._load(given.shape.residual)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights and lists on the device."""
        bias = 0 if self._bias is None else self._bias.nbytes
        return self._weight.nbytes + bias + self.product.list_bytes

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None, out: torch.Tensor) -> None:
        """Computes the layer on the current stream, see `autosparse.kernels.gpu.method.Prepared`."""
        self.product.run(
            x, self._weight, out, bias=self._bias, residual=residual, activation=self._activation
        )

    def calls(
        self,
        x: torch.Tensor,
        residual: torch.Tensor | None,
        out: torch.Tensor,
        parts: torch.Tensor | None,
    ) -> tuple[Call, ...]:
        """Gives the launches of a call; `parts` is of `TileProduct.parts_shape`, None with one part."""
        return self.product.calls(
            x, self._weight, out, parts,
            bias=self._bias, residual=residual, activation=self._activation,
        )  # fmt: skip

    def _load(self, adds: bool) -> None:
        """Compiles and loads its kernels, which cannot be done while a graph is captured.

        They run once, without rows, so that they neither read nor write.
        """
        small = torch.zeros(16, dtype=self.dtype, device=self.product.device)
        parts = None if self.product.launch.split_k == 1 else small.to(torch.float32)
        for call in self.product.calls(
            small, self._weight, small, parts,
            bias=self._bias, residual=small if adds else None,
            activation=self._activation, is_checked=False,
        ):  # fmt: skip
            call.without_rows().run()


def structure_of(given: GivenLayer) -> TileStructure:
    """Gives the tiles of a layer; a dense one is a single tile that keeps everything."""
    if given.structure is not None:
        return given.structure
    return TileStructure.dense(given.weight.shape, given.weight.shape[0], given.weight.shape[1])


def forward_product(
    structure: TileStructure, shape: LayerShape, launch: Launch, device: torch.device
) -> TileProduct:
    """Packs a layer's lists and puts them on a device.

    Raises:
        NoKernel: the launch parameters or extents are not what kernels are made for.
    """
    check_launch(launch, min(structure.group_out, structure.shape[0]))
    geometry = of_layer(shape)
    run = run_of(structure.unit_in, shape.in_channels, element_bytes=ELEMENT_BYTES, limit=launch.bk)
    tiles = tile_columns(structure, shape)
    packing = pack(tiles, geometry, bn=launch.bn, bk=launch.bk, run=run, element_bytes=ELEMENT_BYTES)
    return TileProduct(geometry, packing, launch, device)
