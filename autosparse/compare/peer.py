"""What another engine must offer to take part in a comparison. The engines are the files of peers/.

A peer is light to import: the engine itself is imported when one of its variants is opened.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from numpy.typing import NDArray

from autosparse.compare import peers
from autosparse.compare.task import Task
from autosparse.errors import MissingDependency, UsageError
from autosparse.measuring.stopwatch import Runner


class Unsupported(Exception):
    """Raised by a variant that this machine cannot run; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Running:
    """A model made ready on some engine.

    Attributes:
        run: runs it so many times, or somewhat more; gives nanoseconds per run.
        outputs: runs it once and gives its results, leaf by leaf.
        close: gives back what it holds.
        note: anything a reader of its figures must know.
    """

    run: Runner
    outputs: Callable[[], Sequence[NDArray[Any]]]
    close: Callable[[], None] = lambda: None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way in which a peer runs models.

    Attributes:
        name: label in tables.
        dtype: arithmetic type.
        open: makes a task's model ready; raises whatever the engine raises, or `Unsupported`.
        device: kind of the device that it runs on.
        instead: gives the task that it runs in place of one with zeros, another model of as many
            operations; None where it runs the models that the others run.
    """

    name: str
    dtype: str
    open: Callable[[Task], Running]
    device: str = "cpu"
    instead: Callable[[Task], Task] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another engine.

    Attributes:
        name: as it is asked for.
        needs: module that must be importable to the distribution that brings it.
        variants: the ways in which it runs models.
        reads_file: whether it starts from an ONNX file alone, without torch.
        why_no_memory: why a process of its own would not tell its memory; empty if it does.
        by_name_only: whether it takes part only where it is named.
        also_named: further names that it may be asked for by.
    """

    name: str
    needs: Mapping[str, str]
    variants: tuple[Variant, ...]
    reads_file: bool = False
    why_no_memory: str = ""
    by_name_only: bool = False
    also_named: tuple[str, ...] = ()

    def on(self, device: str) -> tuple[Variant, ...]:
        """Gives the variants that run on a kind of device."""
        return tuple(variant for variant in self.variants if variant.device == device)

    @property
    def missing(self) -> tuple[str, ...]:
        """Distributions that are not installed."""
        return tuple(
            distribution for module, distribution in self.needs.items() if find_spec(module) is None
        )

    @property
    def hint(self) -> str:
        """Says what to install; empty if nothing is missing."""
        missing = self.missing
        return f"not installed; run: pip install {' '.join(missing)}" if missing else ""

    def versions(self) -> dict[str, str]:
        """Gives distribution to version, of those installed."""
        return {
            distribution: importlib.metadata.version(distribution)
            for module, distribution in self.needs.items()
            if find_spec(module) is not None
        }


def names() -> tuple[str, ...]:
    """Gives the names of all peers, in the order of their files."""
    return tuple(peer.name for peer in all_peers())


def all_peers() -> tuple[Peer, ...]:
    """Gives every peer: one per file of the folder ``peers``, as its ``PEER``."""
    files = sorted(module.name for module in pkgutil.iter_modules(peers.__path__))
    return tuple(importlib.import_module(f"{peers.__name__}.{file}").PEER for file in files)


def find(name: str) -> Peer:
    """Gives the peer of a name.

    Raises:
        UsageError: there is none.
    """
    known = {peer.name: peer for peer in all_peers()}
    known |= {other: peer for peer in all_peers() for other in peer.also_named}
    if name not in known:
        raise UsageError(f"a peer must be one of {', '.join(known)}, but got {name!r}")
    return known[name]


def chosen(wanted: Sequence[str] | None, device: str = "cpu") -> tuple[Peer, ...]:
    """Gives the peers that shall take part: those wanted, and all installed ones for None.

    Args:
        wanted: names; None takes those that run on the device.
        device: kind of the device that is compared on.

    Raises:
        UsageError: an unknown name, or one that does not run on the device.
        MissingDependency: one that is wanted by name is not installed.
    """
    if wanted is None:
        return tuple(
            peer
            for peer in all_peers()
            if not peer.missing and not peer.by_name_only and peer.on(device)
        )
    found = tuple(find(name) for name in dict.fromkeys(wanted))
    for peer in found:
        if peer.missing:
            raise MissingDependency(
                f"a peer named by --against must be installed, but {peer.name} is {peer.hint}"
            )
        if not peer.on(device):
            able = ", ".join(each.name for each in all_peers() if each.on(device))
            raise UsageError(
                f"a peer must run on {device}, but {peer.name} does not; write --against {able}"
            )
    return found
