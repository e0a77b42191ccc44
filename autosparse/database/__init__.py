"""The tuning database: one row per measurement, keyed by everything that can change a latency.

table       rows put and got
schema      the layout, and how older ones are brought up to date (migrations/)
transfer    export, import and merge
upkeep      garbage collection and self-check
staleness   how many rows of every device are current, and why others are not
current     what rows are of now
"""

from __future__ import annotations

from autosparse.database.staleness import Freshness, freshness
from autosparse.database.table import Stale, TuningDatabase
from autosparse.database.transfer import Transfer, export_rows, import_rows, list_rows, merge
from autosparse.database.upkeep import Garbage, Verification, collect_garbage, verify

__all__ = [
    "Freshness",
    "Garbage",
    "Stale",
    "Transfer",
    "TuningDatabase",
    "Verification",
    "collect_garbage",
    "export_rows",
    "freshness",
    "import_rows",
    "list_rows",
    "merge",
    "verify",
]
