"""Server-sent events, as the HTML standard defines them, from bytes as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from autosparse.errors import UsageError
from autosparse.storage.serial import Record

MOST_BYTES = 4 * 2**20
"""What one event may hold."""
_CR, _LF = b"\r", b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Record):
    """One event.

    Attributes:
        kind: its name; ``message`` where it has none.
        data: its text.
        id: of the last event that had one, this one included.
    """

    kind: str
    data: str
    id: str = ""


def read_events(parts: Iterable[bytes]) -> Iterator[Event]:
    """Gives events as soon as they are whole; what follows the last whole one is dropped.

    Args:
        parts: bytes of the stream, cut anywhere.

    Raises:
        UsageError: an event has no end.
    """
    data: list[str] = []
    kind, last_id, size_bytes = "", "", 0
    for line in _lines(parts):
        if not line:
            if data:
                yield Event(kind=kind or "message", data="\n".join(data), id=last_id)
            kind, data, size_bytes = "", [], 0
            continue
        size_bytes += len(line)
        if size_bytes > MOST_BYTES:
            raise _endless()
        name, _, value = line.decode(errors="replace").partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last_id = value


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Cuts bytes at ends of lines, CR LF, LF or CR alone; gives no line before its end has come."""
    rest, after_cr, is_first = b"", False, True
    for part in parts:
        if after_cr and part:
            part, after_cr = part.removeprefix(_LF), False
        after_cr = part.endswith(_CR) or (after_cr and not part)
        *lines, rest = (rest + part).replace(_CR + _LF, _LF).replace(_CR, _LF).split(_LF)
        if len(rest) > MOST_BYTES:
            raise _endless()
        for line in lines:
            yield line.removeprefix(b"\xef\xbb\xbf") if is_first else line
            is_first = False


def _endless() -> UsageError:
    return UsageError(
        f"an event of a daemon must end, but one is longer than {MOST_BYTES >> 20} MiB; it comes of "
        "no daemon of autosparse"
    )
