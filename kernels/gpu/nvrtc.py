"""Machine code from CUDA C++: compiled by NVRTC for a chip that need not be here, kept in a cache.

Sources include no header but ours, so that no CUDA toolkit is needed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from autosparse.errors import NoKernel
from autosparse.storage import files, paths

COMPILER = "nvidia-cuda-nvrtc"
"""The distribution; it brings a library and no module."""
SHARED_HEADERS = Path(__file__).parent / "cuda"


@dataclass(frozen=True, slots=True)
class Source:
    """What is compiled.

    Attributes:
        name: of the file, which messages begin with.
        text: its content.
        headers: name and content of all that it includes.
        variant: what the macro ``AS_VARIANT`` stands for.
    """

    name: str
    text: str
    headers: tuple[tuple[str, str], ...]
    variant: str

    @classmethod
    def read(cls, path: Path, headers: Iterable[Path | tuple[str, str]], variant: str) -> Self:
        """Reads a file and the headers that it includes, or takes those that are written in here."""
        texts = ((each.name, each.read_text()) if isinstance(each, Path) else each for each in headers)
        return cls(path.name, path.read_text(), tuple(texts), variant)

    def key(self, target: str) -> str:
        """Hash of all that decides the machine code."""
        flat = [self.name, self.text, *(part for header in self.headers for part in header)]
        flat += [self.variant, target, compiler_version()]
        parts = (hashlib.sha256(part.encode()).digest() for part in flat)
        return hashlib.sha256(b"".join(parts)).hexdigest()[:32]


@functools.lru_cache(maxsize=64)
def cubin(source: Source, target: str) -> bytes:
    """Gives machine code, from the cache if it was compiled before.

    Args:
        source: what is compiled.
        target: architecture, such as ``sm_90a``.

    Raises:
        NoKernel: there is no compiler, or it fails; the message has its words.
        RunError: the cache cannot be written.
    """
    path = paths.home_folder() / "cubins" / f"{source.key(target)}.cubin"
    if path.is_file():
        return files.read_bytes(path)
    code, _ = compiled(source, target)
    files.write_bytes(paths.home() / "cubins" / path.name, code)
    return code


def compiled(source: Source, target: str) -> tuple[bytes, str]:
    """Compiles; gives machine code and the assembler's remarks.

    Raises:
        NoKernel: there is no compiler, or it fails; the message has its words.
    """
    nvrtc = _nvrtc()
    names = [name.encode() for name, _ in source.headers]
    headers = [text.encode() for _, text in source.headers]
    program = _checked(
        nvrtc,
        nvrtc.nvrtcCreateProgram(
            source.text.encode(), source.name.encode(), len(names), headers, names
        ),
    )
    options = [
        f"--gpu-architecture={target}",
        "--std=c++17",
        "--device-as-default-execution-space",  # of lambdas, which cannot be marked
        "--ptxas-options=-v",
        f"-DAS_VARIANT={source.variant}",
    ]
    status = nvrtc.nvrtcCompileProgram(program, len(options), [each.encode() for each in options])[0]
    remarks = _log(nvrtc, program)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise NoKernel(f"NVRTC must compile {source.name} for {target}, but says: {remarks}", {})
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


def missing() -> tuple[str, ...]:
    """Names the compiler's distribution if it is not installed."""
    return () if compiler_version() else (COMPILER,)


def finishing_sources() -> tuple[Path, ...]:
    """Gives the files that decide how long `finishing` takes; named here, as that brings torch."""
    return (*sorted(SHARED_HEADERS.iterdir()), Path(__file__).with_name("finishing.py"))


def facts() -> str:
    """Names the compiler and its version."""
    return f"{COMPILER} {compiler_version() or 'missing'}"


def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        raise NoKernel(
            f"kernels in CUDA C++ need {COMPILER} and cuda-bindings, but: {error}; install "
            "autosparse[gpu]",
            {},
        ) from None
    return nvrtc


def _checked(nvrtc: Any, result: tuple[Any, ...]) -> Any:
    if result[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise NoKernel(f"NVRTC must work, but says {result[0].name}", {})
    return result[1] if len(result) > 1 else None


def _log(nvrtc: Any, program: Any) -> str:
    text = bytes(_checked(nvrtc, nvrtc.nvrtcGetProgramLogSize(program)))
    _checked(nvrtc, nvrtc.nvrtcGetProgramLog(program, text))
    return text.rstrip(b"\0 \n").decode(errors="replace")
