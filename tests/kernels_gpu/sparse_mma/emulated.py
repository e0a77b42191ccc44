"""The kernels' own sources on the emulated machine: compiled once per session, run on numpy arrays."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import autosparse.kernels.gpu.methods.sparse_mma as method
from autosparse.kernels.gpu.method import GivenLayer
from autosparse.kernels.gpu.methods.sparse_mma.arguments import Args, args_of
from autosparse.kernels.gpu.methods.sparse_mma.packing import pack, to_bits
from autosparse.kernels.gpu.methods.sparse_mma.variants import Variant

CUDA = Path(method.__file__).parent / "cuda"
HERE = Path(__file__).parent / "emulator"
GUARD = 4096
"""Elements of NaN on both sides of every array: what is read there shows, what is written too."""


class Emulator:
    """A shared library with an entry per variant."""

    def __init__(self, folder: Path, variants: Sequence[Variant]) -> None:
        entries = "".join(f"AS_ENTRY({_kernel(each)}, {each.arguments})\n" for each in variants)
        (folder / "entries.inc").write_text(entries)
        library = folder / "emulator.so"
        includes = [f"-I{path}" for path in (folder, HERE, CUDA)]
        flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas"]
        command = ["g++", *flags, *includes, str(HERE / "emulator.cpp"), "-o", str(library)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        self.native = ctypes.CDLL(str(library))
        self.native.emulate.restype = ctypes.c_char_p

    def sizes(self, variant: Variant) -> tuple[int, int]:
        """Gives threads and bytes of shared memory of a block, as the source says."""
        name = _name(variant)
        return self.native.emulated_threads(name), self.native.emulated_shared_bytes(name)

    def run(
        self,
        variant: Variant,
        layer: GivenLayer,
        x: np.ndarray,
        residual: np.ndarray | None = None,
        *,
        grid: int = 3,
        early_copies: bool = False,
        last_thread_first: bool = False,
    ) -> np.ndarray:
        """Computes a layer: ``[pixels, outputs]``, from values that the dtype can hold.

        Raises:
            AssertionError: the machine stopped, or something outside of the output was written.
        """
        packed = pack(layer, variant.dtype, variant.launch.bn, image=variant.instruction == "wgmma")
        args = args_of(layer.shape, len(packed.parts), variant.launch.bm)
        out = _guarded(np.full(args.pixels * args.out_channels, 0x7FFF, np.uint16))
        inputs = _guarded(to_bits(x, variant.dtype))
        added = _guarded(to_bits(np.zeros(1) if residual is None else residual, variant.dtype))
        # Blocks of 16 bytes are read at once, and numpy aligns no better than that.
        arrays = {
            name: _aligned(getattr(packed, name))
            for name in ("blocks", "runs", "parts", "outputs", "bias")
        }
        for name, array in arrays.items():
            setattr(args, name, array.ctypes.data)
        args.x, args.residual = (each.ctypes.data + 2 * GUARD for each in (inputs, added))
        args.out = out.ctypes.data + 2 * GUARD
        fault = self.native.emulate(
            _name(variant), ctypes.byref(args), grid, int(early_copies), int(last_thread_first)
        )
        assert not fault, fault.decode()
        edges = np.concatenate([out[:GUARD], out[-GUARD:]])
        assert (edges == 0x7FFF).all(), "written outside of the output"
        return _values(out[GUARD:-GUARD], variant.dtype).reshape(args.pixels, -1)


def args_bytes(emulator: Emulator) -> tuple[int, int]:
    """Gives the size of the arguments as the source and as Python have it."""
    return emulator.native.emulated_args_bytes(), ctypes.sizeof(Args)


def _kernel(variant: Variant) -> str:
    return {"mma": "Mma", "wgmma": "Wgmma"}[variant.instruction]


def _name(variant: Variant) -> bytes:
    return f"{_kernel(variant)} {variant.arguments}".encode()


def _guarded(bits: np.ndarray) -> np.ndarray:
    guard = np.full(GUARD, 0x7FFF, np.uint16)
    return _aligned(np.concatenate([guard, bits.reshape(-1), guard]))


def _aligned(array: np.ndarray) -> np.ndarray:
    """Gives a copy that starts at a multiple of 16 bytes."""
    room = np.empty(array.nbytes + 16, np.uint8)
    first = -room.ctypes.data % 16
    copy = room[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _values(bits: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "f16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)
