"""Weights of one mask, as small as they are: what is kept, and a bit per weight; read when asked for.

A file of them is safetensors, ``values/KEY`` float32 and ``mask/KEY`` packed bits, with shapes and
whatever else is told in its metadata. It is opened once, so what replaces it later is not mixed in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from autosparse.errors import PlanError, got
from autosparse.storage.files import opened, write_bytes

Key = tuple[str, str]

_SCHEMA = "2"


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Weights of one mask.

    Attributes:
        values: float32 ``[kept]``, in the order of the weight.
        bits: uint8, eight weights each, the first of them highest; the last is filled up with zeros.
        shape: of the weight.
    """

    values: Tensor
    bits: Tensor
    shape: tuple[int, ...]

    @classmethod
    def of(cls, weight: Tensor, mask: Tensor) -> Packed:
        """Packs a weight; what it is outside of its mask is left out."""
        bits = np.packbits(mask.reshape(-1).numpy())
        return cls(weight[mask].float(), torch.from_numpy(bits), tuple(weight.shape))

    def mask(self) -> Tensor:
        """Gives the bool mask, of the weight's shape."""
        bits = np.unpackbits(self.bits.numpy(), count=math.prod(self.shape))
        return torch.from_numpy(bits.view(np.bool_)).reshape(self.shape)

    def weight(self) -> Tensor:
        """Gives the float32 weight, 0 where nothing is kept."""
        found = torch.zeros(self.shape)
        found[self.mask()] = self.values
        return found


class Unpacked(Mapping[Key, Tensor]):
    """Masks or weights that are unpacked anew whenever one is asked for."""

    def __init__(self, packed: Mapping[Key, Packed], unpack: Callable[[Packed], Tensor]) -> None:
        self._packed, self._unpack = packed, unpack

    def __getitem__(self, key: Key) -> Tensor:
        return self._unpack(self._packed[key])

    def __iter__(self) -> Iterator[Key]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, key: object) -> bool:
        return key in self._packed


def _opened(path: Path) -> Any:  # its methods are not typed
    opened(path).close()
    return safetensors.safe_open(path, framework="pt")


class PackedFile(Mapping[Key, Packed]):
    """What `write_packed` wrote; each is read when it is asked for.

    Attributes:
        told: what was told besides.
    """

    def __init__(self, path: Path) -> None:
        """Opens a file.

        Raises:
            PlanError: it is missing or damaged, or holds something else.
        """
        try:
            self._file = _opened(path)
            metadata = self._file.metadata() or {}
            ours = metadata.get("schema") == _SCHEMA
            shapes = json.loads(metadata["shapes"]) if ours else {}
            self.told: dict[str, Any] = json.loads(metadata["told"]) if ours else {}
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            raise PlanError(f"alternatives must be a readable file, but got {path}: {error}") from None
        names = set(self._file.keys())
        if not ours or names != {f"{of}/{key}" for key in shapes for of in ("values", "mask")}:
            raise PlanError(
                f"alternatives must be what Alternatives.save wrote, but {path} holds "
                f"{got(sorted(names))}; make them anew with reconstruct_alone"
            )
        self._shapes: dict[Key, tuple[int, ...]] = {key_of(key): tuple(n) for key, n in shapes.items()}

    def __getitem__(self, key: Key) -> Packed:
        shape, name = self._shapes[key], name_of(key)
        return Packed(
            self._file.get_tensor(f"values/{name}"), self._file.get_tensor(f"mask/{name}"), shape
        )

    def __iter__(self) -> Iterator[Key]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __contains__(self, key: object) -> bool:
        return key in self._shapes


def write_packed(path: Path, packed: Mapping[Key, Packed], told: Mapping[str, Any]) -> None:
    """Writes all as one safetensors file.

    Raises:
        RunError: the file cannot be written.
    """
    tensors, shapes = {}, {}
    for key, one in packed.items():
        name = name_of(key)
        tensors[f"values/{name}"], tensors[f"mask/{name}"] = one.values, one.bits
        shapes[name] = list(one.shape)
    said = {"shapes": json.dumps(shapes), "told": json.dumps(told, sort_keys=True)}
    metadata = {"schema": _SCHEMA, **said}
    write_bytes(path, safetensors.torch.save(tensors, metadata=metadata))


def name_of(key: Key) -> str:
    """Gives the name of a key in a file; labels hold no slash."""
    return "/".join(key)


def key_of(name: str) -> Key:
    """Gives the key of a name."""
    layer, label = name.rsplit("/", 1)
    return layer, label
