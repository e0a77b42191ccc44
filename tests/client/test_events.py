"""Server-sent events, however their bytes are cut."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from autosparse.client.events import MOST_BYTES, Event, read_events
from autosparse.errors import UsageError

STREAM = (
    "\ufeff: hello\n\n"
    "event: state\nid: 1\ndata: one\n\n"
    "data: two\r\ndata:  lines\r\n\r\n"
    "event: log\rid:2\rdata\r\r"
    "event: nothing\n\n"
    "data: a\u2028b\x85c\nunknown: field\nid: with\0nul\n\n"
    "retry: 5\ndata: \N{GRINNING FACE}\n\n"
    "data: torn"
).encode()
EXPECTED = [
    Event(kind="state", data="one", id="1"),
    Event(kind="message", data="two\n lines", id="1"),
    Event(kind="log", data="", id="2"),
    Event(kind="message", data="a\u2028b\x85c", id="2"),
    Event(kind="message", data="\N{GRINNING FACE}", id="2"),
]


def test_events_are_read() -> None:
    assert list(read_events([STREAM])) == EXPECTED


@pytest.mark.parametrize("seed", range(20))
def test_bytes_may_be_cut_anywhere(seed: int) -> None:
    draw = random.Random(seed)
    parts, at = [], 0
    while at < len(STREAM):
        size = draw.choice([0, 1, 1, 2, 3, 7, 20])
        parts.append(STREAM[at : at + size])
        at += size
    assert list(read_events(parts)) == EXPECTED


def test_an_event_is_there_as_soon_as_it_is_whole() -> None:
    def parts() -> Iterator[bytes]:
        yield b"data: one\n\n"
        raise AssertionError("nothing more is needed for the first")

    assert next(read_events(parts())).data == "one"


def test_what_is_no_text_is_replaced() -> None:
    assert [each.data for each in read_events([b"data: \xff\n\n"])] == ["\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize("line", [b"x" * 65536, b"data: x\n" * 8192], ids=["line", "event"])
def test_what_has_no_end_is_refused_before_it_fills_memory(line: bytes) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += len(line)
            yield line

    with pytest.raises(UsageError, match="must end"):
        list(read_events(endless()))
    assert taken <= 2 * MOST_BYTES
