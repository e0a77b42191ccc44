"""Compiling with rows measured for this very model, and holding rows to what whole programs say."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from autosparse.database import TuningDatabase
from autosparse.devices import AUTO
from autosparse.devices.device import Device, find
from autosparse.engine.compiled import CompiledModel
from autosparse.engine.contest import Verdict, contest
from autosparse.engine.measured import MeasuredRows
from autosparse.engine.select import ways
from autosparse.graph import Graph, Op, layer_nodes, layers
from autosparse.measuring import limits
from autosparse.patterns import parse_pattern
from autosparse.progress import Progress
from autosparse.records import DENSE, Measurement, onexn
from autosparse.tuning.in_place import Structure, row_inside, tune_in_place
from autosparse.tuning.request import TuneRequest, dense_weight_bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Where the rows of a compilation lie, and whose they are; `compact_weights` as in `compile`."""

    database: TuningDatabase | str | None
    threads: int
    dtype: str
    compact_weights: bool = False

    @contextmanager
    def opened(self) -> Iterator[TuningDatabase]:
        """Opens the database, and makes it where there is none yet."""
        if isinstance(self.database, TuningDatabase):
            yield self.database
            return
        with TuningDatabase(self.database) as opened:
            yield opened

    def measured(
        self, database: TuningDatabase | None, weight_bytes: int | None, state: str | None = None
    ) -> MeasuredRows:
        """Gives the rows, read anew, as `MeasuredRows` chooses them; of no database there are none."""
        return MeasuredRows(
            database,
            self.threads,
            self.dtype,
            compact_weights=self.compact_weights,
            weight_bytes=weight_bytes,
            state=state,
        )


Make = Callable[[MeasuredRows], CompiledModel]


def compile_tuned(
    graph: Graph, make: Make, rows: Rows, budget_us: float | None, progress: Progress
) -> tuple[CompiledModel, Verdict]:
    """Times the kernels of a model's own layers, and compiles with the rows or without.

    Args:
        graph: the model, fused; the executor runs all of it.
        make: compiles it with rows.
        rows: where they go to.
        budget_us: no row is begun after so much time; None times none, and compares with what is there.
        progress: told of all that is done, and asked whether to stop.

    Returns:
        What is not slower than compiled without rows, as far as an interleaved comparison can tell.
    """
    device = find(AUTO, limits.profile(progress=progress))
    known = layers(graph)
    request = TuneRequest(
        layers=known,
        patterns=(),
        sparsities=(),
        threads=rows.threads,
        dtype=rows.dtype,
        model_weight_bytes=dense_weight_bytes(known, rows.dtype),
        time_budget_us=budget_us,
        dense_anyway=False,
        compact_weights=rows.compact_weights,
    )
    weight_bytes = request.model_weight_bytes
    state = device.history(rows.threads).usual
    with rows.opened() as database:
        if budget_us is not None:
            found = tune_in_place(request, structures(graph), device, database, progress=progress)
            logger.info(
                "%d rows measured in %.1f s, %d known", found.timed, found.seconds, found.reused
            )
            state = found.state
        rule = make(rows.measured(None, weight_bytes))
        model, verdict = contest(
            lambda: make(rows.measured(database, weight_bytes, state)),
            rule,
            lambda times, timed: _rows_of(times, timed, request, device, state),
            lambda made: database.put_all(made, replace=True),
            progress,
            threads=rows.threads,
            state=state,
        )
    logger.info("%s", verdict.describe())
    return model, verdict


def structures(graph: Graph) -> list[Structure]:
    """Gives every way in which the layers of a graph, with the zeros that they have, can be stored."""
    return [
        Structure(layer.shape, DENSE, 0.0)
        if way.structure is None
        else Structure(layer.shape, onexn(way.structure.block_n), way.sparsity)
        for node, layer in layer_nodes(graph)
        if node.op is Op.CONV and layer.shape is not None
        for way in ways(node)
    ]


def _rows_of(
    times_ns: Mapping[str, NDArray[Any]],
    model: CompiledModel,
    request: TuneRequest,
    device: Device,
    state: str,
) -> list[Measurement]:
    """Makes rows of what layers took inside a model.

    Layers of equal keys share one: the slowest, so that nothing is chosen for what it did elsewhere.
    """
    made: dict[Any, Measurement] = {}
    for layer in model.layers:
        if layer.name not in times_ns or layer.shape is None or layer.kernel == "builtin":
            continue
        # Rows are kept of uniform structures, which stand for layer-wide ones as well.
        pattern = dataclasses.replace(parse_pattern(layer.pattern), uniform=True)
        row = row_inside(
            Structure(layer.shape, pattern, layer.sparsity),
            layer.kernel,
            times_ns[layer.name],
            request,
            device,
            state,
        )
        before = made.get(row.key)
        if before is None or (before.median_us or 0.0) < (row.median_us or 0.0):
            made[row.key] = row
    return list(made.values())
