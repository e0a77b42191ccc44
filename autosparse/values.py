"""Readers of single settings: from what a shell, a file or Python gives to a checked value.

A reader takes the value and the name the user knows it by, and gives the value or raises `ConfigError`
with the rule, the value it got, and what to write instead.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autosparse import factories
from autosparse.errors import ConfigError, UsageError, got
from autosparse.units import parse_duration_us

Reader = Callable[[Any, str], Any]

_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}

_SQLITE = "sqlite:///"

MOST = 2**31 - 1
"""The largest count: what sizes, processors and numbers of trials never reach."""
MOST_SEED = 2**32 - 1
"""The largest seed: NumPy's generators take 32 bits, torch's 64."""

_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,400}\s*")
_UNITS_US = {"h": 3600e6, "m": 60e6, "s": 1e6, "ms": 1e3, "us": 1.0}


def text(value: Any, name: str) -> str:
    """Reads text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{name} must be text, but got {got(value)}")
    return value.strip()


def path(value: Any, name: str) -> Path:
    """Reads a path; ``~`` is the home folder."""
    if not isinstance(value, str | Path) or not str(value).strip():
        raise ConfigError(f"{name} must be a path, but got {got(value)}")
    return Path(os.path.expanduser(value))


def input_path(value: Any, name: str) -> Path:
    """Reads a path of something that other processes read too, in folders of their own."""
    return path(value, name).absolute()


def model(value: Any, name: str) -> str:
    """Reads a model's name; a file or folder in it becomes absolute."""
    given = text(value, name)
    library, _, rest = given.partition(":")
    if library == "hf" and os.path.isdir(os.path.expanduser(rest)):
        return f"hf:{_absolute(rest)}"
    return factories.absolute(given)


def data_set(value: Any, name: str) -> str:
    """Reads a data set's name; a file or folder in it becomes absolute."""
    given = text(value, name)
    kind, _, rest = given.partition(":")
    if factories.is_factory(given) or not rest:
        return factories.absolute(given)
    return f"{kind}:{_absolute(rest)}"


def name_or_file(*suffixes: str) -> Reader:
    """Makes a reader of names that are a path if they have a slash or one of the suffixes."""

    def read(value: Any, name: str) -> str:
        given = text(value, name)
        return _absolute(given) if "/" in given or given.endswith(suffixes) else given

    return read


def database(value: Any, name: str) -> str:
    """Reads a database's URL or the path of an SQLite file; a file becomes absolute."""
    given = url(value, name)
    return given if "://" in given else _absolute(given)


def url(value: Any, name: str) -> str:
    """Reads a URL; the file of an SQLite URL becomes absolute."""
    given = text(value, name)
    file = given.removeprefix(_SQLITE)
    return f"{_SQLITE}{_absolute(file)}" if file != given and file not in ("", ":memory:") else given


def _absolute(file: str) -> str:
    return str(Path(os.path.expanduser(file)).absolute())


def switch(value: Any, name: str) -> bool:
    """Reads a boolean, or one of the words that shells write for one."""
    word = str(value).strip().lower()
    if not isinstance(value, bool | str | int) or word not in _WORDS:
        raise ConfigError(f"{name} must be true or false, but got {got(value)}")
    return _WORDS[word]


def count(minimum: int) -> Reader:
    """Makes a reader of whole numbers from `minimum` on."""

    def read(value: Any, name: str) -> int:
        return _in_range(value, name, "", minimum, MOST)

    return read


def count_or(word: str, minimum: int) -> Reader:
    """Makes a reader of whole numbers that also takes one word."""

    def read(value: Any, name: str) -> int | str:
        return word if value == word else _in_range(value, name, f"{word!r} or ", minimum, MOST)

    return read


def fraction(value: Any, name: str) -> float:
    """Reads a number from 0 to 1."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ConfigError(f"{name} must be a number from 0 to 1, but got {got(value)}; write 0.75")
    return number


def seed(value: Any, name: str) -> int:
    """Reads a seed of random numbers, one that every generator in use takes."""
    return _in_range(value, name, "", 0, MOST_SEED)


def _in_range(value: Any, name: str, other: str, minimum: int, most: int) -> int:
    number = _whole_number(value)
    if number is None or number < minimum:
        raise ConfigError(
            f"{name} must be {other}a whole number from {minimum} on, but got {got(value)}"
        )
    if number > most:
        raise ConfigError(f"{name} must be {other}a whole number up to {most}, but got {got(value)}")
    return number


def _whole_number(value: Any) -> int | None:
    """Reads digits as people write them; Python's reader also takes other scripts' and ``1_0``."""
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def duration(example: str) -> Reader:
    """Makes a reader of durations with a unit; gives microseconds."""

    def read(value: Any, name: str) -> float:
        if not isinstance(value, str):
            raise ConfigError(
                f"{name} must be a number with a unit, but got {got(value)}; write {example}"
            )
        try:
            return parse_duration_us(value, what=name, example=example)
        except UsageError as error:
            raise ConfigError(str(error)) from None

    return read


def exact_duration(value_us: float) -> str:
    """Writes microseconds so that reading them again gives the very same number."""
    exact = []
    for unit, scale in _UNITS_US.items():
        number = f"{value_us / scale:.12g}"
        if value_us >= scale and "e" not in number and float(number) * scale == value_us:
            exact.append(number + unit)
    whole = [typed for typed in exact if "." not in typed]
    return (whole or exact or [f"{value_us!r}us"])[0]


def shape(value: Any, name: str) -> tuple[int, int, int]:
    """Reads channels, height and width: ``3,224,224``, ``3x224x224``, or a list of three."""
    parts = value.replace("x", ",").split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        parts = ()
    sizes = tuple(_whole_number(part) or 0 for part in parts)
    if len(sizes) != 3 or min(sizes) < 1 or max(sizes) > MOST:
        raise ConfigError(
            f"{name} must be channels, height and width, each at least 1 and at most {MOST}, but got "
            f"{got(value)}; write 3x224x224 (samples per run go into batch-size)"
        )
    return sizes[0], sizes[1], sizes[2]


def globs(value: Any, name: str) -> tuple[str, ...]:
    """Reads patterns of layer names: a list, or text with commas."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(
            f"{name} must be patterns of layer names, but got {got(value)}; write 'layer4.*'"
        )
    return tuple(part.strip() for part in parts if part.strip())


def words(value: Any, name: str) -> tuple[str, ...]:
    """Reads words: a list, or text with commas; a list's texts may have commas, too."""
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(f"{name} must be words, but got {got(value)}; write them with commas between")
    found = [word.strip() for part in parts for word in part.split(",")]
    return tuple(dict.fromkeys(word for word in found if word))


def choice(known: tuple[str, ...], not_yet: Mapping[str, str] | None = None) -> Reader:
    """Makes a reader of one word out of several.

    Args:
        known: words that are taken.
        not_yet: words that could be meant but are refused, with the reason.
    """

    def read(value: Any, name: str) -> str:
        if value in known:
            return str(value)
        reason = (not_yet or {}).get(value, "") if isinstance(value, str) else ""
        because = f"; {reason}" if reason else ""
        raise ConfigError(f"{name} must be {' or '.join(known)}, but got {got(value)}{because}")

    return read


def optional(read: Reader) -> Reader:
    """Makes a reader that also takes None, which a shell writes as ``none``."""

    def read_or_none(value: Any, name: str) -> Any:
        return None if value is None or value == "none" else read(value, name)

    return read_or_none
