"""Runners for the measuring process that misbehave on purpose, and one with made-up latencies."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any


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
    raise AssertionError(job)
