"""What happens to files: cut, garbled, exchanged, or written by somebody else's program."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from tests.fuzz.values import Draw, deep, misspelt, odd

_OTHERS = (
    b"",
    b"\0",
    b"\n",
    b"<!doctype html><html><body>404</body></html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    b"PK\x03\x04",
    b"PK\x05\x06" + bytes(18),
    b"\x80\x02}q\x00.",
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    b"SQLite format 3\0",
    b"SQLite format 3\0" + bytes(4080),
    b"{}",
    b"[]",
    b"null",
    b'{"schema": 1}',
    b"\xff\xfe\x00\x00",
    b"\xef\xbb\xbf{}",
    b"\x1f\x8b\x08\x00",
    b"\x08\0\0\0\0\0\0\0{}      ",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f{",
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b"1" * 10_000,
    b"a: &a [*a]",
)


def garbled(draw: Draw, content: bytes) -> bytes:
    """Gives bytes as a bad disk, a cut line or an editor leaves them."""
    how = draw.randrange(8)
    if not content or how == 0:
        return draw.one(_OTHERS)
    at = draw.randrange(len(content))
    if how == 1:
        return content[:at]
    if how == 2:
        return content[: draw.randrange(min(len(content), 64))]
    if how == 3:
        return content + draw.randbytes(draw.randrange(1, 64))
    if how == 4:
        return content[:at] + content[at + draw.randrange(1, 64) :]
    if how == 5:
        return content[:at] + bytes(draw.randrange(1, 512)) + content[at:]
    changed = bytearray(content)
    for _ in range(draw.randrange(1, 8)):
        near_the_start = draw.chance(0.5)  # where headers are
        changed[draw.randrange(min(len(changed), 256 if near_the_start else len(changed)))] = (
            draw.randrange(256)
        )
    return bytes(changed)


def bent(draw: Draw, values: Any) -> Any:
    """Gives plain values with one to three of them exchanged, lost, renamed or of another type."""
    made = copy.deepcopy(values)
    for _ in range(draw.randrange(1, 4)):
        places = list(_places(made))
        if not places:
            return odd(draw)
        holder, key = draw.one(places)
        _bend(draw, holder, key)
    return made


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(values, dict):
        for key in values:
            yield values, key
            yield from _places(values[key])
    elif isinstance(values, list):
        for index in range(min(len(values), 20)):
            yield values, index
            yield from _places(values[index])


def _bend(draw: Draw, holder: Any, key: Any) -> None:
    how = draw.randrange(6)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[misspelt(draw, str(key))] = holder.pop(key)
    elif how == 2:
        holder[key] = [holder[key]]
    elif how == 3 and isinstance(holder[key], int | float):
        holder[key] = draw.one(
            (-holder[key], holder[key] * 10**300, holder[key] * 10**30, str(holder[key]))
        )
    else:
        holder[key] = odd(draw)


def as_json(values: Any) -> bytes:
    """Writes JSON as other programs do, NaN and lone surrogates included."""
    return json.dumps(values, default=str).encode("utf-8", "surrogatepass")


# One a line.
_SCALARS = (
    *"""
    2001-02-30
    2001-99-99
    2001-01-01T99:99:99Z
    0001-01-01
    1:30
    190:20:30
    0o17
    0x
    0b
    .inf
    -.inf
    .nan
    1e400
    ~
    null
    yes
    on
    !!int ''
    !!int abc
    !!float ''
    !!float x
    !!timestamp x
    !!bool x
    !!binary x
    !!binary '====='
    !!null x
    !!set {a, b}
    !!omap [a: 1]
    !!pairs [a: 1]
    !!python/object/apply:os.system [id]
    !!python/tuple [1]
    !unknown x
    !<tag:x> y
    !!str {a: b}
    !!map [a]
    !!seq {a: b}
    *nothing
    &a
    &a *a
    &a [*a]
    &a {b: *a}
    '
    |
    >
    |9
    ? a
    ? [a]
    {[a]: b}
    {{a: b}: c}
    {a, a}
    @x
    `x
    %x
    <<: 3
    {<<: 3}
    {<<: [{a: 1}, 2]}
    -
    - - - -
    [,]
    {,}
    [a
    {a
    1_0_0
    +1
    1__
    ._
    0.1e
    190:99
    2001-1-1
    =
    <<
    ''
    []
    {}
    0:0:0
    -0
    !!int 0x
    """.strip().split("\n    "),
    *('"\\ud800"', '"\\x00"', '"\\xzz"', "\t", "9" * 400, "9" * 5000, "0" * 400),
)


def yaml_text(draw: Draw, keys: tuple[str, ...], lines: str) -> bytes:
    """Gives YAML that parsers stumble over, around lines that are fine by themselves.

    Args:
        draw: decides.
        keys: keys that the reader knows.
        lines: text of a valid file.
    """
    key = draw.one(keys)
    scalar = draw.one(_SCALARS)
    texts = (
        f"{lines}\n{key}: {scalar}\n",
        f"{key}: {scalar}\n{lines}\n",
        f"{lines}\n{key}: [{scalar}]\n",
        f"{scalar}: {key}\n{lines}\n",
        f"{lines}\n{lines}\n",
        f"---\n{lines}\n---\n{lines}\n",
        f"base: &base\n  {key}: 1\n<<: *base\n{lines}\n",
        f"{lines}\n{key}: &a [*a, *a]\n",
        _laughs(key, lines),
        f"{lines}\n{key}: {'[' * 3000}\n",
        f"{lines}\n{key}: {'{a: ' * 2000}1{'}' * 2000}\n",
        f"{lines}\n{key}: {deep(draw.one((20, 300)))}\n",
        f"\ufeff{lines}\n",
        f"%YAML 9.9\n---\n{lines}\n",
        f"%TAG ! x\n---\n{lines}\n",
        lines.replace(":", " :", 1),
        lines.replace(": ", ":\t"),
        lines.replace("\n", "\r"),
        f"{lines}\n\x00",
        f"{lines}\n# \x1b[31m\n",
        f"{lines}\n1: 2\n",
        f"{lines}\n? !!python/name:os.system\n: x\n",
        f"{lines}\n~: x\n",
        f"{lines}\ntrue: x\n",
        f"{lines}\n2001-01-01: x\n",
        f"{lines}\n{key}\n",
        f"- {key}\n- {scalar}\n",
        scalar,
    )
    text = draw.one(texts)
    if draw.chance(0.05):
        return text.encode("utf-16", "surrogatepass")
    if draw.chance(0.03):
        return text.encode("latin-1", "replace")
    return text.encode("utf-8", "surrogatepass")


def _laughs(key: str, lines: str) -> str:
    """A few lines that stand for two thousand million values."""
    levels = ["x0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol]"]
    levels += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 8)}]" for n in range(1, 11)]
    return "\n".join([lines, *levels[:1], *levels[1:], f"{key}: *x10", ""])
