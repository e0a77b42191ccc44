"""Values that several verbs read by themselves: lists with commas, N of 1xN."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from autosparse.errors import ConfigError

_T = TypeVar("_T")
NONE = "none"


def listed(text: str, name: str, read: Callable[[str, str], _T]) -> tuple[_T, ...]:
    """Reads values with commas between them; ``none`` is none of them, and each counts once.

    Args:
        text: what was typed.
        name: the flag.
        read: takes one part and the flag.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return () if parts == [NONE] else tuple(dict.fromkeys(read(part, name) for part in parts))


def block_ns(text: str, name: str) -> tuple[int, ...]:
    """Reads N of the 1xN pattern, one or several.

    Raises:
        ConfigError: one that no kernel has.
    """
    return listed(text, name, _block_n)


def _block_n(text: str, name: str) -> int:
    from autosparse.searching.space import BLOCK_NS

    known = tuple(map(str, BLOCK_NS))
    if text not in known:
        raise ConfigError(f"{name} must be one of {', '.join(known)}, but got {text!r}")
    return int(text)
