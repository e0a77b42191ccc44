"""Lets the tests of the search, and processes they start, import the recorded table's helpers."""

from __future__ import annotations

import sys
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
