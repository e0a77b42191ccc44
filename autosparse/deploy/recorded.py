"""A native program that remembers what an artifact needs: its tables, and its weights' kept blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autosparse.deploy.container import Stored
from autosparse.kernels.bf16 import round_to_bf16
from autosparse.kernels.binding import DTYPE_NAMES, FloatArray, NativeOp, NativeProgram, OpKind
from autosparse.kernels.native import OP_INTEGERS
from autosparse.kernels.native_op import c_op

SHARED = "program.shared"
"""Array of an artifact in which several operators have one weight."""
_SHARED_PARTS = frozenset({"weight", "group_start", "kept"})
_KERNEL_COLUMN = 2 + 8 + OP_INTEGERS.index("kernel")


@dataclass(frozen=True, slots=True, eq=False)
class RecordedOp:
    """One operator as an artifact holds it: its line in the table, and its arrays by part."""

    line: tuple[int, ...]
    arrays: dict[str, Stored]


class RecordedProgram(NativeProgram):
    """A `NativeProgram` that can be written into a file.

    It keeps a copy of what was given to it: of weights only the kept blocks, in bf16 where the program
    rounds them to that.
    """

    def __init__(self, threads: int = 1, pin: bool = True) -> None:
        super().__init__(threads, pin)
        self._dtypes: list[str] = []
        self._recorded: list[RecordedOp] = []

    def tensor(self, shape: Sequence[int], dtype: str = "f32") -> int:
        """Adds a tensor, as `NativeProgram.tensor`."""
        out = super().tensor(shape, dtype)
        self._dtypes.append(dtype)
        return out

    def op(self, op: NativeOp) -> int:
        """Adds an operator, as `NativeProgram.op`."""
        index = super().op(op)
        # Grouped convolutions and affine operators compute with float32 weights in every program.
        rounds = op.kind is OpKind.CONV and self._dtypes[op.inputs[0]] == "bf16"
        self._recorded.append(_record(op, rounds))
        return index

    def close(self) -> None:
        """Frees the native program and what was recorded of it."""
        super().close()
        self._recorded = []

    def arrays(self) -> dict[str, Stored]:
        """Gives the program as arrays of an artifact; see ``kernels/artifact/loader.h``.

        The kernel of an operator is the one that runs it now, whoever chose it.
        """
        kernels = self.op_kernels()
        names = list(dict.fromkeys(name for name in kernels if name is not None))
        lines = np.array([op.line for op in self._recorded], np.int32)
        lines[:, _KERNEL_COLUMN] = [-1 if name is None else names.index(name) for name in kernels]
        tensors = [
            (DTYPE_NAMES.index(dtype), *shape)
            for dtype, shape in zip(self._dtypes, self._shapes, strict=True)
        ]
        found = {
            "program.tensors": _integers(tensors),
            "program.inputs": _integers(self._inputs),
            "program.outputs": _integers(self._outputs),
            "program.ops": Stored("I32", lines),
            "program.kernels": Stored("U8", np.array(list("\n".join(names).encode()), np.uint8)),
        }
        owners = _owners(self._recorded)
        if owners != list(range(len(owners))):
            found[SHARED] = _integers(owners)
        for index, op in enumerate(self._recorded):
            own = op.arrays if owners[index] == index else op.arrays.keys() - _SHARED_PARTS
            found |= {f"op.{index}.{part}": op.arrays[part] for part in op.arrays if part in own}
        return found


def _owners(ops: Sequence[RecordedOp]) -> list[int]:
    """Gives for every operator the first one with the same weight and 1xN structure, by its number."""
    first: dict[tuple[object, ...], int] = {}
    owners = []
    for index, op in enumerate(ops):
        parts = [(part, op.arrays[part]) for part in sorted(_SHARED_PARTS & op.arrays.keys())]
        identity = tuple((part, stored.dtype, *stored.identity) for part, stored in parts)
        owners.append(first.setdefault(identity, index) if parts else index)
    return owners


def _integers(values: Sequence[int] | Sequence[tuple[int, ...]]) -> Stored:
    return Stored("I32", np.array(values, np.int32))


def _record(op: NativeOp, rounds: bool) -> RecordedOp:
    described, _ = c_op(op)
    line = (
        described.kind,
        described.input_count,
        *described.inputs,
        *(getattr(described, name) for name in OP_INTEGERS),
        described.block_n,
    )
    arrays = {}
    if op.weight is not None:
        weight = op.weight if op.block_n == 0 else kept_blocks_of(op)
        arrays["weight"] = _as_bf16(weight) if rounds else Stored("F32", np.array(weight, np.float32))
    if op.bias is not None:
        arrays["bias"] = Stored("F32", np.array(op.bias, np.float32))
    if op.block_n and op.group_start is not None and op.kept is not None:
        arrays["group_start"] = Stored("I32", np.array(op.group_start, np.int32))
        arrays["kept"] = Stored("I32", np.array(op.kept, np.int32))
    return RecordedOp(line, arrays)


def _as_bf16(weight: FloatArray) -> Stored:
    upper: NDArray[np.uint16] = (round_to_bf16(weight).view(np.uint32) >> 16).astype(np.uint16)
    return Stored("BF16", upper)


def kept_blocks_of(op: NativeOp) -> FloatArray:
    """Gives the kept weights of a 1xN operator, ``[kept blocks, kernel positions, N]``.

    Rows that a short last group lacks are zero.
    """
    assert op.weight is not None and op.group_start is not None and op.kept is not None
    outputs, _, height, width = op.weight.shape
    blocks = np.zeros((len(op.kept), height * width, op.block_n), np.float32)
    for group, (begin, end) in enumerate(zip(op.group_start, op.group_start[1:], strict=False)):
        first = group * op.block_n
        rows = min(op.block_n, outputs - first)
        live = op.weight[first : first + rows, op.kept[begin:end]]
        blocks[begin:end, :, :rows] = live.reshape(rows, end - begin, height * width).transpose(1, 2, 0)
    return blocks
