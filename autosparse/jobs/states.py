"""What a job can be, and what it can become."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from autosparse.errors import ExitCode


class State(StrEnum):
    """Where a job stands.

    `SUBMITTED` is stored, and nobody has looked at it; `WAITING` stands in line; `RUNNING` has an owner
    and a process. Of the others `STOPPED`, `FAILED` and `CANCELLED` can be put in line again and go on
    from their run's folder.
    """

    SUBMITTED = "submitted"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    INFEASIBLE = "infeasible"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"


_RESUMED = frozenset({State.WAITING})
NEXT: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.SUBMITTED: frozenset({State.WAITING, State.FAILED, State.CANCELLED}),
        State.WAITING: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),
        State.RUNNING: frozenset(
            {
                *(State.WAITING, State.DONE, State.INFEASIBLE),
                *(State.FAILED, State.CANCELLED, State.STOPPED),
            }
        ),
        State.DONE: frozenset(),
        State.INFEASIBLE: frozenset(),
        State.FAILED: _RESUMED,
        State.CANCELLED: _RESUMED,
        State.STOPPED: _RESUMED,
    }
)
"""What a job may become next."""

OPEN = (State.SUBMITTED, State.WAITING, State.RUNNING)
"""A job of these has its end before it."""

RESUMABLE = tuple(state for state in State if NEXT[state] == _RESUMED and state not in OPEN)
"""A job of these goes on where it was when it is asked to."""

_ENDS = {
    ExitCode.DONE: State.DONE,
    ExitCode.INFEASIBLE: State.INFEASIBLE,
    ExitCode.STOPPED: State.STOPPED,
    ExitCode.INTERRUPTED: State.STOPPED,
}


def state_of(exit_code: int) -> State:
    """Gives how a job ended whose process ended with an exit code."""
    return next((state for code, state in _ENDS.items() if code == exit_code), State.FAILED)
