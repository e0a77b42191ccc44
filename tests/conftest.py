"""Fixtures that every test gets."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps every test away from the user's tuning database and caches."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("AUTOSPARSE_HOME", str(home))
    return home
