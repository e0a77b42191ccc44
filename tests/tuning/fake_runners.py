"""Runners for the measuring process that misbehave on purpose, and one with made-up latencies."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Any

from autosparse.errors import DeviceLost


def scripted(job: dict[str, Any]) -> dict[str, Any]:
    """Does what the job says."""
    match job["do"]:
        case "echo":
            return {"value": job["value"], "pid": os.getpid()}
        case "affinity":
            return {
                "processors": sorted(os.sched_getaffinity(0)),
                "blas": os.environ["OMP_NUM_THREADS"],
            }
        case "print":
            print("noise on standard output", flush=True)
            os.write(1, b"{noise from native code}\n")
            return {}
        case "raise":
            raise ValueError("no such tile")
        case "hang":
            time.sleep(600)
        case "hang in native code":
            ctypes.CDLL(None).sleep(600)
        case "crash":
            print("about to crash", file=sys.stderr, flush=True)
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "lose the device":
            raise DeviceLost("the GPU answers nothing more")
        case "environment":
            return {"value": os.environ.get(job["value"])}
    raise AssertionError(job)


def true_us(kernel: str, shape: dict[str, Any], kept: int) -> float:
    """Gives a kernel's made-up latency: its share of 100 GFLOP/s in whole vectors, plus the call."""
    pixels = shape["in_height"] * shape["in_width"]
    if "_px" in kernel:
        pixels = -(-pixels // 16) * 16
    taps = shape["kernel"][0] * shape["kernel"][1]
    flops = 2 * shape["out_channels"] * pixels * taps * (shape["in_channels"] if kept < 0 else kept)
    core = (kernel, shape["in_channels"], shape["in_height"])
    share = 0.3 + 0.6 * (zlib.crc32(repr(core).encode()) % 1000) / 1000
    if "avx2" in kernel or "generic" in kernel:
        share *= 0.2
    return flops / (100e3 * share) + 1.0


def synthetic(job: dict[str, Any]) -> dict[str, Any]:
    """Measures nothing: tells made-up latencies, notes every job, and fails where it was told to.

    The first folder of the module path holds `synthetic.json` with log, seconds and failures, after how
    many jobs the host changes from one of its states into the other, and for how long it stays away.
    """
    settings = json.loads((Path(sys.path[0]) / "synthetic.json").read_text())
    log_file = Path(settings["log"])
    before = len(log_file.read_text().splitlines()) if log_file.exists() else 0
    kept = -1
    if job["pattern"]["group_out"]:
        inputs = job["shape"]["in_channels"]
        kept = inputs - int(job["sparsity"] * inputs + 1e-9)
    with log_file.open("a") as log:
        print(job["kernel"], kept, job["shape"]["in_channels"], job["shape"]["residual"], file=log)
    time.sleep(settings["seconds"])
    for part, failure in settings["failures"].items():
        if part in job["kernel"]:
            return (
                {"status": failure} if failure in ("wrong", "unstable") else scripted({"do": failure})
            )
    us = true_us(job["kernel"], job["shape"], kept)
    beaten = job["rival_us"] is not None and us * 0.99 > job["rival_us"]
    return {
        "status": "ok",
        "median_us": us,
        "ci_low_us": us * 0.99,
        "ci_high_us": us * 1.01,
        "repeats": 6 if beaten else 20,
        "beaten": beaten,
        "state": state_of(job, before, settings),
    }


def state_of(job: dict[str, Any], jobs: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Gives the state that a job was done in: the host's, or the wanted one if it waits for that."""
    if settings.get("changes_after") is None:
        return {}
    label = ("shared", "apart")[jobs // settings["changes_after"] % 2]
    if job["state"] and job.get("patience_s", 0) > settings["away_s"]:
        label = job["state"]
    return {"label": label, "handover_ns": {"shared": 60.0, "apart": 230.0}[label]}
