"""Launch parameters of a kernel, as rows of the tuning database name them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Self

from autosparse.errors import UsageError
from autosparse.storage.serial import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch(Record):
    """How a kernel of tiles is cut up and launched.

    Attributes:
        bm: output pixels or rows per block.
        bn: outputs per block; at most those of a tile.
        bk: columns per step of the main loop.
        warps: per block.
        stages: steps whose operands are on their way or in shared memory.
        ctas: blocks per multiprocessor that the grid is made of.
        split_k: parts that a tile's columns are summed in.
    """

    bm: int = 128
    bn: int = 128
    bk: int = 64
    warps: int = 8
    stages: int = 4
    ctas: int = 1
    split_k: int = 1

    @property
    def text(self) -> str:
        """``k=v`` pairs, sorted, comma separated."""
        values = dataclasses.asdict(self)
        return ",".join(f"{name}={values[name]}" for name in sorted(values))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads what `text` writes.

        Raises:
            UsageError: an unknown or missing name, or a value that is no whole number above 0.
        """
        pairs = [pair.partition("=") for pair in text.split(",")]
        names = [field.name for field in dataclasses.fields(cls)]
        found = {name: value for name, _, value in pairs}
        if sorted(found) != sorted(names) or not all(v.isdecimal() and int(v) for v in found.values()):
            raise UsageError(
                f"launch parameters must be {', '.join(f'{name}=N' for name in sorted(names))} with "
                f"whole numbers above 0, but got {text!r}"
            )
        return cls(**{name: int(value) for name, value in found.items()})
