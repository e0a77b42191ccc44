"""Fixtures that every test gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that ask for it are skipped without one."""
    named = os.environ.get("AUTOSPARSE_DATA")
    if not named:
        pytest.skip("AUTOSPARSE_DATA does not name a folder with the real data")
    return Path(named)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps every test away from the user's tuning database and caches."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("AUTOSPARSE_HOME", str(home))
    return home
