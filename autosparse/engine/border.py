"""What a compiled model takes and gives, and the checks of every call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from autosparse.errors import UsageError
from autosparse.graph import Port


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """What a compiled model takes and gives.

    Attributes:
        inputs: in the order of the arguments.
        outputs: leaves of the result.
        out_spec: how the leaves make up the result.
        examples: values of the right kind to time with.
        device: kind of the device that inputs may lie on beside the CPU.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    out_spec: Any
    examples: tuple[torch.Tensor, ...]
    device: str = "cpu"

    @property
    def batch_size(self) -> int:
        """Samples per call."""
        return self.inputs[0].dims[0]

    def rebuild(self, leaves: Sequence[Any]) -> Any:
        """Puts the leaves of a result together."""
        spec = self.out_spec
        return leaves[0] if spec is None else pytree.tree_unflatten(list(leaves), spec)

    def check(self, inputs: Sequence[Any]) -> bool:
        """Refuses inputs that do not fit; tells whether they are numpy arrays.

        Raises:
            UsageError: another number, kind, shape or type of inputs.
        """
        expected = self.inputs
        if len(inputs) != len(expected):
            raise UsageError(f"this model takes {len(expected)} inputs, but got {len(inputs)}")
        kinds = {_kind(value) for value in inputs}
        if len(kinds) > 1 or None in kinds:
            found = ", ".join(type(value).__name__ for value in inputs)
            raise UsageError(f"inputs must be all torch tensors or all numpy arrays, but got {found}")
        for index, (value, port) in enumerate(zip(inputs, expected, strict=True)):
            _check_one(index, value, port, self.device)
        return kinds == {"array"}


def _kind(value: Any) -> str | None:
    if isinstance(value, torch.Tensor):
        return "tensor"
    return "array" if isinstance(value, np.ndarray) else None


def _check_one(index: int, value: Any, port: Port, device: str) -> None:
    if tuple(value.shape) != port.dims:
        raise UsageError(
            f"input {index} must have the example's shape {list(port.dims)}, but got "
            f"{list(value.shape)}; compile again for another shape"
        )
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype != port.dtype:
        raise UsageError(f"input {index} must be {port.dtype}, but got {dtype}; convert it first")
    if isinstance(value, torch.Tensor) and value.device.type not in ("cpu", device):
        raise UsageError(f"input {index} must be on the CPU, but got {value.device}; call .cpu() first")


def to_kind(leaf: Any, port: Port | None, as_array: bool, home: torch.device | None = None) -> Any:
    """Gives a result's leaf as the kind of the inputs, in torch's dimensions.

    Args:
        leaf: an array or tensor, or what a model gives beside.
        port: its dimensions; None leaves them.
        as_array: whether inputs were arrays.
        home: where a fresh tensor shall lie; None copies the tensor where it is.
    """
    if isinstance(leaf, np.ndarray):
        shaped = leaf if port is None else leaf.reshape(port.dims)
        return shaped if as_array else torch.from_numpy(shaped)
    if isinstance(leaf, torch.Tensor):
        if as_array:
            return leaf.cpu().numpy()
        # A tensor made in inference mode could not be used in training code later.
        return leaf.clone() if home is None else leaf.to(home)
    return leaf
