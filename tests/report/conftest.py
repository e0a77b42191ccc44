"""A function that writes made-up runs, for every test of the report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from made_up_run import RunWriter, write_run


@pytest.fixture
def make_run(tmp_path: Path) -> RunWriter:
    """A function that writes a run folder into the test's own folder."""

    def make(**options: Any) -> Path:
        return write_run(tmp_path / f"r{len(list(tmp_path.iterdir()))}", **options)

    return make
