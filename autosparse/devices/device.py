"""What the tuner knows of a device, and the registry of the kinds that there are.

A kind is one file or folder in `kinds/` with one class under `@register`; the folder is scanned, so
there is no list to edit. Above `tuning` nobody knows more of a device than what stands here: its id,
how many threads it may be asked for, and which kernels it has.

    Kernel   what the tuner reads of a kernel
    Built    a layer made ready on a device, which can be run and timed
    Device   one device of this host
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, Self, TypeVar

from autosparse import hardware
from autosparse.closing import Closing
from autosparse.devices import AUTO, kind_and_number, kind_names
from autosparse.devices.layer import FloatArray, Layer
from autosparse.errors import MissingDependency, UsageError
from autosparse.measuring.states import History, Marks, Prober
from autosparse.measuring.stopwatch import MeasurementPolicy, Runner
from autosparse.progress import Progress
from autosparse.records import HardwareProfile, LayerShape, Pattern


class Kernel(Protocol):
    """One kernel of a device, as the tuner sees it."""

    @property
    def name(self) -> str:
        """Its name, the same in rows, plans and reports."""

    @property
    def dtype(self) -> str:
        """Arithmetic type that it computes in."""

    @property
    def tier(self) -> str:
        """What it was compiled for: an instruction set, an architecture."""

    @property
    def tier_rank(self) -> int:
        """Place of its tier among the device's; a higher one holds the lower ones."""

    @property
    def rate(self) -> float:
        """Arithmetic per unit of time that its tier allows, relative to the device's other kernels."""

    @property
    def expands_weights(self) -> bool:
        """Whether it keeps more weights than it is given."""


class Bounds(Protocol):
    """Lower bounds on latency for one device, thread count, policy and arithmetic type."""

    def bound_us(self, shape: LayerShape, kept: int, kernel: Kernel | None = None) -> float:
        """Gives the least time that a layer can take.

        Args:
            shape: the layer.
            kept: inputs kept per output on average; -1 for all.
            kernel: what runs it; None bounds all kernels.
        """


class Built(Closing, ABC):
    """A layer on a device: weights packed, buffers there. Close it, or use it as a context manager."""

    @property
    @abstractmethod
    def weight_bytes(self) -> int:
        """Bytes of weights as the kernel keeps them, all copies together."""

    @abstractmethod
    def run(self, inputs: Sequence[FloatArray], output: FloatArray) -> None:
        """Runs the layer once, and writes its output, NCHW."""

    @abstractmethod
    def runner(self, inputs: Sequence[FloatArray]) -> Runner:
        """Gives what runs the layer some times, and its nanoseconds by the device's own clock."""

    @abstractmethod
    def close(self) -> None:
        """Frees what it holds."""


