"""Run folders: one search, one folder, one process at a time.

    results/<utc>-<model>-<hardware_id8>/
      state.json          what the run is and how far it came
      lock                held by the process at work; the kernel lets go when that process dies
      config.yaml  hardware.json  latency_table.csv  trials.csv  pareto.csv  pareto.json
      configs/<id>.yaml  train/<id>/  logs/  report.html
    results/latest        link to the newest run

A `RunFolder` is the right to work on a run: it exists exactly as long as the lock is held. Everybody
else reads, through `list_runs`, `find_run`, `find_finished` and `show`.
"""

from __future__ import annotations

from autosparse.run_folders.folder import RunFolder
from autosparse.run_folders.listing import (
    find_finished,
    find_of_job,
    find_run,
    find_unfinished,
    list_runs,
    remove_run,
    show,
    summarize,
)
from autosparse.run_folders.shelf import LATEST, slug
from autosparse.run_folders.state import RunState, RunSummary
from autosparse.storage.files import (
    append_jsonl,
    read_json,
    read_jsonl,
    read_rows_csv,
    write_json,
    write_rows_csv,
    write_text,
    write_yaml,
)

__all__ = [
    "LATEST",
    "RunFolder",
    "RunState",
    "RunSummary",
    "append_jsonl",
    "find_finished",
    "find_of_job",
    "find_run",
    "find_unfinished",
    "list_runs",
    "read_json",
    "read_jsonl",
    "read_rows_csv",
    "remove_run",
    "show",
    "slug",
    "summarize",
    "write_json",
    "write_rows_csv",
    "write_text",
    "write_yaml",
]
