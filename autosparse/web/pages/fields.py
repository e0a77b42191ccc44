"""What forms ask for, how they are read, and beside which field an error stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from autosparse import models
from autosparse.config import JUDGED, ONE_SHOT, TRAIN_KINDS
from autosparse.daemon.watches import CRON
from autosparse.web.asking import JobAsked

A = TypeVar("A", bound=JobAsked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a form. An empty one says nothing: the default holds.

    Attributes:
        name: key of the setting or option.
        label: what people call it.
        hint: what may be written.
        choices: all that may be; empty where it is text.
        usual: which of them it is where none is chosen.
        known: values that are proposed.
        is_required: whether it must be filled.
        is_number: whether the option is a whole number.
    """

    name: str
    label: str
    hint: str = ""
    choices: tuple[str, ...] = ()
    usual: str = ""
    known: tuple[str, ...] = ()
    is_required: bool = False
    is_number: bool = False


MAIN = (
    Field(
        name="model",
        label="Model",
        hint="of the zoo, torchvision:NAME, timm:NAME or hf:ID",
        known=models.names(),
        is_required=True,
    ),
    Field(name="latency_budget", label="Latency budget", hint="such as 5ms; empty is the whole front"),
    Field(name="data", label="Data", hint="digits, or such as cifar10:ROOT/cifar", known=("digits",)),
    Field(
        name="train", label="Training", hint="of what is promoted", choices=TRAIN_KINDS, usual="short"
    ),
)
MORE = (
    Field(name="trials", label="Trials", hint="configurations to try"),
    Field(name="time_budget", label="Time budget", hint="of the whole run, such as 2h"),
    Field(name="dtype", label="Arithmetic", choices=("auto", "f32", "bf16"), usual="auto"),
    Field(name="threads", label="Threads", hint="of a timed run; every core"),
    Field(name="batch_size", label="Batch size", hint="samples per timed run; 1"),
    Field(name="judged", label="Judged in", hint="state of the host", choices=JUDGED, usual="worst"),
    Field(name="one_shot", label="Pruned by", hint="before training", choices=ONE_SHOT, usual="obs"),
    Field(name="top_k", label="Promoted", hint="configurations that are trained; 5"),
    Field(name="weights", label="Dense weights", hint="file, such as ROOT/dense.safetensors"),
    Field(name="space", label="Search space", hint="cpu, or such as ROOT/space.yaml"),
    Field(name="recipe", label="Recipe", hint="preset, or such as ROOT/recipe.yaml"),
    Field(name="seed", label="Seed", hint="0"),
    Field(name="since", label="Since", hint="finished run to take over from, or latest"),
)
JOB = (
    Field(name="label", label="Label", hint="a line of your own"),
    Field(name="priority", label="Priority", hint="-100 to 100; 0", is_number=True),
    Field(name="time_limit", label="Time limit", hint="such as 12h; none"),
    Field(name="hardware_id", label="Only on", hint="hardware id of a host; any"),
)
WHEN = (
    Field(
        name="cron",
        label="When",
        hint="minute, hour, day of month, month, day of week; 0 3 * * sun is Sundays at 03:00",
        is_required=True,
    ),
    Field(name="timezone", label="Time zone", hint="such as Europe/Berlin; UTC"),
    Field(name="name", label="Name", hint="empty makes one"),
    Field(
        name="catch_up",
        label="What was missed",
        hint="made up for once, or left out",
        choices=("once", "skip"),
        usual="once",
    ),
    Field(name="jitter", label="Jitter", hint="put off by up to, such as 10m; none"),
)
WATCH = (
    Field(
        name="artifact",
        label="Artifact",
        hint="file below a root, such as ROOT/model.autosparse",
        is_required=True,
    ),
    Field(name="latency_budget", label="Latency budget", hint="such as 5ms", is_required=True),
    Field(name="threads", label="Threads", hint="as many as it was made with"),
    Field(name="name", label="Name", hint="empty makes one"),
    Field(name="cron", label="When", hint=f"{CRON}, hourly"),
    Field(name="timezone", label="Time zone", hint="such as Europe/Berlin; UTC"),
)
_SETTINGS = tuple(field.name for field in (*MAIN, *MORE))
_OPTIONS = {field.name: field for field in JOB}
# How messages of those rules begin that name no key.
_SPOKEN = {
    "time limit": "time_limit",
    "a cron expression": "cron",
    "a time zone": "timezone",
    "a schedule's name": "name",
    "a model": "model",
    "a run": "since",
}
_CRON = re.compile(r"(?:minute|hour|day-of-month|month|day-of-week) of a cron expression\b")


class Refused(Exception):
    """A form cannot be meant.

    Attributes:
        errors: message by field; that of the whole form under the empty name.
    """

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(errors.values()))
        self.errors = dict(errors)


def read(shape: type[A], form: Mapping[str, str], verb: str, more: Sequence[str] = ()) -> A:
    """Reads a form as the same request that clients send.

    Args:
        shape: of the request.
        form: the fields.
        verb: that is asked for.
        more: fields of the form that are keys of the request.

    Raises:
        Refused: a field breaks its rule.
    """
    settings = {name: form[name] for name in _SETTINGS if form.get(name)}
    asked: dict[str, Any] = {name: form[name] for name in (*_OPTIONS, *more) if form.get(name)}
    for name, text in asked.items():
        if name in _OPTIONS and _OPTIONS[name].is_number:
            asked[name] = _number(text, name)
    try:
        return shape(verb=verb, settings=settings, **asked)
    except ValidationError as error:
        raise Refused(dict(_told({**each}) for each in error.errors())) from None


def beside(error: Exception, known: Iterable[str]) -> dict[str, str]:
    """Gives an error's message under the field that it is about; under no name if that is unclear."""
    message = str(error)
    names = {name.replace("_", " "): name for name in known} | {name: name for name in known} | _SPOKEN
    if _CRON.match(message):
        return {"cron": message}
    for spoken in sorted(names, key=len, reverse=True):
        if re.match(rf"(?:--)?{re.escape(spoken)}\b", message.replace("--", "", 1), re.IGNORECASE):
            return {names[spoken]: message}
    return {"": message}


def asked(
    form: Mapping[str, str], errors: Mapping[str, str], also: Sequence[Field] = ()
) -> dict[str, Any]:
    """Gives what a template needs to ask for a search as it was filled before.

    Args:
        form: what was filled.
        errors: message by field.
        also: fields that the template asks for beside those of a search.
    """
    touched = {name for name, text in form.items() if text} | errors.keys()
    return {
        "form": form,
        "errors": errors,
        "known": every(MAIN, MORE, JOB, also),
        "main": MAIN,
        "more": MORE,
        "options": JOB,
        "opens_more": any(field.name in touched for field in MORE),
        "opens_options": any(field.name in touched for field in JOB),
    }


def every(*groups: Sequence[Field]) -> tuple[str, ...]:
    """Gives the names of all fields of some groups."""
    return tuple(field.name for group in groups for field in group)


def _number(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise Refused({name: f"{name} must be a whole number, but got {text[:40]!r}"}) from None


def _told(error: Mapping[str, Any]) -> tuple[str, str]:
    """Gives the field that a request of ours finds wrong, and why."""
    names = [str(part) for part in error["loc"]]
    name = names[1] if names[0] == "settings" and len(names) > 1 else names[0]
    if error["type"] == "missing":
        return name, f"{name} must be given, but it is empty"
    said = str(error["msg"])
    return name, said if said.startswith(name) else f"{name}: {said[:1].lower()}{said[1:]}"
