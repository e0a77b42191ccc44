"""One pass over a split, worked out before an image is touched: which rows, varied by which numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from autosparse.data.augment import Draws, draw
from autosparse.data.raw import Augmentation
from autosparse.errors import DataError

_SEED_STRIDE = 1_000_003  # a prime: keeps the seeds of (epoch, batch) pairs apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What was asked of `batches`.

    Attributes:
        batch_size: examples per batch, of all ranks together.
        length: examples of the split.
        count: how many of them are handed out, to all ranks together.
        shuffle_seed: decides the order and the draws; None keeps the stored order.
        first_batch: where to start.
        rank: which share of every batch.
        world: into how many shares a batch is divided.
        augmentation: how images are varied, None for not at all.
        side: height of an image, pixels.
    """

    batch_size: int
    length: int
    count: int
    shuffle_seed: int | None
    first_batch: int
    rank: int
    world: int
    augmentation: Augmentation | None
    side: int

    def __len__(self) -> int:
        return max(0, -(-self.count // self.batch_size) - self.first_batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A rank's part of one batch.

    Attributes:
        rows: the examples.
        draws: what varies them, None for nothing.
    """

    rows: slice | Tensor
    draws: Draws | None

    def numbers(self) -> list[int]:
        """Gives the rows one by one."""
        rows = self.rows
        return list(range(rows.start, rows.stop)) if isinstance(rows, slice) else rows.tolist()


def planned(
    length: int,
    side: int,
    augmentation: Augmentation | None,
    *,
    batch_size: int,
    shuffle_seed: int | None,
    limit: int | None,
    drop_last: bool,
    first_batch: int,
    shard: tuple[int, int],
) -> Pass:
    """Checks what was asked for.

    Args:
        length: examples of the split.
        side: height of an image, pixels.
        augmentation: how images shall be varied, None for not at all.
        batch_size: as `AnySplit.batches` takes it, and so for the rest.
        shuffle_seed: likewise.
        limit: likewise.
        drop_last: likewise.
        first_batch: likewise.
        shard: likewise.

    Raises:
        DataError: an argument is out of range.
    """
    for name, value in (("batch_size", batch_size), ("limit", 1 if limit is None else limit)):
        if value < 1:
            raise DataError(f"{name} must be at least 1, but got {value}")
    if augmentation is not None and shuffle_seed is None:
        raise DataError("augment needs a shuffle_seed, but got None; give each epoch its own")
    if first_batch < 0:
        raise DataError(f"first_batch must be at least 0, but got {first_batch}")
    rank, world = shard
    if not 0 <= rank < world:
        raise DataError(
            f"shard must be a rank from 0 on and a greater number of ranks, but got {shard}; "
            "take (0, 1) for whole batches"
        )
    count = length if limit is None else min(limit, length)
    return Pass(
        batch_size=batch_size,
        length=length,
        count=count - count % batch_size if drop_last else count,
        shuffle_seed=shuffle_seed,
        first_batch=first_batch,
        rank=rank,
        world=world,
        augmentation=augmentation,
        side=side,
    )


def shares(asked: Pass) -> Iterator[Share]:
    """Gives the share of every batch, in order; nothing of it depends on the number of ranks."""
    order, seed = None, asked.shuffle_seed
    if seed is not None:
        order = torch.randperm(asked.length, generator=torch.Generator().manual_seed(seed))
    for start in range(asked.first_batch * asked.batch_size, asked.count, asked.batch_size):
        size = min(asked.batch_size, asked.count - start)
        own = slice(asked.rank * size // asked.world, (asked.rank + 1) * size // asked.world)
        rows = slice(start + own.start, start + own.stop)
        draws = None
        if asked.augmentation is not None and seed is not None:
            mixed = (seed * _SEED_STRIDE + start // asked.batch_size + 1) % 2**63
            generator = torch.Generator().manual_seed(mixed)
            draws = draw(asked.augmentation, size, asked.side, generator).of(own)
        yield Share(rows=rows if order is None else order[rows], draws=draws)
