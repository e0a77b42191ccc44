"""What else ran on the host while something was timed.

Four witnesses, each of something that the others cannot see: other processes of this system, a
hypervisor that gives a processor to somebody else, our own threads that were ready and had to wait, and
processors that do less than they were seen to do, for whatever reason (`autosparse.measuring.pace`).

On a host that is never quiet, `AUTOSPARSE_BUSY_HOST=accept` takes its measurements for good ones, and
repeats none.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from autosparse.storage.serial import Record, added

PROC = Path("/proc")
_VARIABLE = "AUTOSPARSE_BUSY_HOST"

# Shares of the time, from which on medians of what is timed move by more than their intervals.
MOST_FOREIGN = 0.05
MOST_STOLEN = 0.02
MOST_WAITING = 0.02
LEAST_RATE = 0.9
# The system counts processors' time in hundredths of a second: of less than this it tells nothing.
_LEAST_S = 0.5


def is_busy_accepted() -> bool:
    """Whether the user takes measurements of a busy host for good ones."""
    return os.environ.get(_VARIABLE) == "accept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions(Record):
    """What the host was like during a measurement; None where it does not tell.

    Attributes:
        foreign_share: time that other processes took, over the time of all processors.
        stolen_share: time that the hypervisor gave to others, over the time of all processors.
        waiting_share: time in which the measuring process's threads were ready but had no processor,
            over its time.
        rate_share: what the processors in use did over what they can, where nothing could be timed
            while they did all that they can.
        device: what disturbed the device that was measured, where it is none of the processors; empty
            if nothing did.
    """

    foreign_share: float | None = None
    stolen_share: float | None = None
    waiting_share: float | None = None
    rate_share: float | None = None
    device: str = added("")

    @property
    def why_disturbed(self) -> str:
        """What disturbed the measurement; empty if nothing did, or if the user takes a busy host."""
        found = []
        if is_busy_accepted():
            return ""
        if self.device:
            found.append(self.device)
        if (self.foreign_share or 0.0) > MOST_FOREIGN:
            found.append(f"other processes took {self.foreign_share:.0%} of all processors' time")
        if (self.stolen_share or 0.0) > MOST_STOLEN:
            found.append(f"the hypervisor took {self.stolen_share:.0%} of all processors' time")
        if (self.waiting_share or 0.0) > MOST_WAITING:
            found.append(f"threads waited {self.waiting_share:.0%} of the time for a processor")
        if self.rate_share is not None and self.rate_share < LEAST_RATE:
            found.append(
                f"the processors did {self.rate_share:.0%} of what they can: somebody else used them"
            )
        return "; ".join(found)


QUIET = Conditions()
"""Nothing is known to have run beside."""


@dataclass(frozen=True, slots=True)
class _Clocks:
    """Seconds, as the system counts them up."""

    at: float
    own: float
    busy: float
    stolen: float
    waiting: float | None


class Watch:
    """Watches the host from construction on, through the counters of this process and its system.

    Args:
        proc: where the system keeps them.
    """

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._begun = _read(proc)

    def conditions(self, *, rate_share: float | None = None) -> Conditions:
        """Gives what the host was like since then.

        Args:
            rate_share: as in `Conditions`, measured meanwhile by who can.
        """
        now, then = _read(self._proc), self._begun
        if now is None or then is None:
            return Conditions(rate_share=rate_share)
        seconds = now.at - then.at
        foreign = stolen = waiting = None
        if now.waiting is not None and then.waiting is not None and seconds > 0:
            waiting = max(0.0, now.waiting - then.waiting) / seconds
        if seconds >= _LEAST_S:
            all_s = seconds * (os.cpu_count() or 1)
            foreign = max(0.0, (now.busy - then.busy) - (now.own - then.own)) / all_s
            stolen = max(0.0, now.stolen - then.stolen) / all_s
        return Conditions(
            foreign_share=foreign,
            stolen_share=stolen,
            waiting_share=waiting,
            rate_share=rate_share,
        )


def _read(proc: Path) -> _Clocks | None:
    """Reads all counters; None on a system without them."""
    try:
        first = (proc / "stat").read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return None
    ticks = [float(value) / os.sysconf("SC_CLK_TCK") for value in first[1:]] + [0.0] * 8
    user, nice, system, _, _, interrupts, soft, stolen = ticks[:8]
    return _Clocks(
        at=time.monotonic(),
        own=time.process_time(),
        busy=user + nice + system + interrupts + soft,
        stolen=stolen,
        waiting=_waiting_s(proc),
    )


def _waiting_s(proc: Path) -> float | None:
    """Gives the seconds that this process's living threads were ready without a processor."""
    total = 0
    try:
        for thread in (proc / "self" / "task").iterdir():
            total += int((thread / "schedstat").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return total / 1e9
