"""Kernels in CUDA C++ on a GPU: loaded by the driver once per device, launched on torch's stream."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

import torch

from autosparse.errors import NoKernel, UsageError
from autosparse.kernels.gpu.chips import Chip, chip_of
from autosparse.kernels.gpu.nvrtc import Source, cubin


@dataclass(frozen=True, slots=True)
class Function:
    """A kernel on a device.

    Attributes:
        handle: the driver's.
        device: index of the GPU.
        threads: of a block.
        shared_bytes: of shared memory that a block asks for.
    """

    handle: Any
    device: int
    threads: int
    shared_bytes: int

    def launch(self, grid: int, args: ctypes.Structure) -> None:
        """Launches it on the device's current stream; the arguments are copied.

        Raises:
            NoKernel: the driver refuses; the message says why.
        """
        driver = _driver()
        with torch.cuda.device(self.device):
            stream = driver.CUstream(torch.cuda.current_stream(self.device).cuda_stream)
            blocks, threads = (grid, 1, 1), (self.threads, 1, 1)
            given = ((args,), (None,))
            result = driver.cuLaunchKernel(
                self.handle, *blocks, *threads, self.shared_bytes, stream, given, 0
            )
        _checked(result)


@functools.lru_cache(maxsize=256)
def load(source: Source, name: str, device: int, threads: int, shared_bytes: int = 0) -> Function:
    """Compiles a kernel for a device and loads it there.

    Args:
        source: what is compiled.
        name: of the function.
        device: index of the GPU.
        threads: of a block.
        shared_bytes: of shared memory that a block asks for.

    Raises:
        NoKernel: it cannot be compiled or loaded.
    """
    driver, code = _driver(), cubin(source, chip_here(device).target)
    with torch.cuda.device(device):
        torch.empty(1, device=f"cuda:{device}")  # makes the device's context this thread's
        module = _checked(driver.cuModuleLoadData(code))
        handle = _checked(driver.cuModuleGetFunction(module, name.encode()))
        most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(handle, most, shared_bytes))
    return Function(handle, device, threads, shared_bytes)


def device_index(device: torch.device) -> int:
    """Gives the index of a GPU.

    Raises:
        NoKernel: it is none, or there is none.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        raise NoKernel(f"kernels in CUDA C++ need a GPU, but got device {device}", {})
    return torch.cuda.current_device() if device.index is None else device.index


def chip_here(device: int) -> Chip:
    """Gives the chip of a GPU.

    Raises:
        NoKernel: kernels are not made for it.
    """
    major, minor = torch.cuda.get_device_capability(device)
    chip = chip_of(f"{major}.{minor}")
    if chip is None:
        raise NoKernel(f"no kernel was made for compute capability {major}.{minor}", {})
    return chip


def multiprocessors(device: int) -> int:
    """Counts the multiprocessors of a GPU, or of the slice of one that is here."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def address(tensor: torch.Tensor) -> int:
    """Gives where a tensor lies.

    Raises:
        UsageError: it is not contiguous, or does not start at a multiple of 16 bytes.
    """
    start = tensor.data_ptr()
    if start % 16 or not tensor.is_contiguous():
        raise UsageError(
            "tensors must be contiguous and start at a multiple of 16 bytes, but got one of strides "
            f"{tensor.stride()} at {start:#x}; clone it"
        )
    return start


def _driver() -> Any:
    from cuda.bindings import driver

    return driver


def _checked(result: tuple[Any, ...]) -> Any:
    if result[0] != _driver().CUresult.CUDA_SUCCESS:
        raise NoKernel(f"the driver must load and launch kernels, but says {result[0].name}", {})
    return result[1] if len(result) > 1 else None
