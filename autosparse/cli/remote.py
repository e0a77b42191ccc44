"""What verbs share that speak to a daemon: flags, numbers of jobs, and times as people read them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from autosparse.errors import AutosparseError, ConfigError, UsageError, got

if TYPE_CHECKING:
    from autosparse.client.daemon import Daemon

PANEL = "The daemon"
_LOCALTIME, _NAME = Path("/etc/localtime"), Path("/etc/timezone")
_ZONES = "zoneinfo/"
_MOST_DIGITS = 18
_COMPLETED = 50
# A shell that asks for completions waits for them.
_COMPLETING_S = 0.5


def open_daemon(server: str | None) -> Daemon:
    """Gives the daemon that is named, or that the environment names.

    Raises:
        AutosparseError: it cannot be spoken to.
    """
    from autosparse.client.address import find_address
    from autosparse.client.daemon import Daemon  # brings httpx

    return Daemon(find_address(server))


def _jobs(incomplete: str) -> Iterator[str]:
    from autosparse.client.daemon import Daemon  # only when a shell asks for completions

    try:
        with Daemon(connect_s=_COMPLETING_S, sleep=lambda seconds: None) as daemon:
            known = daemon.jobs(limit=_COMPLETED)
    except AutosparseError:
        return
    for job in known:
        if str(job.id).startswith(incomplete):
            yield str(job.id)


Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        help="Address of the daemon (default: AUTOSPARSE_SERVER, else http://127.0.0.1:8337).",
        show_default=False,
        metavar="",
    ),
]
Number = Annotated[str, typer.Argument(help="Number of the job.", metavar="ID", autocompletion=_jobs)]
MaybeNumber = Annotated[
    str | None, typer.Argument(help="Number of one job.", metavar="ID", autocompletion=_jobs)
]
Numbers = Annotated[
    list[str], typer.Argument(help="Numbers of jobs.", metavar="ID...", autocompletion=_jobs)
]


def number(text: str) -> int:
    """Reads the number of a job.

    Raises:
        UsageError: it is none.
    """
    stripped = text.strip()
    if not (stripped.isascii() and stripped.isdecimal() and 0 < len(stripped) <= _MOST_DIGITS):
        raise UsageError(
            f"a job must be named by its number, but got {got(text)}; see autosparse status"
        )
    return int(stripped)


def shown_settings(settings: Mapping[str, Any]) -> str:
    """Words the settings of a verb in one line."""
    return "  ".join(f"{key}={_shown_value(value)}" for key, value in settings.items())


def _shown_value(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


# --------------------------------------------------------------------------------------------- times


def own_timezone() -> str:
    """Gives the name of this machine's time zone: of TZ, or of the file that the system keeps.

    Raises:
        ConfigError: it has no name.
    """
    named = os.environ.get("TZ", "").removeprefix(":")
    if named:
        name = named.rpartition(_ZONES)[2]
        if _zone(name) is None:
            raise _no_timezone(f"TZ is {got(named)}")
        return name
    if not _LOCALTIME.exists():
        return "UTC"  # as the C library has it
    name = os.path.realpath(_LOCALTIME).rpartition(_ZONES)[2].removeprefix("posix/")
    if _zone(name) is None:  # a copy of the file, which has lost its name
        name = _NAME.read_text(errors="replace").strip() if _NAME.is_file() else ""
    if _zone(name) is None:
        raise _no_timezone(f"{_LOCALTIME} does not say its name")
    return name


def _no_timezone(why: str) -> ConfigError:
    return ConfigError(
        f"a schedule needs the name of a time zone, but {why}; write --timezone Europe/Berlin"
    )


def _zone(name: str | None) -> tzinfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def shown_time(text: str | None, timezone: str | None = None) -> str:
    """Words a time of an answer on this machine's clock, or on that of a time zone."""
    if not text:
        return "-"
    try:
        at = datetime.fromisoformat(text)
        local = at.astimezone(_zone(timezone) if timezone else None)
    except (ValueError, OverflowError, OSError):
        return text
    if timezone:
        return f"{local:%a %Y-%m-%d %H:%M %z}"
    return f"{local:%Y-%m-%d %H:%M:%S}"


def epoch_s(text: str) -> float | None:
    """Gives a time of an answer as seconds since the epoch; None if it is none."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at.timestamp() if at.tzinfo is not None else None


def as_utc(text: str, name: str) -> str:
    """Reads a time that was typed, on this machine's clock unless it says its offset, as UTC.

    Raises:
        ConfigError: it is no time.
    """
    try:
        at = datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise ConfigError(
            f"{name} must be a date and time, but got {got(text)}; write 2026-01-31T03:00, or with its "
            "offset from UTC 2026-01-31T03:00+01:00"
        ) from None
    return f"{at:%Y-%m-%dT%H:%M:%S}Z"
