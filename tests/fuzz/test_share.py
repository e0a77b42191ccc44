"""A small share of `python -m tests.fuzz`, the same in every run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_nothing_typed_or_written_ends_in_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seed", "2", "--count", "240"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "0 of 240 cases of seed 2 failed" in done.stdout
