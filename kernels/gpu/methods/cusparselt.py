"""2:4 by cuSPARSELt, through torch's semi-structured matrices: linear layers that are one tile.

Where all outputs that are left share one list of inputs, these are gathered, multiplied by the
library, and what is left of the epilogue follows in one pass (`finishing`), which puts outputs where
they belong. A layer of 2:4 alone needs neither list. This is what fused kernels are measured against,
and verified with.

The library pads nothing: rows of weights and columns must be multiples of 16, of 16-bit types, and
rows of inputs of 8. cuSPARSELt 0.8.0 is slower on H100 and L4 than versions before and after it
(NVIDIA's release notes of 0.8.1), so rows of the tuning database name the version (`facts`).
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from autosparse.errors import NoKernel, UsageError
from autosparse.kernels.gpu import nvrtc
from autosparse.kernels.gpu.chips import Chip
from autosparse.kernels.gpu.method import GivenLayer, GpuKernel, Method, Prepared, register
from autosparse.kernels.gpu.methods.cublas import is_product
from autosparse.patterns.pattern import Pattern
from autosparse.patterns.structure import Array, IntArray
from autosparse.patterns.tile_structure import TileStructure
from autosparse.patterns.tiles import nm_groups, to_columns
from autosparse.records import LayerShape

if TYPE_CHECKING:
    import torch

_HALF = (2, 4)
_PAD = 16  # rows of weights, and columns
_PAD_ROWS = 8  # rows of inputs
_SEARCHED = "alg=searched"
_ALGORITHMS = 8  # how many exist, the library tells on a GPU alone; what is none fails and is a row
_DISTRIBUTION = re.compile(r"nvidia-cusparselt-cu\d+")


@register
class Cusparselt(Method):
    """Linear layers of one tile with 2:4 inside, and of 2:4 alone."""

    needs: ClassVar[Mapping[str, str]] = {"torch": "torch", "cuda": "cuda-bindings"}
    rounds_sums = True

    def kernels(self) -> tuple[GpuKernel, ...]:
        """Lists tiles with 2:4 (``tvw``) and 2:4 alone (``nm24``), by type."""
        return tuple(
            GpuKernel(
                name=f"{dtype}_{kind}__cuda_{self.name}",
                method=self.name,
                dtype=dtype,
                contract=contract,
                nm=_HALF,
            )
            for kind, contract in (("tvw", "tw"), ("nm24", "nm"))
            for dtype in ("bf16", "f16")
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """What compiles the pass that follows is needed too."""
        return super().missing + nvrtc.missing()

    def facts(self) -> str:
        """Adds the library's version."""
        return f"{super().facts()}, {library_version()}"

    def why_not(self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, chip: Chip) -> str:
        """Refuses several tiles, and what is no product of two matrices as they lie."""
        if chip.sparse_factor < 2:
            return f"{chip.name} has no sparse tensor cores"
        if not is_product(shape):
            return "it runs linear layers and 1x1 convolutions of stride 1"
        if kernel.contract == "tw" and pattern.group_out < shape.out_channels:
            return (
                f"it runs one tile, but {pattern.name} cuts {shape.out_channels} outputs into several"
            )
        return ""

    def launches(
        self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, chip: Chip
    ) -> tuple[str, ...]:
        """Lists the library's algorithms, and the one that it finds best itself."""
        return (_SEARCHED, *(f"alg={number}" for number in range(_ALGORITHMS)))

    def prepare(
        self, kernel: GpuKernel, layer: GivenLayer, launch: str, device: torch.device
    ) -> Prepared:
        """Compresses the weight on a GPU.

        Raises:
            NoKernel: there is no GPU, no such library or algorithm, or the weight is not 2:4.
            UsageError: no such launch parameter.
        """
        return _Compressed(kernel.dtype, layer, launch, device)

    def sources(self) -> tuple[Path, ...]:
        """Gives this file, and what finishes products."""
        return (Path(__file__), *nvrtc.finishing_sources())


def library_version() -> str:
    """Names the library that torch calls, and its version."""
    for found in importlib.metadata.distributions():
        name = found.metadata["Name"] or ""
        if _DISTRIBUTION.fullmatch(name):
            return f"{name} {found.version}"
    import torch

    built_in = torch.backends.cusparselt
    return f"cusparselt {built_in.version() if built_in.is_available() else 'missing'}"


# ---------------------------------------------------------------------------- what the library is given


@dataclass(frozen=True, slots=True, eq=False)
class Operands:
    """A layer's weight as the library takes it.

    Attributes:
        weight: float32 ``[outputs, columns]``, both multiples of 16, 2:4 along columns; empty where
            nothing is kept.
        inputs: the input of every column, ``[columns]``; None where they are all inputs in order. What
            was filled up has zeros for weights, and reads inputs that are kept anyhow.
        run: consecutive inputs, from a multiple of it on, that `inputs` is made of.
        outputs: where every output of the layer is in a row of the product, -1 for nowhere; None where
            they are in order and nothing was filled up.
    """

    weight: Array
    inputs: IntArray | None
    run: int
    outputs: IntArray | None