class Device(ABC):
    """One device of this host. What is a class method also works where the device was not looked at."""

    kind: ClassVar[str] = ""  # its file's name, set by `register`
    usual_dtypes: ClassVar[tuple[str, ...]] = ("f32", "bf16")
    """Arithmetic types that models are computed in where none is named."""
    checks_whole: ClassVar[bool] = False
    """Whether a large layer is checked as a whole too, at some of its outputs: where kernels take other
    paths on it than on the small twin whose reference is computed."""

    # ---------------------------------------------------------------------------------- what it is

    @classmethod
    @abstractmethod
    def of(cls, host: HardwareProfile) -> tuple[Self, ...]:
        """Gives the devices of this kind that a host has."""

    @classmethod
    def why_none(cls, host: HardwareProfile) -> str:
        """Says why `of` gives nothing."""
        return "this host has none"

    @property
    @abstractmethod
    def id(self) -> str:
        """A stable id: equal for devices that take equally long. Rows are keyed by it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name in the vendor's words."""

    @property
    def named(self) -> str:
        """What `find` finds it by on its host: the kind, and behind a colon its number if not 0."""
        return self.kind

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables of a process that shall measure this device: the only one of its kind there."""
        return {}

    @property
    @abstractmethod
    def most_threads(self) -> int:
        """The most threads that it can be asked for; 1 where there is nothing to choose."""

    @property
    @abstractmethod
    def cache_bytes(self) -> int:
        """Size of the last cache before its memory; 0 where unknown."""

    @property
    def space(self) -> str:
        """Name of the shipped search space that is taken where none is named."""
        return self.kind

    @property
    def lock(self) -> str:
        """Names the lock that whoever measures on it holds; empty is the host's own."""
        return ""

    @property
    @abstractmethod
    def has_limits(self) -> bool:
        """Whether its limits were measured."""

    @abstractmethod
    def with_limits(self, progress: Progress | None = None) -> Self:
        """Gives the device with measured limits; measures and keeps them where they are not known."""

    def check_threads(self, threads: int) -> None:
        """Refuses more threads than it can be asked for.

        Raises:
            UsageError: it cannot.
        """
        if not 1 <= threads <= self.most_threads:
            raise UsageError(
                f"threads must not exceed the {self.most_threads} cores this process may use, "
                f"but got {threads}"
            )

    # ------------------------------------------------------------------------------------- kernels

    @abstractmethod
    def why_no_dtype(self, dtype: str) -> str:
        """Says why nothing here computes in an arithmetic type; empty if something does."""

    @abstractmethod
    def kernels_for(self, shape: LayerShape, pattern: Pattern, dtype: str) -> Sequence[Kernel]:
        """Lists the kernels that can run a layer here.

        Raises:
            NoKernel: there is none; carries every kernel's reasons.
        """

    @classmethod
    @abstractmethod
    def source_hashes(cls) -> Mapping[str, str]:
        """Gives, by name, a hash of what decides a kernel's speed: sources, flags, compiler."""

    def source_hash(self, kernel: Kernel) -> str:
        """Gives the hash of one kernel."""
        return self.source_hashes()[kernel.name]

    def facts(self, kernel: str) -> str:
        """Gives what may change from day to day and with it a kernel's latency, in one line.

        A driver, libraries that the kernel calls, microcode, each with its version. What was measured
        under other facts is measured again; old rows count once more when their facts are back.

        Args:
            kernel: its name; also that of one which is gone.
        """
        return ""

    def configs(self, kernel: Kernel, shape: LayerShape, pattern: Pattern) -> Sequence[str]:
        """Lists the launch parameters that may be tried: ``k=v`` pairs, sorted, comma separated."""
        return ("",)

    @abstractmethod
    def bounds(self, threads: int, policy: MeasurementPolicy, dtype: str) -> Bounds:
        """Gives lower bounds.

        Raises:
            MissingMeasurement: the device's limits were never measured.
        """

    # ------------------------------------------------------------------------------------- timing

    def history(self, threads: int) -> History:
        """Gives what is known of the states that the device is found in; nothing where it has one."""
        return History()

    def prober(self, threads: int) -> Prober | None:
        """Gives what tells the state that the device is in; None where there is nothing to tell."""
        return None

    def keep(self, prober: Prober | None) -> None:
        """Keeps what a prober has seen."""
        return

    @classmethod
    def watch(cls, threads: int, marks: Marks) -> Prober | None:
        """Gives what tells the state while a job is timed; None where there is nothing to tell.

        Args:
            threads: in use.
            marks: what its probes are held against.
        """
        return None

    @classmethod
    @abstractmethod
    def build(
        cls,
        layer: Layer,
        kernel: str,
        threads: int,
        *,
        config: str = "",
        copies: int = 1,
        writes_inputs: bool = False,
    ) -> Built:
        """Makes a layer ready to run.

        Args:
            layer: what is computed.
            kernel: name of what computes it.
            threads: as the device counts them.
            config: launch parameters.
            copies: so many layers of equal contents, each with weights of its own, run in turn.
            writes_inputs: let others write the inputs of each meanwhile, as in a model.

        Raises:
            UsageError: no such kernel.
            NoKernel: it cannot run the layer; the message says why.
        """

    @classmethod
    @abstractmethod
    def dtype_of(cls, kernel: str) -> str:
        """Gives the type that a kernel computes in.

        Raises:
            UsageError: no such kernel.
        """

    @classmethod
    @abstractmethod
    def tolerance(cls, layer: Layer, kernel: str, magnitude: float) -> float:
        """Gives the largest error that rounding can explain, of an output that is 1 or smaller.

        Args:
            layer: with its inputs summed per output.
            kernel: its name.
            magnitude: root of the largest sum of squared products.
        """


_KINDS: dict[str, type[Device]] = {}
D = TypeVar("D", bound=type[Device])


def register(kind: D) -> D:
    """Adds a kind under the name of its file."""
    kind.kind = kind.__module__.removeprefix(f"{__package__}.kinds.").split(".")[0]
    _KINDS[kind.kind] = kind
    return kind


def kinds() -> Mapping[str, type[Device]]:
    """Gives every kind of device by name, whether or not this host has one."""
    for name in kind_names():
        importlib.import_module(f"{__package__}.kinds.{name}")
    return {name: _KINDS[name] for name in kind_names()}


def kind_of(name: str) -> type[Device]:
    """Gives a kind by its name; loads no other.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in kind_names():
        raise UsageError(f"device must be a kind of {', '.join(kind_names())}, but got {name!r}")
    importlib.import_module(f"{__package__}.kinds.{name}")
    return _KINDS[name]


def find(name: str, host: HardwareProfile | None = None) -> Device:
    """Gives a host's device of a kind, the first of several unless another is named.

    Args:
        name: of the kind, or `AUTO`; with a number behind it, as ``cuda:1``, another than the first.
        host: None for this one, with what was measured of it before.

    Raises:
        UsageError: no such kind.
        MissingDependency: the host has none; says why.
    """
    named, number = kind_and_number(name)
    kind, host = kind_of("cpu" if named == AUTO else named), host or hardware.detect()
    found = kind.of(host)
    if not found:
        raise MissingDependency(f"device {name} was asked for, but {kind.why_none(host)}")
    if number >= len(found):
        known = ", ".join(f"{device.named} ({device.name})" for device in found)
        raise MissingDependency(f"device {name} was asked for, but this host has {known}")
    return found[number]
