"""Progress on stderr: plain lines for logs, bars for terminals, events on disk."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress

from autosparse.cli.bars import Bars, PlainLines, end_line, progress_sink, time_left_s
from autosparse.progress import Progress, ProgressEvent
from autosparse.run_folders.event_log import EventLog


def event(
    kind: str, at_s: float, done: float = 0.0, total: float | None = 10.0, **rest: str
) -> ProgressEvent:
    return ProgressEvent(kind=kind, step="measuring", done=done, total=total, at_s=at_s, **rest)  # type: ignore[arg-type]


def test_time_left_follows_the_mean_speed() -> None:
    assert time_left_s(2, 10, 4.0) == pytest.approx(16.0)
    assert time_left_s(0, 10, 4.0) is None
    assert time_left_s(3, None, 4.0) is None
    assert time_left_s(12, 10, 4.0) == 0.0


def test_plain_lines_come_at_most_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    sink = PlainLines()
    sink(event("start", 0.0))
    for second in range(1, 25):
        sink(event("advance", float(second), done=second / 4))
    sink(event("end", 30.0, done=10))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "measuring: 2.5/10, about 30 s left",
        "measuring: 5/10, about 20 s left",
        "measuring: done in 30 s",
    ]


def test_a_step_that_begins_anew_has_a_new_speed(capsys: pytest.CaptureFixture[str]) -> None:
    sink = PlainLines()
    sink(event("start", 0.0))
    for at_s, done in ((20.0, 8.0), (100.0, 0.0), (120.0, 4.0)):
        sink(event("advance", at_s, done=done))
    assert capsys.readouterr().err.splitlines() == [
        "measuring: 8/10, about 5 s left",
        "measuring: 0/10",
        "measuring: 4/10, about 30 s left",
    ]


def test_short_steps_are_not_worth_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    sink = PlainLines()
    sink(event("start", 0.0))
    sink(event("advance", 0.5, done=10))
    sink(event("end", 1.0, done=10))
    assert capsys.readouterr().err == ""


def test_a_step_that_was_cut_short_says_so() -> None:
    assert end_line(event("end", 60.0, done=4), 0.0) == "measuring: ended at 4/10 after 1 min"


def test_bars_show_open_steps_and_leave_a_line_behind() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=False, width=200)
    with RichProgress(console=console, auto_refresh=False) as shown:
        bars = Bars(shown, console)
        bars(event("start", 0.0))
        bars(event("advance", 1.0, done=4, message="conv1"))
        [task] = shown.tasks
        assert (task.completed, task.total, task.fields["message"]) == (4, 10, "conv1")
        bars(event("advance", 2.0, done=1))  # it has begun anew
        assert shown.tasks[0].completed == 1
        bars(event("log", 1.0, message="[a decision]"))
        bars(event("end", 5.0, done=10))
        assert shown.tasks == []
        bars(event("advance", 6.0, done=1))  # a late event of a step that has ended
    assert "[a decision]" in stream.getvalue()
    assert "measuring: done in 5 s" in stream.getvalue()


def test_quiet_listens_to_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_sink(quiet=True) as sink:
        Progress(sink).log("psst")
    assert capsys.readouterr().err == ""


def test_without_a_terminal_there_are_no_bars() -> None:
    with progress_sink(quiet=False) as sink:
        assert isinstance(sink, PlainLines)


def test_event_log_keeps_one_advance_a_second(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "events.jsonl"
    log = EventLog(path)
    log(event("start", 0.0))
    for tick in range(1, 31):
        log(event("advance", tick / 10, done=tick))
    log(event("log", 3.05, message="half way"))
    log(event("end", 3.1, done=30))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["start", "advance", "advance", "advance", "log", "end"]
    assert lines[1] == {"at_s": 0.1, "kind": "advance", "step": "measuring", "done": 1, "total": 10.0}
    assert lines[4]["message"] == "half way"


def test_event_log_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"at_s": 1, "kind": "log"}\n{"at_s": 2, "ki')
    EventLog(path)(event("end", 3.0))
    assert [json.loads(line)["at_s"] for line in path.read_text().splitlines()] == [1, 3.0]
