"""What another engine's model adds to a process: its resident set before and at its highest.

Measured in a process of its own that has imported the engine and nothing else of the comparison; an
engine that reads a file does without torch. What the engine loads late, such as code that it generates,
is part of the figure: whoever deploys the model pays for it too.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from autosparse.compare.peer import find
from autosparse.compare.records import Memory, Subject
from autosparse.compare.task import Task
from autosparse.records import Record
from autosparse.workers.worker import Worker

RUNNER = "autosparse.compare.memory:run"
HOW = "growth of the resident set, from the engine imported to the model running, process of its own"
_RUNS = 5
_HUNG_S = 600.0
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): sets the peak to the present resident set


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryJob(Record):
    """One variant of one peer, on the dense model."""

    peer: str
    variant: str
    subject: Subject
    shape: tuple[int, ...]
    threads: int
    folder: str


def measure(job: MemoryJob) -> Memory:
    """Measures in a process of its own; a failure is a figure that is not given, with its reason."""
    reason = find(job.peer).why_no_memory
    if reason:
        return Memory(size_bytes=None, how=reason)
    with Worker(RUNNER, library_threads=None) as worker:
        answer = worker.call(job.to_json(), _HUNG_S)
    if answer.outcome is None:
        return Memory(size_bytes=None, how=f"its own process ended with {answer.message}")
    return Memory.from_json(answer.outcome)


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Measures in this process, as plain values: what the child process is called with."""
    return _grown(MemoryJob.from_json(values)).to_json()


def _grown(job: MemoryJob) -> Memory:
    peer = find(job.peer)
    variant = next(each for each in peer.variants if each.name == job.variant)
    task = Task(job.subject, job.shape, job.threads, Path(job.folder))
    for module in peer.needs:
        if not (peer.reads_file and module == "onnx"):  # needed to write the file, not to read it
            importlib.import_module(module)
    if not peer.reads_file:
        _settle_torch(job)
    before = psutil.Process(os.getpid()).memory_info().rss
    running = variant.open(task)
    reset = _reset_peak()
    running.run(_RUNS)
    peak = _peak_bytes()
    running.close()
    if not reset or peak is None:
        return Memory(size_bytes=None, how="this system does not tell the peak of a resident set")
    return Memory(size_bytes=max(0, peak - before), how=HOW)


def _settle_torch(job: MemoryJob) -> None:
    """Imports what builds models, so that only the model itself is counted."""
    import torch

    import autosparse.models

    torch.set_num_threads(job.threads)
    importlib.import_module(f"{autosparse.models.__name__}.loading")


def _reset_peak() -> bool:
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _peak_bytes() -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [line for line in lines if line.startswith("VmHWM:")]
    return int(found[0].split()[1]) * 1024 if found else None
