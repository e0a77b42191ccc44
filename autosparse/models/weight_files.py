"""Whether a weight file is whole: told in milliseconds, without torch, running nothing in it."""

from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import safetensors

from autosparse.errors import ModelError
from autosparse.storage.files import opened

_ZIP = b"PK\x03\x04"
_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # first object of torch's format before 1.6
_LONGEST_HEADER_BYTES = 100 << 20

# Bytes per element, for finding how long a legacy file must be.
_ELEMENT_BYTES = {
    "DoubleStorage": 8,
    "LongStorage": 8,
    "FloatStorage": 4,
    "IntStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "ShortStorage": 2,
    "ByteStorage": 1,
    "CharStorage": 1,
    "BoolStorage": 1,
}


def check_weights(path: Path) -> None:
    """Refuses a weight file that is missing, empty, truncated, damaged, or something else altogether.

    Whether its tensors fit a model is another question, answered when it is loaded.

    Raises:
        ModelError: the file cannot hold weights; the message says why.
    """
    try:
        with opened(path) as stream:
            _check_stream(path, stream)
    except OSError as error:
        raise ModelError(f"weights must be a readable file, but got {path}: {error.strerror}") from None


def _check_stream(path: Path, stream: BinaryIO) -> None:
    head = stream.read(512)
    if not head:
        raise ModelError(f"weights must be a state dict, but {path} is empty; fetch it again")
    known = _known_stranger(head)
    if known is not None:
        raise _stranger(path, known)
    if head.startswith(_ZIP):
        _check_zip(path)
    elif path.suffix == ".safetensors" or _looks_like_safetensors(head):
        _check_safetensors(path)
    elif head.startswith(_LEGACY):
        _check_legacy(path, stream)
    else:
        raise _stranger(path, "of another kind or damaged")


def _stranger(path: Path, what: str) -> ModelError:
    return ModelError(
        "weights must be a .safetensors file or one written by torch.save, "
        f"but {path} is {what}; fetch the file itself"
    )


def _known_stranger(head: bytes) -> str | None:
    """Names what downloads often leave in place of a file, whatever the name it was saved under."""
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    return None


def _looks_like_safetensors(head: bytes) -> bool:
    return 2 <= int.from_bytes(head[:8], "little") <= _LONGEST_HEADER_BYTES and head[8:9] == b"{"


def _check_safetensors(path: Path) -> None:
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            count = len(opened.keys())
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, str(error)) from None
    if count == 0:
        raise ModelError(f"weights must be a state dict, but {path} holds no tensor; fetch it again")


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
            names = archive.namelist()
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        NotImplementedError,
        RuntimeError,
        EOFError,
    ) as error:
        raise _damaged(path, str(error)) from None
    if bad is not None:
        raise _damaged(path, f"checksum of {bad}")
    if not any(name.endswith("data.pkl") for name in names):
        raise ModelError(
            f"weights must be a file written by torch.save, but {path} is some other archive"
        )


def _check_legacy(path: Path, stream: BinaryIO) -> None:
    stream.seek(0)
    try:
        for _ in range(3):  # magic number, version of the format, type sizes
            _Reader(stream).load()
        reader = _Reader(stream)
        reader.load()
        keys = _Reader(stream).load()
        missing = _missing_bytes(stream, keys, reader.storages)
    except Exception as error:  # a damaged pickle can raise anything at all
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    if missing > 0:
        raise _damaged(path, f"{missing} bytes are missing")


def _missing_bytes(stream: BinaryIO, keys: Any, storages: dict[str, int]) -> int:
    """Bytes the tensors need beyond those left in the file; each storage follows an 8-byte count."""
    needed = sum(8 + storages[key] for key in keys)
    here = stream.tell()
    return needed - (stream.seek(0, os.SEEK_END) - here)


@dataclass(frozen=True, slots=True)
class _Name:
    """Stands for whatever a pickle names, and is called in its place."""

    name: str

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        return _Inert()


@dataclass(slots=True)
class _Inert:
    """Stands for whatever a pickle would have made; takes what is put into it and does nothing."""

    items: dict[Any, Any] = field(default_factory=dict)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def __setstate__(self, state: Any) -> None:
        """Drops the state."""


class _Reader(pickle.Unpickler):
    """Reads the skeleton of a pickle: no class is looked up, nothing is called, sizes are noted."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.storages: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        return _Name(name)

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, _, count, *_ = pid
        self.storages[key] = _ELEMENT_BYTES.get(kind.name, 1) * count
        return _Inert()


def _damaged(path: Path, detail: str) -> ModelError:
    return ModelError(
        f"weights must be a whole file, but {path} is damaged or truncated ({detail}); fetch it again"
    )
