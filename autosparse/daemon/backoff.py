"""How long a job waits before it is begun again."""

from __future__ import annotations

FIRST_S = 10.0
LONGEST_S = 3600.0


def wait_s(failures: int, first_s: float = FIRST_S) -> float:
    """Gives how long to wait after so many failures: twice as long after each, an hour at most."""
    return min(first_s * 2.0 ** max(0, failures - 1), LONGEST_S)
