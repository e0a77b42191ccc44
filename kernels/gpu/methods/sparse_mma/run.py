"""A layer on a GPU: machine code loaded by the driver, launched on torch's current stream."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from autosparse.errors import NoKernel, UsageError
from autosparse.kernels.gpu.chips import Chip, chip_of
from autosparse.kernels.gpu.method import GivenLayer
from autosparse.kernels.gpu.methods.sparse_mma.arguments import Args, args_of
from autosparse.kernels.gpu.methods.sparse_mma.build import FUNCTION, cubin
from autosparse.kernels.gpu.methods.sparse_mma.packing import Packed, pack
from autosparse.kernels.gpu.methods.sparse_mma.variants import Variant


class SparseLayer:
    """Weights on a device, and a kernel for them. Calls can be captured in a graph."""

    def __init__(self, variant: Variant, layer: GivenLayer, device: torch.device) -> None:
        """Packs a layer, copies it to a device and loads its kernel.

        Args:
            variant: the kernel.
            layer: what it computes.
            device: a GPU.

        Raises:
            NoKernel: it is no GPU, or one that the kernel was not made for, or the weight is not 2:4.
        """
        launch = variant.launch
        is_image = variant.instruction == "wgmma"
        packed = pack(layer, variant.dtype, launch.bn, image=is_image)
        self._variant, self._device = variant, device
        self._function = _function(variant, _index(device))
        self._arrays = _on(packed, device)
        self._args = args_of(layer.shape, len(packed.parts), launch.bm)
        for name, array in self._arrays.items():
            setattr(self._args, name, array.data_ptr())
        items = self._args.part_count * self._args.pixel_blocks
        count = torch.cuda.get_device_properties(device).multi_processor_count
        self._grid = min(items, count * launch.ctas)
        self.weight_bytes = packed.bytes

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None, out: torch.Tensor) -> None:
        """Computes the layer on the current stream.

        Raises:
            UsageError: a tensor does not start at a multiple of 16 bytes.
        """
        args = Args.from_buffer_copy(self._args)
        args.x, args.out = _address(x), _address(out)
        args.residual = None if residual is None else _address(residual)
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream(self._device).cuda_stream
            self._launch(args, stream)

    def _launch(self, args: Args, stream: int) -> None:
        driver, variant = _driver(), self._variant
        _checked(
            driver.cuLaunchKernel(
                self._function,
                *(self._grid, 1, 1),
                *(variant.threads, 1, 1),
                variant.shared_bytes,
                driver.CUstream(stream),
                ((args,), (None,)),  # a struct, of which the driver takes a copy
                0,
            )
        )


def _on(packed: Packed, device: torch.device) -> dict[str, torch.Tensor]:
    names = ("blocks", "runs", "parts", "outputs", "bias")
    # A kernel may be given no blocks at all, but needs an address.
    arrays = {name: np.resize(a, 16) if not (a := getattr(packed, name)).size else a for name in names}
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def _address(tensor: torch.Tensor) -> int:
    address = tensor.data_ptr()
    if address % 16 or not tensor.is_contiguous():
        raise UsageError(
            "tensors of sparse kernels must be contiguous and start at a multiple of 16 bytes, but got "
            f"one of strides {tensor.stride()} at {address:#x}; clone it"
        )
    return address


def _index(device: torch.device) -> int:
    if device.type != "cuda" or not torch.cuda.is_available():
        raise NoKernel(f"machine code of sparse tensor cores needs a GPU, but got device {device}", {})
    return torch.cuda.current_device() if device.index is None else device.index


def _chip(index: int) -> Chip:
    major, minor = torch.cuda.get_device_capability(index)
    chip = chip_of(f"{major}.{minor}")
    if chip is None:
        raise NoKernel(f"no kernel was made for compute capability {major}.{minor}", {})
    return chip


@functools.lru_cache(maxsize=256)
def _function(variant: Variant, index: int) -> Any:
    """Loads a kernel on a device, once."""
    driver, code = _driver(), cubin(variant, _chip(index).target)
    with torch.cuda.device(index):
        torch.empty(1, device=f"cuda:{index}")  # makes the device's context this thread's
        module = _checked(driver.cuModuleLoadData(code))
        function = _checked(driver.cuModuleGetFunction(module, FUNCTION.encode()))
        most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(function, most, variant.shared_bytes))
    return function


def _driver() -> Any:
    from cuda.bindings import driver

    return driver


def _checked(result: tuple[Any, ...]) -> Any:
    if result[0] != _driver().CUresult.CUDA_SUCCESS:
        raise NoKernel(f"the driver must load and launch sparse kernels, but says {result[0].name}", {})
    return result[1] if len(result) > 1 else None
