"""Where channels lie in tensors, and the book in which spaces of channels are joined, tied and pinned.

A space is a set of channels that can be put into another order only together. Along one axis of a
tensor lie the channels of one or more spaces, one part behind another (concatenation); in a part every
channel takes a run of consecutive entries, more than one where images were flattened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from autosparse.storage.serial import Record


class Role(StrEnum):
    """What a stored tensor has to do with the channels of a space."""

    PRODUCES = "produces"
    READS = "reads"
    CARRIES = "carries"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie(Record):
    """One axis of a parameter or buffer that is in the order of a space.

    Attributes:
        tensor: qualified name, as in the module's state dict.
        axis: axis of the tensor.
        offset: first entry of the space along the axis.
        run: consecutive entries per channel.
        role: whether the tensor makes the channels (a weight's outputs), reads them (a weight's
            inputs), or has something for each of them (biases, norms, depthwise kernels, slopes).
    """

    tensor: str
    axis: int
    offset: int
    run: int
    role: Role

    @property
    def layer(self) -> str:
        """Path of the module, if the tensor is its ``weight``; else the tensor's own name."""
        return self.tensor.removesuffix(".weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Space(Record):
    """Channels that can be put into another order only together.

    Attributes:
        size: number of channels.
        ties: all axes that follow the order, in the order of the graph.
        pinned: why the order cannot be changed; empty if it can.
        summed: whether tensors of several branches are added in it, as in a residual stream.
    """

    size: int
    ties: tuple[Tie, ...]
    pinned: str = ""
    summed: bool = False

    @property
    def producers(self) -> tuple[str, ...]:
        """Layers whose outputs are the channels."""
        return self._layers(Role.PRODUCES)

    @property
    def readers(self) -> tuple[str, ...]:
        """Layers that have the channels among their inputs."""
        return self._layers(Role.READS)

    @property
    def carriers(self) -> tuple[str, ...]:
        """Names of the tensors with something for each channel: biases, norms, depthwise kernels."""
        return tuple(dict.fromkeys(tie.tensor for tie in self.ties if tie.role is Role.CARRIES))

    def _layers(self, role: Role) -> tuple[str, ...]:
        return tuple(dict.fromkeys(tie.layer for tie in self.ties if tie.role is role))


@dataclass(frozen=True, slots=True)
class Part:
    """Channels of one space along an axis.

    Attributes:
        space: number of the space in its ledger.
        size: channels.
        run: consecutive entries per channel.
    """

    space: int
    size: int
    run: int = 1

    @property
    def length(self) -> int:
        """Entries along the axis."""
        return self.size * self.run


@dataclass(frozen=True, slots=True)
class Axis:
    """The one axis of a tensor along which channels lie that might be reordered.

    Attributes:
        dim: which.
        parts: its channels, from the first to the last.
    """

    dim: int
    parts: tuple[Part, ...]

    @property
    def length(self) -> int:
        """Entries along the axis."""
        return sum(part.length for part in self.parts)


@dataclass(frozen=True, slots=True)
class Fixed:
    """A tensor of which nothing is reordered.

    Attributes:
        reason: why not.
    """

    reason: str


Layout = Axis | Fixed


@dataclass(frozen=True, slots=True)
class Computed:
    """A tensor that depends on the model's inputs.

    Attributes:
        shape: its shape.
        layout: where its channels lie.
    """

    shape: tuple[int, ...]
    layout: Layout


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor that is known before the model runs.

    Attributes:
        shape: its shape.
        name: of the parameter or buffer; empty where it is computed from such, or is a constant.
        reason: why it cannot be reordered; empty if it can.
    """

    shape: tuple[int, ...]
    name: str = ""
    reason: str = ""


class Ledger:
    """Collects what is found about spaces while a graph is walked, and sums it up in the end."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._sizes: list[int] = []
        self._ties: list[tuple[int, Tie]] = []
        self._pins: list[tuple[int, str]] = []
        self._sums: list[int] = []

    def fresh(self, size: int) -> Part:
        """Opens a space."""
        self._parents.append(len(self._parents))
        self._sizes.append(size)
        return Part(self._parents[-1], size)

    def pin(self, parts: Iterable[Part], reason: str) -> None:
        """Notes that the order of parts must stay; the first reason of a space is kept."""
        self._pins += [(part.space, reason) for part in parts]

    def join(self, one: Sequence[Part], other: Sequence[Part], *, summed: bool) -> None:
        """Notes that two rows of parts must stay in one order, entry by entry."""
        if [(part.size, part.run) for part in one] != [(part.size, part.run) for part in other]:
            self.pin((*one, *other), "parts of different extents are computed with each other")
            return
        for mine, its in zip(one, other, strict=True):
            self._parents[self._root(its.space)] = self._root(mine.space)
            if summed:
                self._sums.append(mine.space)

    def bind(self, stored: Stored, axis: int, parts: Sequence[Part], role: Role) -> None:
        """Notes that an axis of a stored tensor follows parts, or that it cannot, which pins them."""
        if stored.reason:
            self.pin(parts, stored.reason)
        offset = 0
        for part in parts:
            if stored.name:
                tie = Tie(tensor=stored.name, axis=axis, offset=offset, run=part.run, role=role)
                self._ties.append((part.space, tie))
            offset += part.length

    def spaces(self) -> tuple[Space, ...]:
        """Gives every space that a layer produces, by its first producer."""
        ties: dict[int, list[Tie]] = {}
        for space, tie in self._ties:
            ties.setdefault(self._root(space), []).append(tie)
        pins: dict[int, str] = {}
        for space, reason in self._pins:
            pins.setdefault(self._root(space), reason)
        sums = {self._root(space) for space in self._sums}
        produced = dict.fromkeys(
            self._root(space) for space, tie in self._ties if tie.role is Role.PRODUCES
        )
        return tuple(self._space(root, ties, pins, root in sums) for root in produced)

    def _space(
        self, root: int, ties: Mapping[int, list[Tie]], pins: Mapping[int, str], summed: bool
    ) -> Space:
        return Space(
            size=self._sizes[root],
            ties=tuple(dict.fromkeys(ties[root])),
            pinned=pins.get(root, ""),
            summed=summed,
        )

    def _root(self, space: int) -> int:
        while self._parents[space] != space:
            self._parents[space] = self._parents[self._parents[space]]
            space = self._parents[space]
        return space
