"""Things that must be closed: as context managers they close themselves."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """Base of whatever has a `close` that may be called twice: leaving its block calls it."""

    def close(self) -> None:
        """Gives back what is held."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
