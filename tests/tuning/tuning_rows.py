"""Rows to fill tuning databases with."""

from __future__ import annotations

from typing import Any

from autosparse.records import Measurement, MeasurementKey, Status

HASHES = {"fast": "h-fast", "slow": "h-slow"}


def hashes() -> dict[str, str]:
    return dict(HASHES)


def key(**changes: Any) -> MeasurementKey:
    values = {
        "hardware_id": "cpu-a",
        "kernel": "fast",
        "kernel_hash": "h-fast",
        "shape": "conv2d_b1",
        "pattern": "1x16",
        "kept": 16,
        "config": "",
        "dtype": "f32",
        "threads": 1,
        "policy": "p",
    }
    return MeasurementKey(**{**values, **changes})


def row(median_us: float | None = 100.0, **changes: Any) -> Measurement:
    status = changes.pop("status", Status.OK if median_us is not None else Status.CRASHED)
    own = {
        name: changes.pop(name) for name in ("measured_at", "message", "sparsity") if name in changes
    }
    return Measurement(
        key=key(**changes),
        status=status,
        median_us=median_us,
        ci_low_us=None if median_us is None else median_us * 0.98,
        ci_high_us=None if median_us is None else median_us * 1.03,
        repeats=0 if median_us is None else 20,
        **{"sparsity": 0.75, **own},
        flops_kept=3_000_000_000,
        version="0.1.0",
    )
