"""The file of an artifact: safetensors, every array at a multiple of 64 bytes, everything hashed.

``kernels/artifact/container.h`` states the format and checks it. The reader is there and not here, so
that whoever embeds the executor and whoever uses Python are refused by the same rules. `reading` looks
at the metadata alone, for who wants to know what a file says it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autosparse.storage.files import write_chunks

ALIGNMENT = 64
_LENGTH_BYTES = 8
_NO_DIGITS = "0" * 64
_HASH_KEY = "header_sha256"


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """An array as it lies in the file.

    Attributes:
        dtype: safetensors' name of the type.
        values: contiguous; numpy has no bf16, so ``BF16`` comes as uint16, the upper halves of float32.
    """

    dtype: Literal["F32", "BF16", "I32", "U8"]
    values: NDArray[Any]

    @property
    def identity(self) -> tuple[tuple[int, ...], str]:
        """Its shape and a hash of its content."""
        return self.values.shape, hashlib.sha256(_bytes(self)).hexdigest()


def write_container(path: Path, arrays: Mapping[str, Stored], metadata: Mapping[str, str]) -> None:
    """Writes arrays and metadata atomically; adds the two hashes to the metadata.

    Raises:
        RunError: the file cannot be written.
    """
    placed = dict(_padded(arrays))
    data = hashlib.sha256()
    for stored in placed.values():
        data.update(_bytes(stored))
    header = _header(placed, {**metadata, "data_sha256": data.hexdigest()})
    length = len(header).to_bytes(_LENGTH_BYTES, "little")
    write_chunks(path, [length, header, *map(_bytes, placed.values())])


def _padded(arrays: Mapping[str, Stored]) -> Iterator[tuple[str, Stored]]:
    """Gives the arrays, and zeros behind those that end off the grid: safetensors allows no holes."""
    for number, (name, stored) in enumerate(arrays.items()):
        yield name, stored
        gap = -stored.values.nbytes % ALIGNMENT
        if gap:
            yield f"pad.{number}", Stored("U8", np.zeros(gap, np.uint8))


def _bytes(stored: Stored) -> memoryview:
    return np.ascontiguousarray(stored.values).reshape(-1).view(np.uint8).data


def _header(placed: Mapping[str, Stored], metadata: Mapping[str, str]) -> bytes:
    values: dict[str, Any] = {"__metadata__": {**metadata, _HASH_KEY: _NO_DIGITS}}
    end = 0
    for name, stored in placed.items():
        begin, end = end, end + stored.values.nbytes
        shape = list(stored.values.shape)
        values[name] = {"dtype": stored.dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(values, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % ALIGNMENT)
    # Quotes inside metadata are escaped, so that this finds the key and nothing else.
    field = f'"{_HASH_KEY}":"'.encode()
    digest = hashlib.sha256(text).hexdigest().encode()
    return text.replace(field + _NO_DIGITS.encode(), field + digest, 1)
