"""bf16 in numpy, which has no such type: float32 values that bf16 can hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def round_to_bf16(values: NDArray[Any]) -> NDArray[np.float32]:
    """Gives the nearest values that bf16 can hold, ties to even, as float32; NaN stays NaN."""
    exact = np.ascontiguousarray(values, dtype=np.float32)
    bits = exact.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(exact), exact, rounded.view(np.float32))
