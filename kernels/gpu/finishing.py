"""What is left to do after a library's product: bias, residual and activation, in one pass.

Libraries fuse some of it, in the type of the outputs; the rest would be a pass each. On a GPU a kernel
of our own does it all at once in float32 (`cuda/finish.cu`), on a CPU torch does, for checking.
"""

from __future__ import annotations

import ctypes

import numpy as np
import torch

from autosparse.kernels.gpu import driver
from autosparse.kernels.gpu.method import FloatArray
from autosparse.kernels.gpu.nvrtc import SHARED_HEADERS, Source
from autosparse.patterns.structure import IntArray
from autosparse.records import Activation

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}
THREADS = 256
FUNCTION = "finish"
_TYPES = {"bf16": "Bf16", "f16": "F16"}
_BLOCKS_PER_MULTIPROCESSOR = 8  # as many as there are threads for


class FinishArgs(ctypes.Structure):
    """The struct of the same name of `cuda/finish.cu`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("product", "residual", "out", "bias", "columns")),
        *((name, ctypes.c_int32) for name in ("pixels", "channels", "pitch")),
    )


class Finish:
    """Writes ``activation(product + bias + residual)``, outputs where they belong."""

    def __init__(
        self,
        dtype: str,
        bias: FloatArray,
        device: torch.device,
        *,
        activation: Activation,
        residual: bool,
        columns: IntArray | None = None,
    ) -> None:
        """Copies what is needed to a device, and loads the kernel if it is a GPU.

        Args:
            dtype: of product, residual and output.
            bias: of every output.
            device: a GPU, or the CPU.
            activation: the function that comes last.
            residual: whether one is added.
            columns: where every output is in a row of the product, -1 for nowhere; None for in order.

        Raises:
            NoKernel: there is no compiler or driver.
        """
        self._activation, self._channels = activation, bias.size
        self._bias = torch.from_numpy(np.ascontiguousarray(bias, dtype=np.float32)).to(device)
        self._columns = None if columns is None else torch.from_numpy(columns).to(device)
        self._width = 1 if self._channels % 8 else 8
        self._function: driver.Function | None = None
        if device.type == "cuda":
            index = driver.device_index(device)
            source = source_of(
                dtype, self._width, columns is not None, residual=residual, activation=activation
            )
            self._function = driver.load(source, FUNCTION, index, THREADS)
            self._most_blocks = _BLOCKS_PER_MULTIPROCESSOR * driver.multiprocessors(index)

    @property
    def bytes(self) -> int:
        """Bytes on the device."""
        return self._bias.nbytes + (0 if self._columns is None else self._columns.nbytes)

    def __call__(self, product: torch.Tensor, residual: torch.Tensor | None, out: torch.Tensor) -> None:
        """Finishes a product, on the current stream.

        Args:
            product: ``[pixels or more, columns]``; may be `out` where outputs are in order.
            residual: of the shape of `out`, or None.
            out: ``[pixels, channels]``.
        """
        if self._function is None:
            self._on_cpu(product, residual, out)
            return
        pixels = out.numel() // self._channels
        threads = pixels * self._channels // self._width
        self._function.launch(
            min(-(-threads // THREADS), self._most_blocks),
            FinishArgs(
                product=driver.address(product),
                residual=None if residual is None else driver.address(residual),
                out=driver.address(out),
                bias=self._bias.data_ptr(),
                columns=None if self._columns is None else self._columns.data_ptr(),
                pixels=pixels,
                channels=self._channels,
                pitch=product.shape[-1],
            ),
        )

    def _on_cpu(self, product: torch.Tensor, residual: torch.Tensor | None, out: torch.Tensor) -> None:
        pixels = out.numel() // self._channels
        sums = product.float().reshape(-1, product.shape[-1])[:pixels]
        if self._columns is not None:
            found = sums[:, self._columns.clamp(min=0).long()]
            sums = torch.where(self._columns >= 0, found, 0.0)
        sums = sums + self._bias
        if residual is not None:
            sums = sums + residual.reshape(sums.shape)
        out.copy_(activated(sums, self._activation).reshape(out.shape))


def source_of(
    dtype: str, width: int, is_mapped: bool, *, residual: bool, activation: Activation
) -> Source:
    """Gives what is compiled: a variant of `cuda/finish.cu`."""
    flags = (str(flag).lower() for flag in (is_mapped, residual))
    variant = ", ".join([_TYPES[dtype], str(width), *flags, activation.name])
    headers = [SHARED_HEADERS / "primitives.cuh", SHARED_HEADERS / "activations.cuh"]
    return Source.read(SHARED_HEADERS / "finish.cu", headers, variant)


def activated(sums: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Applies an activation."""
    functions = torch.nn.functional
    match activation:
        case Activation.NONE:
            return sums
        case Activation.RELU:
            return functions.relu(sums)
        case Activation.RELU6:
            return functions.relu6(sums)
        case Activation.SILU:
            return functions.silu(sums)
        case Activation.HARD_SWISH:
            return functions.hardswish(sums)
        case Activation.HARD_SIGMOID:
            return functions.hardsigmoid(sums)
        case Activation.SIGMOID:
            return torch.sigmoid(sums)
        case Activation.GELU:
            return functions.gelu(sums)
