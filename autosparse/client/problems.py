"""Which error an answer stands for that says no."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from autosparse.client.address import VARIABLE
from autosparse.errors import (
    AutosparseError,
    ExitCode,
    MissingDependency,
    NoValidConfiguration,
    Stopped,
    UsageError,
)

_UNKNOWN_TOKEN = 401
_NOT_FOUND = 404
_AWAY = (502, 503, 504)
_OF_CODE: Mapping[int, type[AutosparseError]] = MappingProxyType(
    {
        ExitCode.USAGE: UsageError,
        ExitCode.NO_CONFIGURATION: NoValidConfiguration,
        ExitCode.STOPPED: Stopped,
        ExitCode.MISSING: MissingDependency,
    }
)


class Unreachable(MissingDependency):
    """No daemon answers; one may later."""


class NoDaemon(UsageError):
    """Something answers that is no daemon of autosparse."""


class NotFound(UsageError):
    """The daemon has nothing by that number or name."""


def unreachable(url: str, why: str) -> Unreachable:
    """Words that nothing answers."""
    return Unreachable(
        f"a daemon must answer at {url}, but: {why}; start one by `autosparse serve`, or name its "
        f"address in {VARIABLE}"
    )


def no_daemon(url: str, why: str) -> NoDaemon:
    """Words that what answers is something else."""
    return NoDaemon(
        f"a daemon of autosparse must answer at {url}, but {why}; name its address in {VARIABLE}"
    )


def is_away(status: int) -> bool:
    """Tells whether a status says that the daemon, or what it needs, may be back soon."""
    return status in _AWAY


def of_problem(url: str, status: int, problem: Any, token_file: str) -> AutosparseError:
    """Gives the error of an answer in problem details (RFC 9457).

    Args:
        url: of the daemon.
        status: of the answer.
        problem: its content.
        token_file: whose token was shown.
    """
    if status == _UNKNOWN_TOKEN:
        return UsageError(
            f"the token must be the one of the daemon at {url}, but it does not know that in "
            f"{token_file}; name the daemon's own file in AUTOSPARSE_TOKEN_FILE"
        )
    held = problem if isinstance(problem, Mapping) else {}
    detail = str(held.get("detail") or held.get("title") or f"it answered with status {status}")
    if is_away(status):
        return Unreachable(f"the daemon at {url} cannot work now: {detail}")
    code = held.get("exit_code")
    if status == _NOT_FOUND:
        return NotFound(detail)
    if isinstance(code, int) and code in _OF_CODE:
        return _OF_CODE[code](detail)
    if status < 500:
        return UsageError(detail)
    return AutosparseError(f"the daemon at {url} failed: {detail}; its log says more")
