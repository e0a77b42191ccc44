"""Values with units, as users type them: ``5ms``, ``800us``, ``2h``, ``60%``."""

from __future__ import annotations

import math
import re
from decimal import ROUND_CEILING, Decimal

from autosparse.errors import UsageError, got

_US = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6, "min": 60e6, "h": 3600e6, "d": 86400e6}
_NUMBER_UNIT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Zµ%]*)\s*")


def _split(text: str, what: str, example: str) -> tuple[float, str]:
    match = _NUMBER_UNIT.fullmatch(text)
    if match is None:
        raise UsageError(f"{what} must be a number with a unit, but got {got(text)}; write {example}")
    return float(match[1]), match[2].replace("µ", "u")


def parse_duration_us(text: str, *, what: str = "a duration", example: str = "5ms") -> float:
    """Reads a duration such as ``5ms``, ``800us``, ``20m`` or ``2h``.

    Returns:
        Microseconds, greater than zero.

    Raises:
        UsageError: no unit, an unknown unit, or a value that is not positive.
    """
    number, unit = _split(text, what, example)
    if unit not in _US:
        given = f"unit {unit!r}" if unit else "no unit"
        known = ", ".join(_US)
        raise UsageError(
            f"{what} must end in one of {known}, but got {got(text)} ({given}); write {example}"
        )
    value_us = number * _US[unit]
    if not (math.isfinite(value_us) and value_us > 0):
        raise UsageError(f"{what} must be greater than zero, but got {got(text)}; write {example}")
    return value_us


def parse_fraction(text: str, *, what: str = "a fraction") -> float:
    """Reads ``0.75`` or ``75%`` as a fraction in [0, 1].

    Raises:
        UsageError: not a number, or outside [0, 1].
    """
    number, unit = _split(text, what, "0.75 or 75%")
    if unit not in ("", "%"):
        raise UsageError(f"{what} takes no unit but %, but got {got(text)}; write 0.75 or 75%")
    value = number / 100 if unit == "%" else number
    if not 0 <= value <= 1:
        raise UsageError(f"{what} must lie in [0, 1], but got {got(text)}; write 0.75 or 75%")
    return value


def format_duration(value_us: float, *, up: bool = False) -> str:
    """Writes microseconds in the largest unit that keeps the number at or above one.

    Three digits, the nearest or, with `up`, one that is not below the value.
    """
    fits = (unit for unit in ("h", "min", "s", "ms") if abs(value_us) >= _US[unit])
    unit = next(fits, "us")
    number = value_us / _US[unit]
    if up and number > 0:
        number = rounded_up(number, 2 - math.floor(math.log10(number)))
    return f"{number:.3g} {unit}"


def rounded_up(value: float, places: int) -> float:
    """Gives the least number with so many decimals that is not below `value`, as it prints."""
    step = Decimal(1).scaleb(-places)
    return float(Decimal(repr(value)).quantize(step, ROUND_CEILING))


def format_bytes(size_bytes: float) -> str:
    """Writes a size in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.4g} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.4g} TiB"
