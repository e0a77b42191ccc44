"""Where the trainings of a run go, and whether configurations share them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from autosparse.errors import UsageError
from autosparse.records.rules import require, require_at_least
from autosparse.train.placing import train_devices
from autosparse.train.tickets.sharing import REACH


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """Where several trainings of a run go, and whether some are spared.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``, as `train_devices` reads it.
        workers: processes that train one configuration together; of more than one, the configurations
            take turns.
        share_reach: largest difference of the mean sparsity of configurations that share one
            training, see `tickets.sharing.group_by_training`; None trains each by itself.
    """

    device: str = "auto"
    workers: int = 1
    share_reach: float | None = None

    def __post_init__(self) -> None:
        require_at_least(1, self, "workers")
        reach = self.share_reach
        require(reach is None or 0 <= reach <= 1, "share reach must lie in [0, 1]", reach=reach)

    @classmethod
    def of(cls, device: str, workers: int, *, share: bool, reach: float | None) -> Arrangement:
        """Puts together what was asked for.

        Raises:
            UsageError: a reach although nothing is shared, or a value out of its range.
        """
        if reach is not None and not share:
            raise UsageError(
                f"a reach is of trainings that are shared, but none are and it is {reach:g}; add "
                "--share-training, or leave --share-reach out"
            )
        return cls(
            device=device,
            workers=workers,
            share_reach=(REACH if reach is None else reach) if share else None,
        )

    def places(self) -> Iterator[str]:
        """Gives a device for each training, endlessly.

        Raises:
            UsageError: see `train_devices`; also if several workers shall share one GPU.
        """
        devices = train_devices(self.device)
        if self.workers == 1:
            return itertools.cycle(devices)
        if ":" in self.device:
            raise UsageError(
                f"several workers must have a GPU each, but got {self.device} for {self.workers} of "
                "them; write cuda, or train with one worker"
            )
        return itertools.repeat(devices[0].partition(":")[0])
