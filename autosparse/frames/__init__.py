"""Runs and measurements as pandas DataFrames and Plotly figures, for people who work in Python.

Reading only. Units stand in the names of columns (``latency_ms``, ``median_us``); accuracies and
sparsities are fractions in [0, 1]; times are time-zone aware; what is not known is missing, never 0.
"""

from __future__ import annotations

from autosparse.frames.run import Run
from autosparse.frames.shelf import runs
from autosparse.frames.tuning import tuning_rows

__all__ = ["Run", "runs", "tuning_rows"]
