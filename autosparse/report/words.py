"""How numbers are written in reports: one rule per quantity, so page, terminal and sentence agree."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from autosparse.records import HOST_STATES
from autosparse.units import rounded_up

KINDS = {
    "dense": "dense",
    "predicted": "predicted",
    "one-shot": "one-shot, no training",
    "short": "short training",
    "full": "full training",
}
_CONV = re.compile(
    r"(?:conv2d|linear)_b\d+_i(?P<cin>\d+)x(?P<size>\d+x\d+)_o(?P<cout>\d+)"
    r"(?:_k(?P<kernel>\d+x\d+)_s(?P<stride>\d+x\d+)_p\d+x\d+_d\d+x\d+_g(?P<groups>\d+))?"
    r"(?P<rest>(?:_[a-z0-9]+)*)"
)
_BY = re.compile(r"(?<=\d)x(?=\d)")
_UNIT = re.compile(r"(?<=\d) (?=(?:ms|us|%|points|threads?)(?![a-z]))|(?<=±) (?=\d)")
NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
GIVEN_WEIGHTS = (
    "given, perhaps trained on images of the validation split too, so accuracies on that split may be "
    "too high; those on the test split are not touched by it"
)
COMPACT_WEIGHTS = "none that keep transformed weights (compact_weights)"
AT_MOST = "\N{LESS-THAN OR EQUAL TO} "


def decimals(value: float, digits: int = 3) -> int:
    """Decimals that show `value` with `digits` significant digits, none beyond the point if large."""
    if value == 0 or not math.isfinite(value):
        return digits - 1
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def plain(value: float | None, digits: int = 3) -> str:
    """A bare number with so many significant digits."""
    return NONE if value is None else f"{value:.{decimals(value, digits)}f}".replace("-", MINUS)


def ms(value: float | None) -> str:
    """Milliseconds, ``4.71 ms``: two decimals between 1 and 100, so that a column lines up."""
    return NONE if value is None else f"{value:.{_places(value)}f} ms"


def least_ms(value: float) -> str:
    """Milliseconds that shall suffice: as `ms` writes them, but never rounded down."""
    return ms(rounded_up(value, _places(value)))


def _places(value_ms: float) -> int:
    if 1 <= value_ms < 100:
        return 2
    return min(decimals(value_ms), 6) if value_ms < 1 else decimals(value_ms, 4)


def budget(value: float | None) -> str:
    """A budget as a person would write it, ``5 ms``."""
    return NONE if value is None else f"{value:.6g} ms"


def ms_ci(value: float | None, interval: Sequence[float] | None) -> str:
    """Milliseconds with their 95 % interval, ``4.71 ± 0.04 ms`` or ``4.71 ms (4.70 to 4.75)``.

    One half for both would let an interval within a budget look as if it crossed it.
    """
    if value is None or interval is None:
        return ms(value)
    places = _places(value)
    below, above = max(value - interval[0], 0.0), max(interval[1] - value, 0.0)
    if 0 < max(below, above) < 0.5 * 10.0**-places:
        places += 1
    if f"{below:.{places}f}" == f"{above:.{places}f}":
        return f"{value:.{places}f} ± {above:.{places}f} ms"
    return f"{value:.{places}f} ms ({value - below:.{places}f} to {value + above:.{places}f})"


def span_ms(interval: Sequence[float] | None) -> str:
    """A 95 % interval, ``4.67 to 4.75 ms``."""
    if interval is None:
        return NONE
    places = _places(interval[0])
    return f"{interval[0]:.{places}f} to {interval[1]:.{places}f} ms"


def us(value: float | None) -> str:
    """Microseconds, bare, for columns headed by the unit."""
    return plain(value)


def percent(fraction: float | None, places: int = 1) -> str:
    """A fraction as per cent, ``91.7 %``."""
    return NONE if fraction is None else f"{100 * fraction:.{places}f} %"


def points(change: float | None) -> str:
    """A change of a fraction in percentage points, ``-0.6 points`` with a true minus."""
    if change is None:
        return NONE
    value = round(100 * change, 1)
    sign = "+" if value > 0 else MINUS if value < 0 else "±"
    return f"{sign}{abs(value):.1f} points"


def times(ratio: float | None) -> str:
    """A speed-up, ``2.08x`` with a true multiplication sign."""
    return NONE if ratio is None else f"{plain(ratio)}{TIMES}"


def kind(name: str) -> str:
    """What an accuracy's kind means."""
    return KINDS.get(name, name)


def state(name: str) -> str:
    """What a state of the host is."""
    return HOST_STATES.get(name, name)


def shape(key: str) -> str:
    """A layer's shape key in a form people read, such as ``64 to 128 channels, 56x56, 3x3, stride 2``.

    A key this does not understand is given as it is.
    """
    match = _CONV.fullmatch(key)
    if match is None:
        return key
    part = match.groupdict()
    words = [f"{part['cin']}\N{RIGHTWARDS ARROW}{part['cout']} channels"]
    if part["kernel"] is not None:
        size, kernel = part["size"].replace("x", TIMES), part["kernel"].replace("x", TIMES)
        words += [f"input {size}", kernel]
        words += [f"stride {part['stride'][0]}"] if part["stride"] != "1x1" else []
        words += [f"{part['groups']} groups"] if part["groups"] != "1" else []
    words += (
        part["rest"].replace("_res", ", residual").replace("_", "").split(",") if part["rest"] else []
    )
    return ", ".join(word.strip() for word in words if word.strip())


def pattern(name: str) -> str:
    """A pattern's name with a true multiplication sign, ``1x16``."""
    return _BY.sub(TIMES, name)


def glue(text: str) -> str:
    """Binds numbers to their units with no-break spaces, for text that wraps."""
    return _UNIT.sub("\N{NO-BREAK SPACE}", text)


def shared(trained: str | None, tickets: int, together: float, split: str) -> str:
    """Says whose training a configuration comes from that shares one, and what its models reach.

    Args:
        trained: id of the configuration that was trained; None where it is this one.
        tickets: models that the training ended in.
        together: their accuracy when they vote.
        split: that it is of.
    """
    origin = f"pruned from {trained}'s training" if trained else "trained for others too"
    models = f"{count(tickets, 'model')} of it together reach {percent(together)} on {split}"
    return f"{origin}; {models}, at {tickets} times its latency"


def count(value: int, noun: str) -> str:
    """A number with its noun, ``1 trial``, ``60 trials``."""
    return f"{value:,} {noun}".replace(",", " ") + ("" if value == 1 else "s")
