"""A stand-in for the daemon that verbs speak to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from standin import TOKEN, Reply, StandIn, job, schedule


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own, in a time zone whose clock changes."""
    monkeypatch.chdir(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in that the environment names, with a token."""
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(TOKEN)
    monkeypatch.setenv("AUTOSPARSE_TOKEN_FILE", str(file))
    with StandIn() as stand_in:
        monkeypatch.setenv("AUTOSPARSE_SERVER", stand_in.url)
        stand_in.on("POST", "/jobs", Reply(201, job("submitted")))
        stand_in.on("POST", "/schedules", Reply(201, schedule()))
        yield stand_in
