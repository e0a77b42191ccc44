"""What requests look like: known keys alone, bounded in size, of the very types they say."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from autosparse.errors import UsageError, got
from autosparse.jobs.records import HIGHEST, LOWEST, MOST_RETRIES, JobOptions
from autosparse.jobs.verbs import VERBS
from autosparse.units import parse_duration_us

MOST_ID = 2**31 - 1
_MOST_SETTINGS = 100
_MOST_ITEMS = 1000
_LONGEST_TEXT = 4096
_MOST_NUMBER = 2**63
_LONGEST_JITTER_S = 7 * 86400.0
_LAST_YEAR = 9998
_EXAMPLE = "2026-01-31T03:00:00Z"


def _no_nul(text: str) -> str:
    """Refuses text that not every database takes."""
    if "\0" in text:
        raise ValueError("must hold no NUL character")
    return text


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT and "\0" not in value and _is_unicode(value)
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return abs(value) <= _MOST_NUMBER
    return isinstance(value, float) and math.isfinite(value)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False
    return True


def _setting(value: Any) -> Any:
    items = value if isinstance(value, list) else [] if value is None else [value]
    if len(items) > _MOST_ITEMS or not all(map(_is_plain, items)):
        raise ValueError(
            f"a setting must be text of at most {_LONGEST_TEXT} characters of Unicode, a finite "
            f"number, true, false, null, or a list of at most {_MOST_ITEMS} of those"
        )
    return value


def _is_no_path(name: str) -> str:
    if "/" in name or name in (".", ".."):
        raise ValueError("must hold no slash, as it is a part of paths")
    return name


_PLAIN = [
    {"type": "string", "maxLength": _LONGEST_TEXT},
    {"type": "number"},
    {"type": "boolean"},
]
Setting = Annotated[
    Any,
    AfterValidator(_setting),
    WithJsonSchema(
        {
            "anyOf": [
                *_PLAIN,
                {"type": "null"},
                {"type": "array", "maxItems": _MOST_ITEMS, "items": {"anyOf": _PLAIN}},
            ]
        }
    ),
]
Key = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_no_nul)]
Settings = Annotated[dict[Key, Setting], Field(max_length=_MOST_SETTINGS)]
Duration = Annotated[
    str, StringConstraints(min_length=1, max_length=32), Field(examples=["2h", "90s", "10m"])
]
Instant = Annotated[
    str,
    StringConstraints(min_length=20, max_length=40),
    Field(json_schema_extra={"format": "date-time"}, examples=[_EXAMPLE]),
]
Text = Annotated[str, StringConstraints(max_length=_LONGEST_TEXT), AfterValidator(_no_nul)]
Cron = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Timezone = Annotated[
    str, StringConstraints(min_length=1, max_length=64), Field(examples=["Europe/Berlin"])
]
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    AfterValidator(_no_nul),
    AfterValidator(_is_no_path),
]
Word = Annotated[str, StringConstraints(max_length=64, pattern=r"^[\x21-\x7e]*$")]


class Asking(BaseModel):
    """Base of all requests."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class JobTreated(Asking):
    """How a job is treated."""

    priority: int = Field(
        default=0, ge=LOWEST, le=HIGHEST, description="Of two that wait, the higher one runs first."
    )
    time_limit: Duration | None = Field(
        default=None, description="Time that its process may take before it is stopped."
    )
    retries: int = Field(
        default=3,
        ge=0,
        le=MOST_RETRIES,
        description="How often it is begun again when its process is killed.",
    )
    label: Annotated[str, StringConstraints(max_length=200), AfterValidator(_no_nul)] = Field(
        default="", description="A line of the submitter's own."
    )
    hardware_id: Word = Field(
        default="", description="The only kind of host that it may run on; empty is any."
    )

    def options(self) -> JobOptions:
        """Gives how the job is treated.

        Raises:
            UsageError: a value breaks its rule.
        """
        return JobOptions(
            priority=self.priority,
            time_limit_s=None if self.time_limit is None else _seconds(self.time_limit, "time limit"),
            retries=self.retries,
            label=self.label,
            hardware_id=self.hardware_id,
            not_before_s=self._not_before_s(),
        )

    def _not_before_s(self) -> float | None:
        return None


class JobAsked(JobTreated):
    """What a job shall do, and how it is treated."""

    verb: Word = Field(
        description="Of the command line, such as `search`.",
        examples=["search"],
        json_schema_extra={"enum": list(VERBS)},
    )
    settings: Settings = Field(
        default_factory=dict,
        description="Flags of the verb by their keys, with values as they would be typed: "
        "`latency_budget` is `5ms`. Files are named `ROOT/rest/of/path`.",
        examples=[{"model": "resnet18", "latency_budget": "5ms"}],
    )

    def plain_settings(self) -> dict[str, Any]:
        """Gives the settings as plain values."""
        return dict(self.settings)


class JobSubmitted(JobAsked):
    """A job to be done."""

    not_before: Instant | None = Field(default=None, description="When it may begin; null is at once.")

    def _not_before_s(self) -> float | None:
        return None if self.not_before is None else _epoch_s(self.not_before, "not_before")


class ScheduleAsked(JobAsked):
    """A job to be done again and again."""

    cron: Cron = Field(
        description="Minute, hour, day of the month, month and day of the week; or `@daily`.",
        examples=["0 3 * * sun"],
    )
    timezone: Timezone = Field(default="UTC", description="Whose clock it is about.")
    name: Name | None = Field(
        default=None,
        description="By which people know it, no other schedule's, and not a number; null makes one.",
    )
    catch_up: Literal["once", "skip"] = Field(
        default="once",
        description="What becomes of due times that nobody acted on in time: one job for all of them, "
        "or none.",
    )
    jitter: Duration | None = Field(
        default=None, description="By how much a job's start is put off at most, by a hash."
    )

    def jitter_s(self) -> float:
        """Gives by how much a job's start is put off at most.

        Raises:
            UsageError: no duration, or too long a one.
        """
        return 0.0 if self.jitter is None else read_jitter_s(self.jitter)


def read_jitter_s(text: str) -> float:
    """Reads by how much something is put off at most.

    Raises:
        UsageError: no duration, or too long a one.
    """
    found_s = _seconds(text, "jitter")
    if found_s > _LONGEST_JITTER_S:
        raise UsageError(f"jitter must be at most 7d, but got {got(text)}; write 10m")
    return found_s


def _seconds(text: str, what: str) -> float:
    return parse_duration_us(text, what=what, example="2h") / 1e6


def _epoch_s(text: str, what: str) -> float:
    """Reads a time with its offset from UTC as seconds since the epoch.

    Raises:
        UsageError: it is none.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or not 1970 < at.year <= _LAST_YEAR:
        raise UsageError(
            f"{what} must be a time of ISO 8601 with its offset from UTC, after 1970, but got "
            f"{got(text)}; write {_EXAMPLE}"
        )
    return at.timestamp()
