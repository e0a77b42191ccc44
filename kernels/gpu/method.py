"""What every way to compute a layer on a GPU offers, and the registry of the ways that there are.

A method is one file or folder in `methods/` with one class under `@register`; the folder is scanned, so
there is no list to edit. Activations are channels-last: NHWC tensors, contiguous, a linear layer's rows
being pixels of an image one pixel wide, so that a row-major matrix is the same memory.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.metadata
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from autosparse.errors import NoKernel, UsageError
from autosparse.kernels.gpu.chips import Chip
from autosparse.patterns import family_of
from autosparse.patterns.pattern import Pattern
from autosparse.patterns.tile_structure import TileStructure
from autosparse.records import LayerShape
from autosparse.storage.serial import Record, short_hash

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuKernel(Record):
    """One kernel, or library call, that computes layers on GPUs.

    Attributes:
        name: ``<dtype>_<contract>__cuda_<method>``; launch parameters are no part of it.
        method: the file that it comes from.
        dtype: type of weights and activations; sums are float32.
        contract: kind of structure that it runs: ``dense`` or ``tw``, N:M inside of which `nm` says.
        nm: (N, M) inside of tiles; None without.
    """

    name: str
    method: str
    dtype: str
    contract: str
    nm: tuple[int, int] | None = None

    @property
    def tier(self) -> str:
        """Its method: on one device, methods take the place of instruction sets."""
        return self.method

    @property
    def tier_rank(self) -> int:
        """All alike: which method wins depends on the layer, so none is left out for losing others."""
        return 0

    @property
    def rate(self) -> float:
        """All alike, for the same reason."""
        return 1.0

    @property
    def expands_weights(self) -> bool:
        """None does."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GivenLayer:
    """A layer to prepare.

    Attributes:
        shape: the layer, its activation and residual included; without groups for kernels of tiles.
        weight: OIHW, float32, zero where pruned.
        bias: one per output, or None.
        pattern: what the zeros follow.
        structure: the tiles; None for a dense layer.
        input_scale: of kernels of 8-bit floats, what inputs were divided by before they were rounded.
    """

    shape: LayerShape
    weight: FloatArray
    bias: FloatArray | None
    pattern: Pattern
    structure: TileStructure | None = None
    input_scale: float = 1.0