def operands(layer: GivenLayer) -> Operands:
    """Arranges a layer's weight: kept columns in groups of four with at most two live weights.

    Raises:
        NoKernel: it has several tiles, or is not 2:4.
    """
    weight = to_columns(layer.weight)
    structure = layer.structure or TileStructure.dense(weight.shape, *weight.shape)
    if len(structure.tiles) > 1:
        raise NoKernel(f"cuSPARSELt runs one tile, but the layer has {len(structure.tiles)}", {})
    outputs = np.full(len(weight), -1, dtype=np.int32)
    kept, columns = _only_tile(structure)
    if not columns.size:
        return Operands(np.empty((0, 0), np.float32), None, 1, outputs)
    places = _in_fours(weight[np.ix_(kept, columns)] != 0)
    filled = np.zeros((_up(kept.size, _PAD), _up(places.size, _PAD)), dtype=np.float32)
    found = weight[np.ix_(kept, columns[places.clip(min=0)])]
    filled[: kept.size, : places.size] = np.where(places < 0, 0, found)
    inputs = np.resize(columns[np.maximum.accumulate(places)], filled.shape[1])
    outputs[kept] = np.arange(kept.size)
    return Operands(
        weight=filled,
        inputs=None if np.array_equal(inputs, np.arange(weight.shape[1])) else inputs,
        run=run_of(inputs, weight.shape[1]),
        outputs=None if len(filled) == kept.size == len(weight) else outputs,
    )


def _only_tile(structure: TileStructure) -> tuple[IntArray, IntArray]:
    if not structure.tiles:
        return structure.pruned[:0], structure.pruned[:0]
    return structure.tiles[0].outputs, structure.columns(structure.tiles[0])


def _in_fours(live: Array) -> IntArray:
    """Gives the column of every place, four to a group, -1 for none; as they lie if that is 2:4."""
    columns = np.arange(live.shape[1], dtype=np.int32)
    aligned = np.pad(columns, (0, -columns.size % 4), constant_values=-1)
    whole = np.pad(live, ((0, 0), (0, -columns.size % 4))).reshape(len(live), -1, 4)
    if whole.sum(axis=2).max() <= 2:
        return aligned
    groups = [np.pad(columns[first:end], (0, 4 - end + first), constant_values=-1)
              for first, end in nm_groups(live, _HALF)]  # fmt: skip
    return np.concatenate(groups)


def run_of(inputs: IntArray, in_channels: int) -> int:
    """Gives the longest runs that a gather can move at once: 8, 4, 2 or 1 inputs."""
    for run in (8, 4, 2):
        if inputs.size % run == 0 and in_channels % run == 0:
            runs = inputs.reshape(-1, run)
            if (runs[:, 0] % run == 0).all() and (np.diff(runs, axis=1) == 1).all():
                return run
    return 1


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


# ----------------------------------------------------------------------------------- around the library


class Gathering:
    """Inputs of a layer as the library takes them: gathered, and rows filled up with zeros."""

    def __init__(self, given: Operands, device: torch.device) -> None:
        import torch

        self._run = given.run
        self._index: torch.Tensor | None = None
        if given.inputs is not None:
            firsts = given.inputs.reshape(-1, given.run)[:, 0] // given.run
            self._index = torch.from_numpy(firsts).to(device)

    @property
    def bytes(self) -> int:
        """Of the list on the device."""
        return 0 if self._index is None else self._index.nbytes

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Gives ``[rows, columns]``, rows a multiple of 8, of ``[rows, in]``."""
        import torch

        if self._index is not None:
            # Elements as wide as runs, so that as many bytes are moved at once.
            wide = {8: torch.complex128, 4: torch.int64, 2: torch.int32, 1: torch.int16}[self._run]
            rows = rows.view(wide).index_select(1, self._index).view(rows.dtype)
        short = -len(rows) % _PAD_ROWS
        return torch.nn.functional.pad(rows, (0, 0, 0, short)) if short else rows


class _Compressed:
    def __init__(self, dtype: str, layer: GivenLayer, launch: str, device: torch.device) -> None:
        import torch

        from autosparse.kernels.gpu.finishing import DTYPES, Finish

        self._algorithm = _algorithm_of(launch)
        given = operands(layer)
        if device.type != "cuda" or not torch.backends.cusparselt.is_available():
            raise NoKernel(
                f"cuSPARSELt needs a GPU and a torch that has it, but got device {device} and "
                f"{library_version()}",
                {},
            )
        shape = layer.shape
        self._gather = Gathering(given, device)
        weight = torch.from_numpy(given.weight).to(device, DTYPES[dtype])
        self._weight = torch._cslt_compress(weight) if given.weight.size else weight
        bias = np.zeros(shape.out_channels, np.float32) if layer.bias is None else layer.bias
        self._finish = Finish(
            dtype, bias, device,
            activation=shape.activation, residual=shape.residual, columns=given.outputs,
        )  # fmt: skip
        if self._algorithm < 0 and given.weight.size:
            rows = shape.batch_size * shape.out_height * shape.out_width
            x = torch.randn(rows, shape.in_channels, device=device).to(DTYPES[dtype])
            self._algorithm = torch._cslt_sparse_mm_search(
                self._weight, self._gather(x).t(), transpose_result=True
            )

    @property
    def weight_bytes(self) -> int:
        return self._weight.nbytes + self._gather.bytes + self._finish.bytes

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None, out: torch.Tensor) -> None:
        import torch

        product = x.view(-1, x.shape[-1])  # of which nothing is read where nothing is kept
        if self._weight.numel():
            product = torch._cslt_sparse_mm(
                self._weight, self._gather(product).t(), alg_id=self._algorithm, transpose_result=True
            )
        self._finish(product, residual, out)


def _algorithm_of(launch: str) -> int:
    """Reads a number, -1 for the one that the library finds."""
    name, _, number = launch.partition("=")
    if launch == _SEARCHED:
        return -1
    if name != "alg" or not number.isdecimal():
        raise UsageError(f"launch parameters must be {_SEARCHED} or alg=N, but got {launch!r}")
    return int(number)
