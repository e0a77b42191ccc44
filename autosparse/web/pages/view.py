"""Templates and what they are filled with: times, durations, and text that others chose."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response

from autosparse import factories
from autosparse.jobs.states import OPEN, RESUMABLE
from autosparse.report import words
from autosparse.web.pages.files import address_of
from autosparse.web.shapes import written

_TEMPLATES = Path(__file__).parent / "templates"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")
# What a terminal or a browser would act upon: control characters, and those that turn the direction.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_PILLS = {
    "running": "best",
    "done": "yes",
    "failed": "no",
    "infeasible": "no",
    "damaged": "no",
    "interrupted": "no",
}
_AS_TYPED = {True: "yes", False: "no", None: words.NONE}


def page(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """Answers with a page.

    Args:
        request: what is answered.
        template: its file.
        status: of HTTP.
        **context: what the template is filled with.
    """
    text = _environment().get_template(template).render(path=request.url.path, **context)
    # What a file or a request holds may be no text that UTF-8 has.
    return Response(
        text.encode(errors="replace"),
        status,
        media_type="text/html",
        # Without a referrer browsers say of forms that their origin is "null".
        headers={"Content-Security-Policy": POLICY, "Referrer-Policy": "same-origin"},
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        w=words, file=address_of, open_states=OPEN, resumable=RESUMABLE, number=number
    )
    environment.filters.update(
        time=time_element,
        span=span,
        about=about,
        shown=shown,
        plain=plain,
        pill=lambda state: _PILLS.get(str(state), ""),
        part=lambda name: quote(str(name), safe=""),
        value=value,
        glue=words.glue,
    )
    return environment


def time_element(at_s: float | None, seconds: bool = False) -> Markup:
    """Writes a time in UTC, with what the page's script needs to write it in the reader's zone."""
    if at_s is None:
        return Markup(words.NONE)
    exact = written(at_s)
    at = datetime.fromisoformat(exact).astimezone(UTC)
    text = f"{at:%Y-%m-%d %H:%M:%S UTC}" if seconds else f"{at:%Y-%m-%d %H:%M UTC}"
    parts = Markup(' data-seconds=""') if seconds else ""
    return Markup('<time datetime="{}"{}>{}</time>').format(exact, parts, text)


def span(seconds: float | None) -> str:
    """Writes a duration as people do: ``45 s``, ``12 min``, ``1 h 20 min``, ``3 d 4 h``."""
    if seconds is None:
        return words.NONE
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def about(seconds: float) -> str:
    """Writes what is only estimated: no finer than it can be meant."""
    if seconds < 60:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    return f"about {span(seconds)}"


def shown(name: str) -> str:
    """Writes a model's name: of a factory's file the name alone."""
    return plain(factories.shown(name))


def plain(text: object) -> str:
    """Gives text without what a terminal or a browser would act upon."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", _ESCAPES.sub("", str(text)))


def value(setting: object) -> str:
    """Writes a setting as it would be typed."""
    if isinstance(setting, list | tuple):
        return ", ".join(value(each) for each in setting) or words.NONE
    if isinstance(setting, bool) or setting is None:
        return _AS_TYPED[setting]
    if isinstance(setting, Mapping):
        return ", ".join(f"{plain(key)} {value(each)}" for key, each in setting.items())
    return plain(f"{setting:g}" if isinstance(setting, float) else setting)


def number(amount: float) -> str:
    """Writes a count, ``1 234`` or ``0.5``."""
    return f"{amount:,.6g}".replace(",", "\N{NO-BREAK SPACE}")


def lines(texts: list[str]) -> Markup:
    """Joins lines of text into one that is safe to be written as it is."""
    return Markup("\n").join(escape(plain(text)) for text in texts)
