"""Schedules: what is sent, time zones, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from standin import Reply, StandIn, problem, schedule

from autosparse.cli import remote, run
from autosparse.errors import ConfigError

CRON = "0 3 * * sun"


Captured = pytest.CaptureFixture[str]


def sent(server: StandIn, path: str = "/jobs") -> Any:
    (asked,) = server.asked("POST", path)
    return asked.body


@pytest.mark.parametrize(
    "words",
    [
        [
            "--timezone",
            "UTC",
            "--jitter",
            "10m",
            CRON,
            "tune",
            "--model",
            "resnet18",
            "--priority",
            "3",
        ],
        [CRON, "--timezone", "UTC", "tune", "--jitter=10m", "--priority=3", "-m", "resnet18"],
        ["--priority", "3", "--", CRON, "tune", "-mresnet18", "--jitter", "10m", "--timezone", "UTC"],
        [CRON, "-m", "resnet18", "--timezone=UTC", "--jitter", "10m", "--priority", "3", "tune"],
    ],
)
def test_flags_of_a_schedule_stand_anywhere(server: StandIn, words: list[str]) -> None:
    assert run(["schedule", "add", *words]) == 0
    assert sent(server, "/schedules") == {
        "cron": CRON,
        "timezone": "UTC",
        "verb": "tune",
        "settings": {"model": "resnet18"},
        "jitter": "10m",
        "priority": 3,
    }


@pytest.mark.parametrize("cron", ["- 3 * * *", "--1 3 * * *", "-m 3 * * *", "@daily", "", "-q 1 2 3 4"])
def test_a_cron_expression_is_the_servers_to_judge(
    server: StandIn, cron: str, capsys: Captured
) -> None:
    server.on("POST", "/schedules", problem(422, "minute of a cron expression must be 0 to 59", 2))
    assert run(["schedule", "add", cron, "tune", "--model", "resnet18"]) == 2
    assert sent(server, "/schedules")["cron"] == cron
    assert "minute of a cron expression must be" in capsys.readouterr().err


@pytest.mark.parametrize("cron", ["-", "-1", "--model", "--", "-h"])
def test_after_two_dashes_anything_is_a_cron_expression(server: StandIn, cron: str) -> None:
    run(["schedule", "add", "--", cron, "tune", "--model", "resnet18"])
    assert [each.body["cron"] for each in server.asked("POST", "/schedules")] == [cron]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tune", "--model", "x"], "must stand before the verb"),
        (["tune"], "must stand before the verb"),
        (["--timezone", "UTC"], "must stand before the verb"),
        ([CRON], "a verb must be named"),
        ([CRON, "--timezone", "UTC"], "a verb must be named"),
        ([CRON, "tnue"], "did you mean tune?"),
        (["-1", "tune"], "got -1"),
        ([CRON, "--timzone", "UTC", "tune"], "did you mean --timezone?"),
        ([CRON, "tune", "--wait"], "got --wait"),
        ([CRON, "tune", "--not-before", "2026-01-31"], "got --not-before"),
        (["0", "3", "*", "*", "sun", "tune"], "a verb must be one of"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_refused(
    server: StandIn, words: list[str], said: str, capsys: Captured
) -> None:
    assert run(["schedule", "add", *words]) == 2
    assert said in capsys.readouterr().err
    assert not server.seen


def test_the_time_zone_is_this_machines_and_is_told(server: StandIn, capsys: Captured) -> None:
    assert run(["schedule", "add", CRON, "tune"]) == 0
    assert sent(server, "/schedules")["timezone"] == "Europe/Berlin"
    assert capsys.readouterr().out == (
        "schedule 3 (nightly): At 03:00 on Sunday in Europe/Berlin, the time zone of this machine\n"
        "next: Sun 2026-02-01 03:00 +0100\n"
    )


@pytest.mark.parametrize(
    ("tz", "name"),
    [
        (":Europe/Berlin", "Europe/Berlin"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        ("UTC", "UTC"),
    ],
)
def test_a_time_zone_that_tz_names(monkeypatch: pytest.MonkeyPatch, tz: str, name: str) -> None:
    monkeypatch.setenv("TZ", tz)
    assert remote.own_timezone() == name


@pytest.mark.parametrize("tz", ["CET-1CEST", "../../etc/passwd", "nowhere", "Mars/Base"])
def test_a_time_zone_without_a_name_has_to_be_given(monkeypatch: pytest.MonkeyPatch, tz: str) -> None:
    monkeypatch.setenv("TZ", tz)
    with pytest.raises(ConfigError, match="--timezone"):
        remote.own_timezone()


@pytest.mark.parametrize(
    ("made", "named", "found"),
    [
        ("link", None, "America/St_Johns"),
        ("copy", "Asia/Kolkata\n", "Asia/Kolkata"),
        ("copy", None, None),
        ("copy", "nonsense", None),
        ("none", None, "UTC"),
    ],
)
def test_a_time_zone_that_the_system_keeps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: str, named: str | None, found: str | None
) -> None:
    monkeypatch.delenv("TZ")
    local, name = tmp_path / "localtime", tmp_path / "timezone"
    zone = tmp_path / "zoneinfo" / "America" / "St_Johns"
    zone.parent.mkdir(parents=True)
    zone.write_bytes(b"TZif")
    if made == "link":
        local.symlink_to(zone)
    elif made == "copy":
        local.write_bytes(b"TZif")
    if named is not None:
        name.write_text(named)
    monkeypatch.setattr(remote, "_LOCALTIME", local)
    monkeypatch.setattr(remote, "_NAME", name)
    if found is None:
        with pytest.raises(ConfigError, match="--timezone"):
            remote.own_timezone()
    else:
        assert remote.own_timezone() == found


def test_schedules_are_listed_shown_paused_resumed_removed(server: StandIn, capsys: Captured) -> None:
    paused = schedule(id=4, name="4th", enabled=False, next_at=None)
    server.gives("/schedules", {"items": [schedule(), paused]})
    server.gives("/schedules/3/next", {"items": ["2026-03-29T01:00:00Z", "2026-10-25T02:00:00Z"]})
    server.gives("/schedules/4/next", {"items": []})
    server.on("POST", "/schedules/3/pause", Reply(body=paused))
    server.on("POST", "/schedules/4/resume", Reply(body=schedule(id=4, name="4th")))
    server.on("DELETE", "/schedules/3", Reply(204))
    said = {
        "list": "nightly",
        "show nightly": "At 03:00 on Sunday",
        "show 3": "resnet18",
        "next 3 -n 2": "Sun 2026-03-29 03:00 +0200\nSun 2026-10-25 03:00 +0100\n",
        "next 4th": "is paused",
        "pause nightly": "is paused",
        "resume 4": "is due next Sun 2026-02-01 03:00 +0100",
        "remove nightly": "schedule 3 (nightly) is removed",
    }
    for words, text in said.items():
        assert run(["schedule", *words.split()]) == 0, words
        assert text in capsys.readouterr().out, words
        assert run(["schedule", *words.split(), "--json"]) == 0, words
        assert json.loads(capsys.readouterr().out), words


def test_a_schedule_that_does_not_exist_names_the_nearest(server: StandIn, capsys: Captured) -> None:
    server.gives("/schedules", {"items": [schedule()]})
    for verb in ("show", "next", "pause", "resume", "remove"):
        assert run(["schedule", verb, "nightli"]) == 2
        assert "did you mean nightly?" in capsys.readouterr().err
    assert {each.method for each in server.seen} == {"GET"}
