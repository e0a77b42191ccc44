"""Parts of a data set that stay in their files: decoded as they are handed out, by other processes.

Every sample is read where it lies, in any order, so that a pass is shuffled over all of them and can be
resumed at any batch. A crop is made as a picture is decoded, which then takes less work the smaller the
crop is kept; all else that varies an image is done on batches.
"""

from __future__ import annotations

import dataclasses
import io
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from autosparse.data import decode
from autosparse.data.boxes import Floats
from autosparse.data.conversion import recoloured
from autosparse.data.crew import Crew, default_workers
from autosparse.data.faulty import Faulty, tolerated
from autosparse.data.passes import Pass, Share, shares
from autosparse.data.raw import Augmentation
from autosparse.data.samples import Samples
from autosparse.data.split import AnySplit
from autosparse.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Samples to decode for one batch.

    Attributes:
        rows: which ones.
        crops: (4, b) numbers for random crops, None for centres.
    """

    rows: tuple[int, ...]
    crops: Floats | None


class Decoded(NamedTuple):
    """What became of a job.

    Attributes:
        images: (b, 3, side, side) uint8.
        labels: (b,) int64.
        faults: rows that could not be read, and why; others stand in for them.
    """

    images: Tensor
    labels: Tensor
    faults: list[tuple[int, str]]


class Decoder(Dataset[Decoded]):
    """Decodes jobs; runs in any process.

    Args:
        samples: what rows are of.
        side: height and width of images, pixels.
        margin: as `decode.centre` takes it.
        augmentation: ranges of crops.
    """

    def __init__(self, samples: Samples, side: int, margin: float, augmentation: Augmentation) -> None:
        self._samples = samples
        self._side = side
        self._margin = margin
        self._augmentation = augmentation

    def __getitem__(self, job: Job) -> Decoded:
        count, side = len(job.rows), self._side
        images = np.zeros((count, 3, side, side), np.uint8)
        labels = np.zeros(count, np.int64)
        faults: list[tuple[int, str]] = []
        for place, row in enumerate(job.rows):
            draws = None if job.crops is None else job.crops[:, place]
            # The next ones in the stored order stand in; if all fail there are too many for the caller.
            for other in range(min(tolerated(len(self._samples)) + 1, len(self._samples))):
                used = (row + other) % len(self._samples)
                try:
                    images[place] = self._image(used, draws)
                except Exception as problem:  # a border to readers of many formats: anything may come
                    faults.append((used, decode.why(problem)))
                    continue
                labels[place] = self._samples.listing.labels[self._samples.rows[used]]
                break
        return Decoded(torch.from_numpy(images), torch.from_numpy(labels), faults)

    def _image(self, row: int, draws: Floats | None) -> decode.Pixels:
        stream = io.BytesIO(self._samples.read(row))
        if draws is None:
            return decode.centre(stream, self._side, self._margin)
        return decode.crop(stream, self._side, draws, self._augmentation)


class StreamedSplit(AnySplit):
    """One part of a data set that is decoded anew in every pass.

    An image that cannot be read is named once in the log, and another of the split stands in for it,
    the same one in every pass; too many end the pass.

    Args:
        samples: where the images lie.
        side: height and width of images, pixels.
        channels: 3, or 1 for gray.
        mean: subtracted, per channel, from images in 0..1.
        std: divided by, per channel.
        augmentation: how `batches` varies images when asked to.
        margin: shorter side that an image is resized to before its centre is cut out, per `side`.
        workers: processes that decode, 0 for none but this one, None for one per usable core.
        name: what to call the part in messages.

    Raises:
        DataError: an argument is out of range.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        side: int,
        channels: int = 3,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augmentation: Augmentation,
        margin: float = 1.0,
        workers: int | None = None,
        name: str,
    ) -> None:
        for what, value, least in (("margin", margin, 1), ("workers", workers or 0, 0)):
            if value < least:
                raise DataError(f"{what} must be at least {least}, but got {value}")
        super().__init__(
            torch.from_numpy(samples.labels),
            side=side,
            unit=255.0,
            mean=mean,
            std=std,
            augmentation=augmentation,
        )
        self.samples = samples
        self._channels = channels
        self._workers = default_workers() if workers is None else workers
        self._decoder = Decoder(samples, side, margin, augmentation)
        self._faulty = Faulty(len(samples), name, log.warning)
        self._idle: Crew[Job, Decoded] | None = None

    def resident(self, device: str | torch.device) -> StreamedSplit:
        """Gives this one: its images fit nowhere."""
        del device
        return self

    def close(self) -> None:
        """Ends the processes that decode; a later pass starts others."""
        if self._idle is not None:
            self._idle.close()
        self._idle = None

    def _stored(
        self, asked: Pass, device: torch.device | None
    ) -> Iterator[tuple[Share, Tensor, Tensor]]:
        under_way: deque[Share] = deque()
        on_gpu = device is not None and device.type == "cuda"
        for images, labels, faults in self._decoded(asked, _jobs(asked, under_way), on_gpu):
            for row, reason in faults:
                self._faulty.add(self.samples.name(row), reason)
            images, share = recoloured(images, self._channels), under_way.popleft()
            if device is not None:
                images = images.to(device, non_blocking=True)
                labels = labels.to(device, non_blocking=True)
            yield share, images, labels

    def _decoded(self, asked: Pass, jobs: Iterator[Job], pinned: bool) -> Iterator[Decoded]:
        if self._workers == 0 or len(asked) <= 1:  # processes would take longer to start
            yield from map(self._decoder.__getitem__, jobs)
            return
        crew, self._idle = self._idle, None  # a second pass meanwhile gets a crew of its own
        if crew is None or crew.pinned != pinned:
            crew = Crew(self._decoder, self._workers, pinned=pinned)
        try:
            yield from crew.work(jobs)
        finally:
            if crew.usable:
                self._idle = crew


def _jobs(asked: Pass, under_way: deque[Share]) -> Iterator[Job]:
    """Gives the jobs of a pass, and notes for each what is left to do with what it makes."""
    for share in shares(asked):
        crops, draws = None, share.draws
        if draws is not None and draws.crop is not None:
            crops, draws = draws.crop.numpy(), dataclasses.replace(draws, crop=None)
        under_way.append(Share(rows=share.rows, draws=draws))
        yield Job(rows=tuple(share.numbers()), crops=crops)
