"""What records check themselves by."""

from __future__ import annotations

from typing import Any

from autosparse.errors import UsageError
from autosparse.errors import got as shown


def require(condition: bool, rule: str, **got: Any) -> None:
    """Refuses values that break a rule.

    Raises:
        UsageError: the condition does not hold; names the rule and the values that it got.
    """
    if not condition:
        values = ", ".join(f"{name}={shown(value)}" for name, value in got.items())
        raise UsageError(f"{rule}, but got {values}")
