"""Files that are whole or absent: atomic writes, and readers that say what is wrong with a file.

A file is written beside its destination, flushed to the disk and renamed onto it, so that a process
killed at any moment leaves the old content or the new one. Logs of rows (`append_jsonl`) may end in a
torn line after a kill; reader and writer both know.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import logging
import math
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from autosparse.errors import RunError

log = logging.getLogger(__name__)


def opened(path: Path) -> io.BufferedReader:
    """Opens a regular file for reading. Pipes, devices and sockets, which may never end, are refused.

    Raises:
        OSError: it is missing, unreadable, of an impossible name, or no regular file; `strerror` says.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL byte, or a character that no file name has
        raise OSError(errno.EINVAL, f"it is no file name: {error}", str(path)) from None
    try:
        _check_regular(os.fstat(handle).st_mode, path)
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def _check_regular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "pipe" if stat.S_ISFIFO(mode) else "device"
        raise OSError(errno.EINVAL, f"it is a {kind}, not a file", str(path))


def read_bytes(path: Path) -> bytes:
    """Reads a regular file.

    Raises:
        OSError: as `opened` does, or the reading fails.
    """
    with opened(path) as stream:
        return stream.read()


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically and makes its folder if need be.

    Raises:
        RunError: the folder or the file cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a binary file atomically and makes its folder if need be.

    Raises:
        RunError: the folder or the file cannot be written.
    """
    write_chunks(path, [content])


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Writes a binary file atomically from parts, so that the whole need not be in memory.

    Raises:
        RunError: the folder or the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as stream:
        for chunk in chunks:
            stream.write(chunk)


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Gives a file to write in place of `path`, which it replaces when the block ends well.

    Args:
        path: the file to be.
        mode: who may read and write it then; until then its user alone may.

    Raises:
        RunError: the folder or the file cannot be written, or a pipe, a device or a folder is there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.exists(path):  # who may do anything could replace a device, for all programs
            _check_regular(os.stat(path).st_mode, path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as stream:
                os.fchmod(stream.fileno(), mode)  # mkstemp gives 0600, too narrow for a shared result
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritable(path, error) from None


def write_json(path: Path, values: Any) -> None:
    """Writes plain JSON values atomically; refuses NaN and infinities, which JSON does not have."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_yaml(path: Path, values: Any) -> None:
    """Writes plain values as YAML atomically, keys in the order given."""
    write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def write_rows_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Writes rows as CSV atomically.

    Numbers keep every digit, None becomes an empty cell, and lists and mappings become JSON.

    Args:
        path: destination.
        rows: column name to value; a column a row lacks becomes an empty cell.
        columns: the header, in order; a row with any other key is a mistake of the caller.

    Raises:
        RunError: the file cannot be written.
        ValueError: a row has a key that is no column.
    """
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(columns), lineterminator="\n", extrasaction="raise")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    write_text(path, stream.getvalue())


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, allow_nan=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Gives values with None for numbers that JSON does not have: NaN and the infinities."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Writes a log of JSON lines anew, atomically."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def append_jsonl(path: Path, values: Any) -> None:
    """Adds one line of JSON to a log; first cuts off a last line that a kill left torn.

    One writer at a time; a reader may read meanwhile.

    Raises:
        RunError: the file cannot be written.
    """
    line = json.dumps(values, allow_nan=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as stream:
            _cut_torn_line(stream)
            stream.write(line)
    except OSError as error:
        raise _unwritable(path, error) from None


def cut_torn_line(path: Path) -> None:
    """Cuts off an unfinished last line of a log, which a kill leaves behind; no file, nothing done.

    Raises:
        RunError: the file cannot be written.
    """
    if not os.path.exists(path):
        return
    try:
        with path.open("rb+") as stream:
            _cut_torn_line(stream)
    except OSError as error:
        raise _unwritable(path, error) from None


def _cut_torn_line(stream: Any) -> None:
    size = stream.seek(0, os.SEEK_END)
    if size == 0:
        return
    stream.seek(size - 1)
    if stream.read(1) == b"\n":
        return
    stream.seek(0)
    stream.truncate(stream.read().rfind(b"\n") + 1)


def read_text(path: Path) -> str:
    """Reads a text file.

    Raises:
        RunError: it is missing, unreadable, or not UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8")
    except OSError as error:
        raise RunError(f"{path} must be a readable file: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RunError(
            f"{path} must be UTF-8 text, but byte {error.start} is not; it is damaged"
        ) from None


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        RunError: it is missing, unreadable, or not JSON.
    """
    try:
        return json.loads(read_text(path), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # a number of too many digits is no JSONDecodeError
        raise RunError(f"{path} must hold JSON, but it is damaged or truncated: {error}") from None


def read_jsonl(path: Path, *, strict: bool = True) -> list[Any]:
    """Reads a log of JSON lines; empty if there is none yet. A torn last line is left out.

    Args:
        path: the file.
        strict: refuse a damaged line; False leaves it out with a warning, for what can be made again.

    Raises:
        RunError: unreadable, or a line that is not the last is no JSON.
    """
    if not os.path.exists(path):
        return []
    try:
        lines = read_bytes(path).split(b"\n")
    except OSError as error:
        raise RunError(f"{path} must be a readable file: {error.strerror}") from None
    rows = []
    for number, line in enumerate(lines[:-1], 1):
        if not line.strip():
            continue
        try:
            rows.append(_line(path, number, line))
        except RunError as error:
            if strict:
                raise
            log.warning("%s; it is left out", error)
    return rows


def _refuse_constant(name: str) -> float:
    """Refuses NaN and infinities, which other programs write though JSON has none."""
    raise ValueError(f"{name} is no number of JSON")


def _line(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RunError(
            f"every line of {path} must be JSON, but line {number} is not: {error}"
        ) from None


def read_rows_csv(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """Reads a CSV file with a header; cells stay text.

    Args:
        path: the file.
        columns: those the header must have.

    Raises:
        RunError: missing, unreadable, without a required column, or with a row of the wrong width.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), restkey="", restval=None)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise RunError(f"{path} must be CSV, but line {reader.line_num}: {error}") from None
    absent = [name for name in columns if name not in (reader.fieldnames or ())]
    if absent:
        raise RunError(f"{path} must have the columns {', '.join(columns)}, but lacks {absent[0]!r}")
    for number, row in enumerate(rows, 2):
        if "" in row or None in row.values():
            raise RunError(f"{path}: row {number} must be as wide as the header; it is damaged")
    return rows


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(f"{path} must be writable, but: {error.strerror}; free or name another folder")
