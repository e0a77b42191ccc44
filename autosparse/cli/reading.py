"""Values that several verbs read by themselves: lists with commas, patterns, a finished run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from autosparse.cli.output import notice
from autosparse.errors import ConfigError, PlanError

if TYPE_CHECKING:
    from autosparse.patterns.pattern import Pattern

_T = TypeVar("_T")
NONE = "none"


def listed(text: str, name: str, read: Callable[[str, str], _T]) -> tuple[_T, ...]:
    """Reads values with commas between them, at least one; each counts once.

    Args:
        text: what was typed.
        name: the flag.
        read: takes one part and the flag.

    Raises:
        ConfigError: there is no value, or one that `read` refuses.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ConfigError(f"{name} must have at least one value, but got {text!r}")
    return tuple(dict.fromkeys(read(part, name) for part in parts))


def listed_or_none(text: str, name: str, read: Callable[[str, str], _T]) -> tuple[_T, ...]:
    """Reads values as `listed` does; ``none`` alone is none of them."""
    return () if text.strip() == NONE else listed(text, name, read)


def finished_run(root: Path, wanted: str) -> Path:
    """Finds a run for work that needs a finished one, and says which newer ones were passed over.

    Raises:
        RunError: there is none.
    """
    from autosparse.run_folders import find_finished

    path, passed_over = find_finished(root, wanted)
    if passed_over:
        notice(passed_over)
    return path


ONEXN = "1xN"


def patterns(
    pattern: str | None, block_n: str | None, *, usual: str | None = None
) -> tuple[Pattern, ...]:
    """Reads sparse patterns, one or several: names such as 1x16, or 1xN, whose N --block-n lists.

    Args:
        pattern: of --pattern; None is 1xN.
        block_n: of --block-n.
        usual: N where none are given; None takes all that kernels have.

    Raises:
        ConfigError: a name that no family knows, or an N that no kernel has.
    """
    from autosparse.patterns.pattern import onexn
    from autosparse.searching.space import BLOCK_NS

    if pattern in (None, ONEXN):
        default = usual or ",".join(map(str, BLOCK_NS))
        given = default if block_n is None else block_n
        return tuple(map(onexn, listed(given, "--block-n", _block_n)))
    if block_n is not None:
        raise ConfigError(f"--block-n is of --pattern {ONEXN}, but --pattern is {pattern}")
    return listed(pattern, "--pattern", _pattern)


def _pattern(text: str, name: str) -> Pattern:
    from autosparse.patterns import parse_pattern

    try:
        found = parse_pattern(text)
    except PlanError as error:
        raise ConfigError(f"{name}: {error}") from None
    if found.is_dense:
        raise ConfigError(f"{name} must name sparse patterns, as dense takes part anyway")
    return found


def _block_n(text: str, name: str) -> int:
    from autosparse.searching.space import BLOCK_NS

    known = tuple(map(str, BLOCK_NS))
    if text not in known:
        raise ConfigError(f"{name} must be one of {', '.join(known)}, but got {text!r}")
    return int(text)
