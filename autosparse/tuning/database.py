"""The tuning database, as the rest of autosparse sees it."""

from __future__ import annotations

from autosparse.tuning.table import TuningDatabase
from autosparse.tuning.transfer import Transfer, export_rows, import_rows, list_rows, merge
from autosparse.tuning.upkeep import Garbage, Verification, collect_garbage, verify

__all__ = [
    "Garbage",
    "Transfer",
    "TuningDatabase",
    "Verification",
    "collect_garbage",
    "export_rows",
    "import_rows",
    "list_rows",
    "merge",
    "verify",
]
