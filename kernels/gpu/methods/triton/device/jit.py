"""The decorator of kernels and of what they call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import triton


def kernel(function: Callable[..., Any]) -> Any:
    """Makes a kernel, or a part of one, of a function in Triton's subset of Python.

    Whole numbers (parameters of type ``int``) are never specialised, so that one compiled kernel
    serves all sizes; what alignment follows from constants stands in the code.
    """
    parameters = inspect.signature(function).parameters.values()
    numbers = [each.name for each in parameters if each.annotation == "int"]
    return triton.jit(function, do_not_specialize=numbers)
