"""Daemons and jobs' processes are killed at any moment, and no job is lost, doubled or stuck.

`python -m tests.endurance daemon` does the same with thirty kills of each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from killing import survive


@pytest.mark.parametrize("daemons", [1, pytest.param(2, marks=pytest.mark.long)])
def test_every_job_ends_once(database_url: str, tmp_path: Path, daemons: int) -> None:
    killed = survive(
        database_url, tmp_path, jobs=8, kills=6, daemons=daemons, seed=daemons, limit_s=180
    )
    assert min(killed.values()) >= 6
