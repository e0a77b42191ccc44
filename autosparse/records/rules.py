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


def require_at_least(least: int, record: object, *names: str) -> None:
    """Refuses fields of a record below a bound.

    Raises:
        UsageError: one of them is below; names it and its value.
    """
    for name in names:
        value = getattr(record, name)
        require(value >= least, f"{name} must be at least {least}", **{name: value})
