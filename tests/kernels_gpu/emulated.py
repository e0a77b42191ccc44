"""Kernels' own sources on the emulated machine: compiled with g++, called with numpy arrays."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autosparse.kernels.gpu.methods.sparse_mma.build import FOLDER
from autosparse.kernels.gpu.nvrtc import SHARED_HEADERS

HERE = Path(__file__).parent / "emulator"
GUARD = 4096
"""Elements of NaN on both sides of every array: what is read there shows, what is written too."""
NAN = 0x7FFF
"""In both 16-bit types."""


class Policy(ctypes.Structure):
    """Who runs first, and what is done at once that nobody waits for yet; the rest is late."""

    _fields_ = tuple(
        (name, ctypes.c_bool)
        for name in ("early_copies", "early_bulk", "early_products", "last_thread_first")
    )


POLICIES = (
    Policy(early_bulk=True, early_products=True),
    Policy(early_copies=True, early_bulk=True, last_thread_first=True),
    Policy(early_copies=True, early_products=True),
)


class Machine:
    """A shared library with an entry per variant, of the sources as they are or of `more`."""

    def __init__(self, folder: Path, entries: Sequence[str], more: str = "") -> None:
        (folder / "entries.inc").write_text("\n".join(entries))
        (folder / "more.inc").write_text(more)
        library = folder / "emulator.so"
        includes = [f"-I{path}" for path in (folder, HERE, FOLDER, SHARED_HEADERS)]
        flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas"]
        command = ["g++", *flags, *includes, str(HERE / "emulator.cpp"), "-o", str(library)]
        compiler = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not compiler.returncode, compiler.stderr
        self.native = ctypes.CDLL(str(library))
        self.native.emulate.restype = ctypes.c_char_p

    def sizes(self, name: str) -> tuple[int, int]:
        """Gives threads and bytes of shared memory of a block, as the source says."""
        native, text = self.native, name.encode()
        return native.emulated_threads(text), native.emulated_shared_bytes(text)

    def launch(
        self,
        name: str,
        args: ctypes.Structure,
        grid: int,
        cluster: int = 1,
        policy: Policy | None = None,
    ) -> None:
        """Runs a kernel.

        Raises:
            AssertionError: the machine stopped; the message says why.
        """
        fault = self.native.emulate(
            name.encode(), ctypes.byref(args), grid, cluster, policy or POLICIES[0]
        )
        assert not fault, fault.decode()


def guarded(bits: np.ndarray) -> np.ndarray:
    """Gives 16-bit values between guards."""
    guard = np.full(GUARD, NAN, np.uint16)
    return aligned(np.concatenate([guard, bits.reshape(-1), guard]))


def poisoned(count: int) -> np.ndarray:
    """Gives room for 16-bit values that nobody has written, between guards."""
    return guarded(np.full(count, NAN, np.uint16))


def inside(array: np.ndarray) -> int:
    """Gives the address of the values between guards."""
    return array.ctypes.data + 2 * GUARD


def written(array: np.ndarray) -> np.ndarray:
    """Gives the values between guards, which must be as they were."""
    edges = np.concatenate([array[:GUARD], array[-GUARD:]])
    assert (edges == NAN).all(), "written outside of the output"
    return array[GUARD:-GUARD]


def aligned(array: np.ndarray) -> np.ndarray:
    """Gives a copy that starts at a multiple of 16 bytes, which kernels read at once."""
    room = np.empty(array.nbytes + 16, np.uint8)
    first = -room.ctypes.data % 16
    copy = room[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def values_of(bits: np.ndarray, dtype: str) -> np.ndarray:
    """Gives float32 values of a 16-bit type."""
    if dtype == "f16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)