class Prepared(Protocol):
    """A layer whose weights lie on a device, ready to be called, also while a graph is captured."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights and lists on the device."""

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None, out: torch.Tensor) -> None:
        """Computes the layer on the current stream; allocates nothing that outlives the call.

        Args:
            x: ``[batch, height, width, in]``, contiguous, in the kernel's dtype.
            residual: as `out`, added before the activation; None for layers without.
            out: ``[batch, out height, out width, out]``, contiguous, in the kernel's dtype, of 8-bit
                floats in bfloat16; every element is written.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources(Record):
    """What a compiled kernel takes.

    Attributes:
        registers: per thread.
        spilled_bytes: local memory of a thread, 0 if nothing was spilled.
        smem_bytes: shared memory of a block.
        threads: of a block.
        instructions: name of a matrix or copying instruction to how often it stands in the code.
    """

    registers: int
    spilled_bytes: int
    smem_bytes: int
    threads: int
    instructions: Mapping[str, int]


class Method(ABC):
    """One way to compute layers. Stateless."""

    name: ClassVar[str] = ""  # its file's, set by `register`
    needs: ClassVar[Mapping[str, str]] = {}
    """Module that must be importable to the distribution that brings it."""
    rounds_sums: ClassVar[bool] = False
    """Whether bias and sums are rounded to the kernel's type before what follows, as libraries do."""

    @abstractmethod
    def kernels(self) -> tuple[GpuKernel, ...]:
        """Lists its kernels, whatever the GPU."""

    @abstractmethod
    def why_not(self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, chip: Chip) -> str:
        """Says why a kernel cannot run a layer on a chip; empty if it can.

        That the kernel's contract is the pattern's was asked before.
        """

    @abstractmethod
    def launches(
        self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, chip: Chip
    ) -> tuple[str, ...]:
        """Lists launch parameters worth trying on a layer, most promising first; ``("",)`` for none."""

    @abstractmethod
    def prepare(
        self, kernel: GpuKernel, layer: GivenLayer, launch: str, device: torch.device
    ) -> Prepared:
        """Puts a layer on a device.

        On the CPU, kernels written in Triton run in its interpreter: far slower, for checking.

        Raises:
            NoKernel: it cannot run there; the message says why.
        """

    def compiled(
        self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, launch: str, chip: Chip
    ) -> Resources | None:
        """Compiles a kernel for a chip that need not be here, and tells what it takes.

        None where a library is called, which compiles for itself.

        Raises:
            NoKernel: there is no compiler, or it fails.
        """
        return None

    @abstractmethod
    def sources(self) -> tuple[Path, ...]:
        """Gives the files that decide how long its kernels take."""

    def facts(self) -> str:
        """Gives what its speed depends on beside its sources and the driver: libraries and versions."""
        return ", ".join(
            f"{name} {importlib.metadata.version(name)}"
            for module, name in sorted(self.needs.items())
            if find_spec(module) is not None
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Distributions that are not installed."""
        return tuple(name for module, name in self.needs.items() if find_spec(module) is None)

    @functools.cached_property
    def source_hash(self) -> str:
        """Hash of its sources."""
        return short_hash([hashlib.sha256(path.read_bytes()).hexdigest() for path in self.sources()])


_METHODS: dict[str, Method] = {}
_M = TypeVar("_M", bound=type[Method])


def register(method: _M) -> _M:
    """Adds a method under the name of its file."""
    method.name = method.__module__.removeprefix(f"{__package__}.methods.").split(".")[0]
    _METHODS[method.name] = method()
    return method


@functools.cache
def all_methods() -> Mapping[str, Method]:
    """Gives every method by name, whether or not what it needs is installed."""
    folder = importlib.import_module(f"{__package__}.methods")
    for module in sorted(found.name for found in pkgutil.iter_modules(folder.__path__)):
        importlib.import_module(f"{folder.__name__}.{module}")
    return _METHODS


def all_kernels() -> tuple[GpuKernel, ...]:
    """Gives the kernels of all methods."""
    return tuple(kernel for method in all_methods().values() for kernel in method.kernels())


def get(name: str) -> GpuKernel:
    """Finds a kernel by name.

    Raises:
        UsageError: no such kernel; the message names the nearest.
    """
    names: dict[str, Any] = {kernel.name: kernel for kernel in all_kernels()}
    if name in names:
        found: GpuKernel = names[name]
        return found
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    raise UsageError(f"kernel must be one of a GPU, but got {name!r}; nearest: {near[0]}")


def method_of(kernel: GpuKernel) -> Method:
    """Gives the method that a kernel belongs to."""
    return all_methods()[kernel.method]


def why_not(
    kernel: GpuKernel, shape: LayerShape, pattern: Pattern, chip: Chip, *, is_here: bool = True
) -> str:
    """Says why a kernel cannot run a layer on a chip; empty if it can.

    Args:
        kernel: one of any method.
        shape: the layer.
        pattern: what its zeros follow.
        chip: where.
        is_here: whether the chip is of this host, so that it matters what is installed here.
    """
    method, wanted = method_of(kernel), family_of(pattern).contract(pattern)
    if is_here and (missing := method.missing):
        return f"it needs {' and '.join(missing)}, which is not installed"
    if (kernel.contract, kernel.nm) != (wanted.kind, wanted.nm):
        return f"it runs {kernel.contract}{kernel.nm or ''}, not {wanted}, which {pattern.name} needs"
    return method.why_not(kernel, shape, pattern, chip)


def kernels_for(
    shape: LayerShape, pattern: Pattern, dtype: str, chip: Chip, *, is_here: bool = True
) -> tuple[GpuKernel, ...]:
    """Lists the kernels that can run a layer on a chip in a dtype, see `why_not`.

    Raises:
        NoKernel: there is none; carries every kernel's reasons.
    """
    kernels = [kernel for kernel in all_kernels() if kernel.dtype == dtype]
    reasons = {
        kernel.name: why_not(kernel, shape, pattern, chip, is_here=is_here) for kernel in kernels
    }
    able = tuple(kernel for kernel in kernels if not reasons[kernel.name])
    if not able:
        some = "; ".join(sorted(set(reasons.values()))) or f"none computes in {dtype}"
        raise NoKernel(
            f"no {dtype} kernel of a GPU runs {shape.key} with pattern {pattern.name}: {some}",
            {name: (reason,) for name, reason in reasons.items()},
        )
    return able
