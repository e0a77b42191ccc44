"""What the tuning database knows of one layer: the fastest kernel per structure, near its sparsity."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from autosparse import hardware
from autosparse.errors import DatabaseError, RunError
from autosparse.kernels.compact import expanding_kernels
from autosparse.records import LayerShape, Measurement, Pattern, Status
from autosparse.tuning.database import TuningDatabase

logger = logging.getLogger(__name__)

# Rows are taken at a grid of sparsities and weights come as they are. A row this far off still tells
# which kernel is fastest: what sets kernels apart is the shape and N more than a few blocks per group.
NEAREST = 0.07


@dataclass(frozen=True, slots=True)
class Found:
    """The fastest measured kernel for a structure.

    Attributes:
        row: its row.
        rivals: kernels measured for that structure and sparsity, itself included.
    """

    row: Measurement
    rivals: int

    @property
    def median_us(self) -> float:
        """Its median latency."""
        return self.row.median_us or 0.0


class MeasuredRows:
    """Rows of one host, thread count and type, read once per layer shape.

    Args:
        database: where they are; None for no rows at all.
        threads: worker threads.
        dtype: arithmetic type.
        note: why there is no database, or empty.
        compact_weights: passes over rows of kernels that expand weights.
    """

    def __init__(
        self,
        database: TuningDatabase | None,
        threads: int,
        dtype: str = "f32",
        note: str = "",
        *,
        compact_weights: bool = False,
    ) -> None:
        self.note = note
        self._left_out = expanding_kernels() if compact_weights else frozenset()
        self._dtype = dtype
        self._database = database
        self._threads = threads
        self._cache: dict[str, list[Measurement]] = {}

    @classmethod
    def open(
        cls,
        database: TuningDatabase | str | None,
        threads: int,
        dtype: str = "f32",
        *,
        compact_weights: bool = False,
    ) -> Self:
        """Opens a database by URL; None opens the user's default one if there is one.

        Raises:
            DatabaseError: a database that was named cannot be read.
        """
        if database is not None:
            named = TuningDatabase(database, create=False) if isinstance(database, str) else database
            return cls(named, threads, dtype, compact_weights=compact_weights)
        try:
            own = TuningDatabase(None, create=False)
            return cls(own, threads, dtype, compact_weights=compact_weights)
        except (DatabaseError, RunError) as error:
            logger.info("no measured rows: %s", error)
            return cls(None, threads, dtype, note=str(error))

    def fastest(self, shape: LayerShape, pattern: Pattern, sparsity: float) -> Found | None:
        """Gives the fastest current kernel for a structure, from the rows nearest to `sparsity`.

        Args:
            shape: the layer.
            pattern: dense or 1xN; rows of uniform and layer-wide structures serve both.
            sparsity: fraction of pruned blocks.
        """
        rows = [row for row in self._rows(shape) if _same_blocks(row.key.pattern, pattern)]
        if not rows:
            return None
        distance = min(abs(row.sparsity - sparsity) for row in rows)
        if distance > NEAREST:
            return None
        near = _newest(row for row in rows if abs(row.sparsity - sparsity) <= distance + 1e-9)
        return Found(min(near, key=lambda row: (row.median_us or 0.0, row.key.kernel)), len(near))

    def _rows(self, shape: LayerShape) -> list[Measurement]:
        if self._database is None:
            return []
        if shape.key not in self._cache:
            rows = self._database.rows(
                hardware_id=hardware.hardware_id(),
                shape=shape.key,
                dtype=self._dtype,
                threads=self._threads,
                status=str(Status.OK),
            )
            self._cache[shape.key] = [
                row
                for row in rows
                if row.key.kernel not in self._left_out and self._database.is_current(row)
            ]
        return self._cache[shape.key]


def _same_blocks(name: str, pattern: Pattern) -> bool:
    uniform = name.removesuffix("-layerwide")
    return uniform == pattern.name.removesuffix("-layerwide")


def _newest(rows: Iterable[Measurement]) -> list[Measurement]:
    """Keeps the latest row per kernel and configuration, whatever policy took it."""
    groups: dict[tuple[str, str], list[Measurement]] = defaultdict(list)
    for row in rows:
        groups[row.key.kernel, row.key.config].append(row)
    return [max(group, key=lambda row: row.measured_at) for group in groups.values()]
