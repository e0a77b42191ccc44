"""Tests here need Triton; what it interprets may touch nothing but the tensors it was given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton", reason="triton is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

from triton.runtime.interpreter import InterpreterBuilder  # noqa: E402

from autosparse.kernels.gpu.methods.triton.call import Call  # noqa: E402


class Bounds:
    """Where the tensors of a call lie."""

    def __init__(self, tensors: list[Any]) -> None:
        spans = sorted((each.data_ptr(), each.data_ptr() + each.nbytes) for each in tensors)
        self._starts, self._ends = np.array(spans, dtype=np.uint64).T

    def check(self, pointers: Any, mask: Any) -> None:
        """Asserts that every element that is read or written lies in one of them."""
        at = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)]
        span = np.searchsorted(self._starts, at, side="right") - 1
        size = np.uint64(pointers.get_element_ty().primitive_bitwidth // 8)
        assert (span >= 0).all() and (at + size <= self._ends[span]).all(), "outside of all tensors"


@pytest.fixture(autouse=True)
def bounded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Checks every address of every call that is interpreted."""
    run, load, store = (
        Call.run,
        InterpreterBuilder.create_masked_load,
        InterpreterBuilder.create_masked_store,
    )
    current: list[Bounds] = []

    def bounded_run(call: Call) -> None:
        tensors = [each for each in call.arguments.values() if isinstance(each, torch.Tensor)]
        current.append(Bounds(tensors))
        run(call)
        current.pop()

    def bounded_load(builder: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        current[-1].check(pointers, mask)
        return load(builder, pointers, mask, *rest)

    def bounded_store(builder: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        current[-1].check(pointers, mask)
        return store(builder, pointers, value, mask, *rest)

    monkeypatch.setattr(Call, "run", bounded_run)
    monkeypatch.setattr(InterpreterBuilder, "create_masked_load", bounded_load)
    monkeypatch.setattr(InterpreterBuilder, "create_masked_store", bounded_store)
    yield
