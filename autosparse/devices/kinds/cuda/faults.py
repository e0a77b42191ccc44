"""What becomes of the errors that CUDA reports: a reason, a lack of memory, or the end of the process.

After an illegal access, or a kernel that traps, every later call of the same process fails too. So
whoever sees an error asks the GPU for something else: if that fails as well, the process is done for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from autosparse.errors import DeviceLost, NoKernel


@contextmanager
def named(what: str, device: torch.device) -> Iterator[None]:
    """Says of errors what they are of.

    Args:
        what: a kernel and its layer.
        device: where; errors on the CPU are passed on as they are.

    Raises:
        MemoryError: the device has not enough memory.
        DeviceLost: the process can do no more with it.
        NoKernel: anything else that torch or CUDA says.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(f"{what} needs more memory than the GPU has left: {error}") from None
    except RuntimeError as error:
        if device.type != "cuda":
            raise
        if why := _why_lost(device):
            raise DeviceLost(f"{what}: {error}; the GPU answers nothing more: {why}") from error
        raise NoKernel(f"{what} failed: {error}", {}) from error


def _why_lost(device: torch.device) -> str:
    try:
        torch.cuda.synchronize(device)
        torch.zeros(1, device=device).cpu()
    except RuntimeError as error:
        return str(error)
    return ""
