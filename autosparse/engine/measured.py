"""What the tuning database knows of one layer: the fastest kernel per structure, near its sparsity."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from autosparse import hardware
from autosparse.database import TuningDatabase
from autosparse.errors import DatabaseError, PlanError, RunError
from autosparse.kernels.compact import expanding_kernels
from autosparse.measuring.stopwatch import LAYERS
from autosparse.patterns import family_of, parse_pattern
from autosparse.records import LayerShape, Measurement, Pattern, Status

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

    Rows are compared within one measurement policy and one state of the host. Of several the policy for
    a model of this size counts, else the one with most rows; then the state with most rows.

    Args:
        database: where they are; None for no rows at all.
        threads: worker threads.
        dtype: arithmetic type.
        note: why there is no database, or empty.
        compact_weights: passes over rows of kernels that expand weights.
        weight_bytes: dense weights of the model, which decide how cold a layer's are; None if unknown.
        state: state of the host that counts where there are rows of it; None takes any.
        hardware_id: of the device whose rows count; None is this host's processor.
    """

    def __init__(
        self,
        database: TuningDatabase | None,
        threads: int,
        dtype: str = "f32",
        note: str = "",
        *,
        compact_weights: bool = False,
        weight_bytes: int | None = None,
        state: str | None = None,
        hardware_id: str | None = None,
    ) -> None:
        self.note = note
        self._hardware_id = hardware_id
        self._left_out = expanding_kernels() if compact_weights else frozenset()
        self._dtype = dtype
        self._database = database
        self._threads = threads
        self._policy = LAYERS.for_model(weight_bytes).id if weight_bytes else ""
        self._state = state
        self._cache: dict[str, list[Measurement]] = {}

    @classmethod
    def open(
        cls,
        database: TuningDatabase | str | None,
        threads: int,
        dtype: str = "f32",
        *,
        compact_weights: bool = False,
        weight_bytes: int | None = None,
        hardware_id: str | None = None,
    ) -> Self:
        """Opens a database by URL; None opens the user's default one if there is one.

        Raises:
            DatabaseError: a database that was named cannot be read.
        """
        opened, note = None, ""
        if database is not None:
            opened = TuningDatabase(database, create=False) if isinstance(database, str) else database
        else:
            try:
                opened = TuningDatabase(None, create=False)
            except (DatabaseError, RunError) as error:
                logger.info("no measured rows: %s", error)
                note = str(error)
        return cls(
            opened,
            threads,
            dtype,
            note,
            compact_weights=compact_weights,
            weight_bytes=weight_bytes,
            hardware_id=hardware_id,
        )

    def fastest(self, shape: LayerShape, pattern: Pattern, sparsity: float) -> Found | None:
        """Gives the fastest current kernel for a structure, from the rows nearest to `sparsity`.

        Args:
            shape: the layer.
            pattern: dense or sparse; rows of all patterns of its contract serve, uniform or not.
            sparsity: fraction of pruned blocks.
        """
        rows = [row for row in self._rows(shape) if _same_contract(row.key.pattern, pattern)]
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
                hardware_id=hardware.hardware_id() if self._hardware_id is None else self._hardware_id,
                shape=shape.key,
                dtype=self._dtype,
                threads=self._threads,
                status=str(Status.OK),
            )
            usable = [
                row
                for row in rows
                if row.key.kernel not in self._left_out and self._database.is_current(row)
            ]
            self._cache[shape.key] = _comparable(usable, self._policy, self._state)
        return self._cache[shape.key]


def _comparable(rows: Iterable[Measurement], policy: str, state: str | None) -> list[Measurement]:
    """Gives the rows of one policy, if possible the one that is named, and of one state of the host."""
    groups: dict[tuple[str, str], list[Measurement]] = defaultdict(list)
    for row in rows:
        groups[row.key.policy, row.key.state].append(row)
    return max(
        groups.values(),
        key=lambda group: (
            group[0].key.policy == policy,
            group[0].key.state == state,
            len(group),
            max(row.measured_at for row in group),
        ),
        default=[],
    )


def _same_contract(name: str, pattern: Pattern) -> bool:
    """Whether a row's pattern runs on the kernels that a pattern needs, and so as fast."""
    try:
        known = parse_pattern(name)
    except PlanError:
        return False  # of a family that this build lacks
    return family_of(known).contract(known) == family_of(pattern).contract(pattern)


def _newest(rows: Iterable[Measurement]) -> list[Measurement]:
    """Keeps the latest row per kernel and configuration."""
    groups: dict[tuple[str, str], list[Measurement]] = defaultdict(list)
    for row in rows:
        groups[row.key.kernel, row.key.config].append(row)
    return [max(group, key=lambda row: row.measured_at) for group in groups.values()]
