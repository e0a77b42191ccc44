"""Values that people, scripts and broken programs type: right ones, nearly right ones, and anything."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Draw(random.Random):
    """A source of chance that belongs to one case, so that a case is the same in every run."""

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def one(self, values: Sequence[T]) -> T:
        return values[self.randrange(len(values))]

    def some(self, values: Sequence[T], most: int) -> list[T]:
        return self.sample(list(values), min(len(values), self.randrange(most + 1)))


NUMBERS = (
    *"""
    0 1 2 3 7 -1 -0 +1 01 1_000 1.0 1.5 1e3 0x10 0b1 nan inf -inf 1e400 1e-400 5e-324 1e308 .5 5.
    --1 1,5 4294967296 9223372036854775807 9223372036854775808 18446744073709551615
    18446744073709551616 -9223372036854775809 999999999999999999999999999999 65536 100000 true none
    null None auto all
    """.split(),
    *(" 4 ", "\u0663", "\xbd", "\u22123", "9" * 400, "9" * 5000, ""),
)
WORDS = (
    *"""
    a none auto cpu {} {0} %s%n [/red] [bold] ' " `id` $(id) $HOME ~ ~nobody/x ~nosuchuser/x - -- -x
    @file .. . / // * ** [ [! ] ? a,b , ,, ; = file:///etc/passwd http://[::1 :// : :: :a a: 0 1e5
    -1 true
    """.split(),
    *("", " ", "\t", "r\xe9snet18", "\u6a21\u578b", "\xf1" * 50, "a b", "a\nb", "a\r"),
    *("\x1b[31mred", "\x7f", "\u202eevil", "\ufeffbom", "\udcff", "a\udcfeb", "x" * 300),
    *("y" * 70_000, "\\", "C:\\x"),
)
DURATIONS = (
    *"""
    5ms 800us 20m 2h 1d 1us 0.5s 5MS 5 5msec 0ms -5ms nanms infms 1e400ms 1e308h 1e-320us 1e-9us
    1_0ms ms 5ms5us 0.0000000001ms none 1e1000000000us
    """.split(),
    *("5 ms", "5\xb5s", "5\u03bcs", "\u0665ms", "", "9" * 400 + "ms", "9" * 5000 + "us"),
    *("5ms\n",),
)
SHAPES = (
    *"""
    3x16x16 3,16,16 1x16x16 3x0x16 3x-1x16 3x16 3x16x16x16 x xx 3XX16 3x1x1 3x1000000x1000000
    3x4096x4096 1000000000x1x1 3x16x9999999999999999999999999999999999999999 3x1.5x2 axbxc 16 none
    3x16x16x 0x0x0 4x16x16 3x7x5 3x2147483647x2 3x65536x65536
    """.split(),
    *("3 x 16 x 16", "\u0663x16x16"),
)
URLS = (
    *"""
    sqlite:// sqlite:/// sqlite:///:memory: sqlite://// sqlite:///x.db sqlite:////nowhere/x.db
    sqlite:///a/b/c.db?mode=ro sqlite:///file:x?mode=memory&uri=true mysql://u:p@localhost/x a://b
    postgresql:// postgresql+nosuch://x sqlite+nosuch:///x :// sqlite sqlite:/x sqlite:x
    sqlite:///%00 sqlite:///%zz sqlite://host/x redis://localhost sqlite:///. sqlite:////dev/null
    sqlite:////dev/full sqlite:////proc/self/mem journal.log mysql+pymysql://localhost:99999/x
    sqlite://///x sqlite:///x.db?timeout=abc oracle://x http://x:y
    """.split(),
    *("sqlite:///\udcff.db", "x" * 5000),
)
ADDRESSES = (
    *"""
    auto 127.0.0.1:1 localhost:1 127.0.0.1 :6379 127.0.0.1:0 127.0.0.1:65536 [::1]:1
    http://127.0.0.1:8265 ray://127.0.0.1:10001 127.0.0.1:-1 ..:1 .a:1 none 127.0.0.1:1:1 0:1 [:1
    *:1
    """.split(),
    *("a b:1", "127.0.0.1:\u0663", "\udcff:1", "x" * 300 + ":1", "", "\u2603:1"),
    *("a" * 64 + ".b:1",),
)
GLOBS = (
    *"""
    * 0 2 6 nothing [ [! [] *** ? , a,,b
    """.split(),
    *("", "\udcff", "(" * 50, "*" * 200 + "x"),
)
PATTERNS = (
    *"""
    1xN 1x16 1x8 block16 block dense 1x3 1x0 1x-1 1x x16 1x999999999999999999999999999999 block0
    blockN
    """.split(),
)
FRACTIONS = (
    *"""
    0.5 0.75 50% 0 1 none -0.1 1.1 101% nan inf 1e-400 , 0.5,0.5 0.5,x
    """.split(),
    *("\xbd",),
)

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 16, 1.5, -0.0, 1e308, 5e-324),
    *(float("nan"), float("inf"), float("-inf"), 2**31, 2**63, 2**64, -(2**70), 10**400),
    *("", " ", "none", "x", "\x00", "\x1b[2J", "\ud800", "\udcff", "🦙" * 20, "z" * 100_000),
    *([], {}, [[]], [None], {"": None}, [1, 2, 3], {"a": {"b": {"c": []}}}, list(range(2000))),
)  # fmt: skip
"""Values of every type that a file can hold."""


def deep(levels: int) -> Any:
    """Lists in lists."""
    made: Any = 0
    for _ in range(levels):
        made = [made]
    return made


def odd(draw: Draw) -> Any:
    """Anything that YAML and JSON can say."""
    if draw.chance(0.05):
        return deep(draw.one((5, 50, 90)))
    return draw.one(ODD)


def number(draw: Draw) -> str:
    if draw.chance(0.2):
        return str(draw.randrange(-(2 ** draw.one((4, 16, 40, 70))), 2 ** draw.one((4, 16, 40, 70))))
    return draw.one(NUMBERS)


def word(draw: Draw) -> str:
    if draw.chance(0.2):
        letters = [chr(draw.one((draw.randrange(1, 128), draw.randrange(1, 0x3000)))) for _ in range(9)]
        return "".join(letters)
    return draw.one(WORDS)


def of(*known: str, wild: Callable[[Draw], str] = word) -> Callable[[Draw], str]:
    """Gives a generator of values out of `known`, now and then changed a little, or anything else."""

    def make(draw: Draw) -> str:
        if draw.chance(0.5):
            return draw.one(known)
        if draw.chance(0.4):
            return misspelt(draw, draw.one(known))
        return wild(draw)

    return make


def misspelt(draw: Draw, text: str) -> str:
    """Gives a text with one letter lost, doubled, in another case or exchanged."""
    if not text:
        return text
    at = draw.randrange(len(text))
    before, letter, after = text[:at], text[at], text[at + 1 :]
    return before + draw.one(("", letter * 2, letter.swapcase(), "x", "-", " ")) + after
