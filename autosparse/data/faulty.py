"""Images that cannot be used: a few are named and counted, many end the work."""

from __future__ import annotations

from collections.abc import Callable

from autosparse.errors import DataError

_LEAST_LIMIT = 10
_PER_IMAGE = 1000  # one in so many may be faulty
_NAMED = 3


def tolerated(count: int) -> int:
    """Gives how many faulty images are left out of so many: one in a thousand, at least ten."""
    return max(_LEAST_LIMIT, count // _PER_IMAGE)


class Faulty:
    """The faulty images of one part of a data set.

    Args:
        count: images of the part.
        where: what to call the part in a message.
        tell: is given a line for each of them, once.
    """

    def __init__(self, count: int, where: str, tell: Callable[[str], None]) -> None:
        self._count = count
        self._where = where
        self._tell = tell
        self._found: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, name: str, reason: str) -> None:
        """Notes an image; one that was noted before changes nothing.

        Raises:
            DataError: these are too many, or all; names the first ones.
        """
        if name in self._found:
            return
        self._found[name] = reason
        self._tell(f"{name} is left out: {reason}")
        most = min(tolerated(self._count), self._count - 1)
        if len(self._found) > most:
            first = "; ".join(f"{n}: {why}" for n, why in list(self._found.items())[:_NAMED])
            raise DataError(
                f"of the {self._count} images of {self._where} at most {most} may be unusable, but "
                f"{len(self._found)} are, first {first}; replace or remove them"
            )
