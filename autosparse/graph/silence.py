"""What torch.export prints of a model that it cannot take, kept back: the error says all of it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TextIO


class _Held:
    """A stream that holds back what one thread writes until it is told what becomes of it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._thread = stream, threading.get_ident()
        self._texts: list[str] = []
        self._holds = True

    def write(self, text: str) -> int:
        if self._holds and threading.get_ident() == self._thread:
            self._texts.append(text)
            return len(text)
        return self._stream.write(text)

    def end(self, *, forget: bool) -> None:
        """Writes what was held back, or forgets it; from now on everything passes at once."""
        self._holds = False
        texts, self._texts = self._texts, []
        if not forget:
            for text in texts:
                self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def without_partial_graphs() -> Iterator[None]:
    """Drops what this thread writes to stderr if that ends with the part of a graph that torch got to.

    torch prints such a graph and then raises the exception that carries it. Whatever else is written,
    by the model's own code for one, is written in the end.
    """
    if sys.stderr is None:
        yield
        return
    held = _Held(sys.stderr)
    has_graph = False
    try:
        with redirect_stderr(held):
            yield
    except Exception as error:
        has_graph = hasattr(error, "partial_fx_graph")
        raise
    finally:
        held.end(forget=has_graph)
