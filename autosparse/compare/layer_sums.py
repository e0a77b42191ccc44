"""The layers of a contestant of ours: inside whole runs, and alone as the tuner timed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autosparse import hardware
from autosparse.compare.own_engine import OwnModel
from autosparse.compare.records import LayerSum, LayerTime
from autosparse.engine import LayerReport
from autosparse.records import LayerShape, Measurement, Status
from autosparse.tuning.database import TuningDatabase

_RUNS = 50


class TunedRows:
    """The tuner's rows for one type, thread count and measurement policy.

    Args:
        database: where they are.
        dtype: arithmetic type.
        threads: worker threads.
        policy: identifier of the policy that took them.
    """

    def __init__(self, database: TuningDatabase, dtype: str, threads: int, policy: str) -> None:
        rows = database.rows(
            hardware_id=hardware.hardware_id(),
            dtype=dtype,
            threads=threads,
            policy=policy,
            status=str(Status.OK),
        )
        self._rows: dict[tuple[str, str], list[Measurement]] = {}
        for row in rows:
            if database.is_current(row):
                self._rows.setdefault((row.key.shape, row.key.kernel), []).append(row)

    def alone_us(self, layer: LayerReport) -> float | None:
        """Gives the row of a layer's very kernel and structure; None without one."""
        if layer.shape is None:
            return None
        for row in self._rows.get((layer.shape.key, layer.kernel), ()):
            if row.key.kept == _kept(layer.shape, layer):
                return row.median_us
        return None


def _kept(shape: LayerShape, layer: LayerReport) -> int:
    if layer.pattern == "dense":
        return -1
    return round((1 - layer.sparsity) * shape.in_channels)


def measure(
    model: OwnModel, rows: TunedRows, measured_us: float
) -> tuple[tuple[LayerTime, ...], LayerSum | None]:
    """Times the operators of a compiled model, and compares the tuner's sum with the measured whole.

    Args:
        model: compiled or loaded.
        rows: what the tuner knows.
        measured_us: the whole, measured in turn with others.

    Returns:
        Every layer, and the sum; no sum where no layer has a row.
    """
    operators = model.measure_operators(_RUNS)
    times = tuple(
        LayerTime(
            name=layer.name,
            shape=layer.shape.key if layer.shape else "",
            pattern=layer.pattern,
            sparsity=layer.sparsity,
            kernel=layer.kernel,
            inside_us=operators.get(layer.name, 0.0),
            alone_us=rows.alone_us(layer),
        )
        for layer in model.layers
    )
    return times, add_up(times, operators, measured_us)


def add_up(
    layers: Sequence[LayerTime], operators_us: Mapping[str, float], measured_us: float
) -> LayerSum | None:
    """Adds up rows, and what has none as it was timed inside the whole; None without any row."""
    tuned = {layer.name: layer for layer in layers if layer.alone_us is not None}
    if not tuned:
        return None
    overheads = {name: us for name, us in operators_us.items() if name not in tuned}
    tuned_us = sum(layer.alone_us or 0.0 for layer in tuned.values())
    predicted_us = tuned_us + sum(overheads.values())
    return LayerSum(
        tuned_us=tuned_us,
        inside_us=sum(layer.inside_us for layer in tuned.values()),
        overheads_us=overheads,
        predicted_us=predicted_us,
        measured_us=measured_us,
        ratio=predicted_us / measured_us,
        untuned=tuple(layer.name for layer in layers if layer.name in overheads),
    )
