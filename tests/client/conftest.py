"""A stand-in for a daemon, and a token that is known to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from standin import TOKEN, StandIn

from autosparse.client.daemon import Daemon


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the token."""
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(TOKEN)
    monkeypatch.setenv("AUTOSPARSE_TOKEN_FILE", str(file))
    return file


@pytest.fixture
def server(token: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in that the environment names."""
    with StandIn() as stand_in:
        monkeypatch.setenv("AUTOSPARSE_SERVER", stand_in.url)
        yield stand_in


@pytest.fixture
def waits() -> list[float]:
    """The waits between tries, in place of the time that they take."""
    return []


@pytest.fixture
def daemon(server: StandIn, waits: list[float]) -> Iterator[Daemon]:
    """A client of the stand-in that does not wait."""
    with Daemon(sleep=waits.append) as found:
        yield found
