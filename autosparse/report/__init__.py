"""From a run folder to something a person reads: report.html, pareto.csv, a summary on a terminal.

Everything comes from the run's files, so a report can be built anywhere, any number of times, and the
same files give the same bytes.
"""

from __future__ import annotations

from autosparse.report.page import build
from autosparse.report.text import summary

__all__ = ["build", "summary"]
