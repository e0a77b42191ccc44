"""Several loaded models at once: what each takes beside the others, over what it takes alone.

    python benchmarks/side_by_side.py --models 2 --threads 1

As a server runs them: each model from a thread, or from a process, of its own, again and again.
1.0 is a model that the others do not disturb; two that share a processor take twice as long.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import autosparse


def artifact(folder: Path, model: str, image: Sequence[int]) -> Path:
    import torch

    from autosparse import models

    path = folder / "model.autosparse"
    autosparse.export(models.resolve(model).module.eval(), (torch.randn(*image),), path)
    return path


def run_again_and_again(
    path: Path, threads: int, pin: bool, seconds: float, start: Callable[[], Any]
) -> list[float]:
    """Gives the milliseconds of every call after `start` and a warm-up."""
    with autosparse.load(path, threads=threads, pin=pin) as model:
        x = np.zeros(model.manifest.inputs[0].shape, np.float32)
        for _ in range(3):
            model(x)
        start()
        taken_ms, end = [], time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            model(x)
            taken_ms.append((time.perf_counter() - begin) * 1e3)
    return taken_ms


def in_threads(count: int, path: Path, threads: int, pin: bool, seconds: float) -> list[float]:
    barrier, medians = threading.Barrier(count), []

    def call() -> None:
        taken = run_again_and_again(path, threads, pin, seconds, barrier.wait)
        medians.append(statistics.median(taken))

    callers = [threading.Thread(target=call) for _ in range(count)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return medians


def _child(path: Path, threads: int, pin: bool, seconds: float, barrier: Any, results: Any) -> None:
    results.put(statistics.median(run_again_and_again(path, threads, pin, seconds, barrier.wait)))


def in_processes(count: int, path: Path, threads: int, pin: bool, seconds: float) -> list[float]:
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(count), spawn.Queue()
    arguments = (path, threads, pin, seconds, barrier, results)
    children = [spawn.Process(target=_child, args=arguments) for _ in range(count)]
    for child in children:
        child.start()
    medians = [results.get() for _ in children]
    for child in children:
        child.join()
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image", default="1x3x224x224", help="extents of the input")
    parser.add_argument("--models", type=int, default=2, help="how many run at once")
    parser.add_argument("--threads", type=int, default=1, help="worker threads of each")
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = artifact(Path(folder), options.model, [int(n) for n in options.image.split("x")])
        print(
            f"{options.models} x {options.model}, {options.threads} threads each; median ms of a call"
        )
        print(f"{'':<24}{'alone':>9}{'slowest beside':>16}{'ratio':>8}")
        for name, runner in (("threads", in_threads), ("processes", in_processes)):
            for pin in (True, False):
                rest = (path, options.threads, pin, options.seconds)
                [alone], beside = runner(1, *rest), max(runner(options.models, *rest))
                label = f"{name}, {'pinned' if pin else 'not pinned'}"
                print(f"{label:<24}{alone:>9.2f}{beside:>16.2f}{beside / alone:>8.2f}")


if __name__ == "__main__":
    main()
