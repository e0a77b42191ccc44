"""Results on stdout: text for people, JSON for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table

_LONGEST = 2000
_END = 500


def one_line(text: str) -> str:
    """Gives what is said beside a result as one line that a terminal shows as it is.

    Names and values in it may come from anywhere: control characters become escapes, lines are joined,
    and of what is very long the middle is left out.
    """
    shown = printable(" ".join(line.strip() for line in text.splitlines()))
    if len(shown) > _LONGEST:
        return f"{shown[: _LONGEST - _END]} [...] {shown[-_END:]}"
    return shown


def printable(text: str, keep: str = "") -> str:
    """Gives text that does nothing to a terminal: control characters, but those to keep, as escapes."""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def emit(text: str) -> bool:
    """Prints a result, and tells whether somebody reads on.

    A reader that has gone away, such as ``head``, is no error.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes stdout once more at exit; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def notice(text: str) -> None:
    """Says something about the work on stderr, beside its result."""
    print(f"autosparse: {one_line(text)}", file=sys.stderr)


def emit_json(values: Any) -> None:
    """Prints plain values as JSON, escaped where stdout cannot show a character."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(values, indent=2, allow_nan=False)
    emit(text)


def emit_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str = "",
    whole: Collection[str] = (),
) -> None:
    """Prints a table as wide as the terminal; where there is none, as wide as its content.

    Args:
        columns: their names.
        rows: of cells.
        title: above it.
        whole: columns whose cells are not parted on a narrow terminal.
    """
    heads = [Column(name, no_wrap=name in whole, overflow="fold") for name in columns]
    table = Table(*heads, title=title or None, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console = Console(width=None if sys.stdout.isatty() else 1000, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(table)
    emit("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def emit_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Prints names and values below one another, values aligned."""
    rows = [(name, _cell(value)) for name, value in facts]
    width = max((len(name) for name, _ in rows), default=0)
    emit("\n".join(f"{name:<{width}}  {value}" for name, value in rows))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
