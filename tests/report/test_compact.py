"""A run with compact weights says so on the page and on the terminal."""

from __future__ import annotations

from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from autosparse.report import build, summary, words
from autosparse.report.document import load


@pytest.mark.parametrize("compact", [False, True])
def test_page_and_summary_say_it(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, compact: bool
) -> None:
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "window.Plotly = {};")
    run = make_run(edit=lambda document: document.update(compact_weights=compact))
    page, text = unescape(build(run).read_text()), summary(load(run), width=200)
    assert (words.COMPACT_WEIGHTS in page) is compact
    assert (words.COMPACT_WEIGHTS in text) is compact


def test_runs_from_before_there_was_a_choice_had_none(make_run: Callable[..., Path]) -> None:
    assert not load(make_run()).compact_weights
