"""Training images varied a batch at a time: what is drawn, and what it does to pixels.

Random numbers are drawn on the processor for a whole batch, so that neither the device nor the number
of processes that share a batch changes one of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from autosparse.data.boxes import Box, Floats, box
from autosparse.data.conversion import LUMINANCE
from autosparse.data.raw import Augmentation

_ERASED_AREA = (0.02, 1 / 3)
_ERASED_RATIO = (0.3, 10 / 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Random numbers for the images of a batch; None for what an augmentation does not do.

    Attributes:
        shift: (2, b) position of the window in the padded image, rows and columns.
        flip: (b,) whether it is mirrored.
        crop: (4, b) in [0, 1), as `box` takes them.
        colours: (3, b) factors of brightness, contrast and saturation.
        erase: (5, b) in [0, 1): whether, and four as `box` takes them.
    """

    shift: Tensor | None = None
    flip: Tensor | None = None
    crop: Tensor | None = None
    colours: Tensor | None = None
    erase: Tensor | None = None

    def of(self, images: slice) -> Draws:
        """Gives those of some images of the batch."""
        fields = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return Draws(**{name: None if found is None else found[..., images] for name, found in fields})


def reach(augmentation: Augmentation, side: int) -> int:
    """Gives how many pixels an image may move."""
    if augmentation.crop_area is not None or augmentation.shift <= 0:
        return 0
    return max(1, round(augmentation.shift * side))


def draw(augmentation: Augmentation, count: int, side: int, generator: torch.Generator) -> Draws:
    """Draws for a batch, in a fixed order.

    Args:
        augmentation: what is done.
        count: images of the batch.
        side: height of an image, pixels.
        generator: source of the random numbers.
    """
    far = reach(augmentation, side)
    shift = torch.randint(0, 2 * far + 1, (2, count), generator=generator) if far else None
    flip = torch.rand(count, generator=generator) < 0.5 if augmentation.flip else None
    crop = None
    if augmentation.crop_area is not None:
        crop = torch.rand((4, count), generator=generator, dtype=torch.float64)
    colours = None
    if any(augmentation.colours):
        spread = torch.tensor(augmentation.colours).view(3, 1)
        colours = 1 + spread * (2 * torch.rand((3, count), generator=generator) - 1)
    erase = None
    if augmentation.erase:
        erase = torch.rand((5, count), generator=generator, dtype=torch.float64)
    return Draws(shift=shift, flip=flip, crop=crop, colours=colours, erase=erase)


def moved(images: Tensor, augmentation: Augmentation, draws: Draws) -> Tensor:
    """Crops or shifts each image of a batch, and mirrors it.

    Args:
        images: (b, c, h, w) of any type and device.
        augmentation: what is done.
        draws: as `draw` gives them; without `crop` where images were cropped when they were decoded.

    Returns:
        Images of the same shape and type.
    """
    if draws.crop is not None:
        images = _cropped(images, augmentation, draws.crop)
    if draws.shift is not None:
        images = _shifted(images, reach(augmentation, images.shape[2]), draws.shift)
    if draws.flip is not None:
        mirrored = draws.flip.to(images.device).view(-1, 1, 1, 1)
        images = torch.where(mirrored, images.flip(-1), images)
    return images


def coloured(images: Tensor, colours: Tensor) -> Tensor:
    """Changes brightness, contrast and saturation of each image of a batch.

    Args:
        images: (b, c, h, w) in 0..255, float32.
        colours: (3, b) factors.

    Returns:
        (b, c, h, w) in 0..255, float32.
    """
    brightness, contrast, saturation = colours.to(images.device).view(3, -1, 1, 1, 1)
    images = (images * brightness).clamp_(0, 255)
    # Of whole numbers the sum is exact, whatever the order in which a device adds them.
    mean = _gray(images).round().mean((1, 2, 3), keepdim=True, dtype=torch.float64).float()
    images = images.sub_(mean).mul_(contrast).add_(mean).clamp_(0, 255)
    gray = _gray(images)
    return images.sub_(gray).mul_(saturation).add_(gray).clamp_(0, 255)


def erased(images: Tensor, erase: Tensor, share: float) -> Tensor:
    """Sets a rectangle of some images of a batch to zero, in place.

    Args:
        images: (b, c, h, w), normalised.
        erase: (5, b) as `Draws` has them.
        share: of the images that lose a rectangle.
    """
    height, width = images.shape[2:]
    found = box(erase[1:].numpy(), _ERASED_AREA, _ERASED_RATIO, height, width)
    top, left, high, wide = (torch.from_numpy(np.rint(edge)).view(-1, 1, 1, 1) for edge in found)
    rows = torch.arange(height).view(1, 1, -1, 1)
    columns = torch.arange(width).view(1, 1, 1, -1)
    inside = (rows >= top) & (rows < top + high) & (columns >= left) & (columns < left + wide)
    chosen = inside & (erase[0] < share).view(-1, 1, 1, 1)
    return images.masked_fill_(chosen.to(images.device), 0.0)


def _gray(images: Tensor) -> Tensor:
    if images.shape[1] != len(LUMINANCE):
        return images.mean(1, keepdim=True)
    red, green, blue = (images[:, i : i + 1] * weight for i, weight in enumerate(LUMINANCE))
    return red + green + blue


def _shifted(images: Tensor, far: int, shift: Tensor) -> Tensor:
    count, _, height, width = images.shape
    padded = F.pad(images, (far,) * 4)
    top, left = shift.to(images.device)
    # every position of the window at once, as a view; the index then copies one per image
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, top, left]


def _cropped(images: Tensor, augmentation: Augmentation, crop: Tensor) -> Tensor:
    """Cuts out parts and enlarges them bilinearly; none shrinks, as it is a part of its image."""
    height, width = images.shape[2:]
    found = box(
        crop.numpy(), augmentation.crop_area or (1.0, 1.0), augmentation.crop_ratio, height, width
    )
    grid = _grid(found, height, width).to(images.device)
    values = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return values.round_().to(torch.uint8) if images.dtype == torch.uint8 else values


def _grid(found: Box, height: int, width: int) -> Tensor:
    """Gives where each pixel of the results lies in its image, (b, h, w, 2), edges being -1 and 1."""
    middles = (_middles(found.left, found.width, width), _middles(found.top, found.height, height))
    across, down = (torch.from_numpy(values.astype(np.float32)) for values in middles)
    count = len(across)
    return torch.stack(
        [
            across.view(count, 1, width).expand(count, height, width),
            down.view(count, height, 1).expand(count, height, width),
        ],
        dim=3,
    )


def _middles(start: Floats, length: Floats, side: int) -> Floats:
    steps = (np.arange(side) + 0.5) / side
    return 2 * (start[:, None] + length[:, None] * steps) / side - 1
