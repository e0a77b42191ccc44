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
