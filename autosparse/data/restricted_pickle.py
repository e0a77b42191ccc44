"""Reads pickles of plain containers and numpy arrays, and nothing else.

A pickle is a program. This reader knows exactly the few functions that numpy arrays are written with,
each replaced by one that cannot do more than that, and refuses everything else.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autosparse.errors import DataError
from autosparse.storage.files import opened

_CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")

# What the pickle machine raises on damaged files; which one depends on the byte that is wrong.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


class _Array:
    """Stands for numpy's array class, which is only ever named, never made by name."""

    __slots__ = ()


def _reconstruct(kind: object, shape: object, code: object) -> npt.NDArray[Any]:
    del shape, code  # an empty array; size and type follow with the data
    if kind is not _Array:
        raise pickle.UnpicklingError("only plain arrays may be rebuilt")
    return np.empty((0,), np.uint8)


def _dtype(code: str | bytes, *flags: object) -> np.dtype[Any]:
    del flags  # alignment and copying, without effect on plain numbers
    text = code.decode("ascii") if isinstance(code, bytes) else code
    if text not in _CODES:
        raise pickle.UnpicklingError(
            f"only arrays of plain numbers may be read, but got dtype {text!r}"
        )
    return np.dtype(text)


def _frombuffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _encode(text: str, encoding: str | bytes) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"only latin1 bytes may be read, but got {encoding!r}")
    return text.encode("latin1")


# Older numpy wrote `numpy.core`, newer writes `numpy._core`.
_ADMITTED: dict[tuple[str, str], type | Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
}


class _Refused(pickle.UnpicklingError):
    """The pickle asked for something that is not admitted."""


class _Reader(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        admitted = _ADMITTED.get((module_name, global_name))
        if admitted is None:
            raise _Refused(f"{module_name}.{global_name}")
        return admitted


def load(path: Path) -> object:
    """Reads one pickle of plain containers and arrays; text of Python 2 stays bytes.

    Raises:
        DataError: the file is missing, damaged or truncated, or asks for anything else.
    """
    try:
        with opened(path) as stream:
            return _Reader(stream, encoding="bytes").load()
    except OSError as problem:
        raise DataError(f"a data file must be readable, but got {path}: {problem.strerror}") from None
    except _Refused as problem:
        raise DataError(
            f"a pickled data file may hold arrays and plain values alone, but {path} asks for "
            f"{problem}, which might run code and was not run; fetch the file from its authors again"
        ) from None
    except _DAMAGE as problem:
        raise DataError(
            f"a pickled data file must be complete, but {path} is damaged or truncated "
            f"({type(problem).__name__}: {problem}); fetch it again"
        ) from None
