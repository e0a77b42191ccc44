"""Peers that misbehave on purpose, and made-up results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autosparse import hardware
from autosparse.compare.peer import Peer, Running, Unsupported, Variant
from autosparse.compare.records import (
    OURS,
    Asked,
    Comparison,
    Contestant,
    Memory,
    Rates,
    Ratio,
    Refusal,
    Result,
    Session,
    Subject,
)
from autosparse.compare.task import Task
from autosparse.measuring.stopwatch import python_runner
from autosparse.records import WholeLatency


def outputs_of(task: Task) -> Any:
    import torch

    with torch.inference_mode():
        return task.module()(task.tensor()).numpy()


def running(value: Any) -> Running:
    return Running(run=python_runner(lambda: None), outputs=lambda: [value])


def right(task: Task) -> Running:
    return running(outputs_of(task))


def slightly_off(task: Task) -> Running:
    value = np.array(outputs_of(task))
    value[0, 2] += 1e-3 * np.abs(value).max()
    return running(value)


def misshapen(task: Task) -> Running:
    return running(outputs_of(task)[:, 1:])


def refusing(task: Task) -> Running:
    raise ValueError("operator Foo is not known\nand much more of it")


def unsupported(task: Task) -> Running:
    raise Unsupported("this CPU has none of it")


def peer(**variants: tuple[str, Callable[[Task], Running]]) -> Peer:
    """Makes a peer named ``odd`` out of name to (type, opener)."""
    return Peer(
        name="odd",
        needs={},
        variants=tuple(
            Variant(name=name, dtype=dtype, open=opener) for name, (dtype, opener) in variants.items()
        ),
    )


def result(name: str, dtype: str, median_ms: float, engine: str = OURS, **changes: Any) -> Result:
    values: dict[str, Any] = {
        "contestant": Contestant(name=name, engine=engine, dtype=dtype),
        "error": 1e-6,
        "tolerance": 1e-4,
        "latency": WholeLatency(
            median_ms=median_ms,
            ci_low_ms=0.98 * median_ms,
            ci_high_ms=1.03 * median_ms,
            repeats=24,
            threads=1,
            batch_size=1,
            dtype=dtype,
            engine=engine,
        ),
        "turns_us": (1e3 * median_ms,) * 6,
        "ratios": {"f32": Ratio(over="other", median=2.0, ci_low=1.9, ci_high=2.1)},
        "rates": Rates(kept_gflops=50.0, dense_gflops=100.0, limit_gflops=200.0, limit_share=0.25),
        "memory": Memory(size_bytes=3 << 20, how="counted"),
    }
    return Result(**{**values, **changes})


def comparison(*results: Result, refused: tuple[Refusal, ...] = ()) -> Comparison:
    session = Session(threads=1, rounds=6, disturbed=(2,), results=results, refused=refused)
    return Comparison(
        asked=Asked(subject=Subject(model="<b>net</b>")),
        input_shape=(1, 3, 12, 12),
        dense_flops=1_000_000,
        hardware=hardware.describe(),
        versions={"autosparse": "0"},
        sessions=(session,),
    )
