"""Machine code of the kernels: compiled by NVRTC for a chip that need not be here, kept in a cache.

The sources include no header but their own, so that no CUDA toolkit is needed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any

from autosparse.errors import NoKernel
from autosparse.kernels.gpu.methods.sparse_mma.variants import Variant
from autosparse.storage import files, paths

FOLDER = Path(__file__).parent / "cuda"
HEADERS = ("primitives.cuh", "layer.cuh")
FUNCTION = "sparse_layer"
COMPILER = "nvidia-cuda-nvrtc"


@functools.lru_cache(maxsize=64)
def cubin(variant: Variant, target: str) -> bytes:
    """Gives the machine code of a variant, from the cache if it was compiled before.

    Args:
        variant: what is compiled.
        target: architecture, such as ``sm_90a``.

    Raises:
        NoKernel: there is no compiler, or it fails; the message has its words.
        RunError: the cache cannot be written.
    """
    path = paths.home_folder() / "cubins" / f"{_key(variant, target)}.cubin"
    if path.is_file():
        return files.read_bytes(path)
    code, _ = compiled(variant, target)
    files.write_bytes(paths.home() / "cubins" / path.name, code)
    return code


def compiled(variant: Variant, target: str) -> tuple[bytes, str]:
    """Compiles a variant; gives machine code and the assembler's remarks.

    Raises:
        NoKernel: there is no compiler, or it fails; the message has its words.
    """
    nvrtc = _nvrtc()
    headers = [(FOLDER / name).read_bytes() for name in HEADERS]
    names = [name.encode() for name in HEADERS]
    text, name = (FOLDER / variant.source).read_bytes(), variant.source.encode()
    program = _checked(nvrtc, nvrtc.nvrtcCreateProgram(text, name, len(names), headers, names))
    options = [
        f"--gpu-architecture={target}",
        "--std=c++17",
        "--ptxas-options=-v",
        f"-DAS_VARIANT={variant.arguments}",
    ]
    status = nvrtc.nvrtcCompileProgram(program, len(options), [each.encode() for each in options])[0]
    remarks = _text(nvrtc, program, "ProgramLog")
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise NoKernel(f"NVRTC must compile {variant.source} for {target}, but says: {remarks}", {})
    code = bytes(_checked(nvrtc, nvrtc.nvrtcGetCUBINSize(program)))
    _checked(nvrtc, nvrtc.nvrtcGetCUBIN(program, code))
    _checked(nvrtc, nvrtc.nvrtcDestroyProgram(program))
    return code, remarks


def compiler_version() -> str:
    """Gives the version of the compiler's distribution; empty if it is not installed."""
    try:
        return importlib.metadata.version(COMPILER)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        raise NoKernel(
            f"kernels of sparse tensor cores need {COMPILER} and cuda-bindings, but: {error}; install "
            "autosparse[gpu]",
            {},
        ) from None
    return nvrtc


def _checked(nvrtc: Any, result: tuple[Any, ...]) -> Any:
    if result[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise NoKernel(f"NVRTC must work, but says {result[0].name}", {})
    return result[1] if len(result) > 1 else None


def _text(nvrtc: Any, program: Any, what: str) -> str:
    size = _checked(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program))
    text = bytes(size)
    _checked(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, text))
    return text.rstrip(b"\0 \n").decode(errors="replace")


def _key(variant: Variant, target: str) -> str:
    parts = [(FOLDER / name).read_bytes() for name in (variant.source, *HEADERS)]
    parts += [f"{variant.arguments} {target} {compiler_version()}".encode()]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:32]
