"""What a step minimises: cross-entropy of hard, smoothed or mixed labels, the dense model's soft
outputs, or a loss of the user's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from autosparse import factories
from autosparse.errors import UsageError
from autosparse.models.outputs import logits_of
from autosparse.train.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Mixed:
    """A batch as the model sees it.

    Attributes:
        images: ``[B, C, H, W]``.
        labels: ``[B]``.
        others: labels of the images that were mixed in; None without.
        share: of the first labels in every image.
    """

    images: Tensor
    labels: Tensor
    others: Tensor | None = None
    share: float = 1.0


def mix(images: Tensor, labels: Tensor, recipe: Recipe, seed: int) -> Mixed:
    """Mixes every image of a batch with another one, as the recipe says; at least 2 images.

    Mixup adds both, ``share * x + (1 - share) * x'``; cutmix puts a window of one into the other, at
    the same place, and counts the pixels that are left. One share for the batch.

    Args:
        images: ``[B, C, H, W]``, stay as they are.
        labels: ``[B]``.
        recipe: says which, and how much.
        seed: decides partners, share and window; equal seeds mix alike.
    """
    if not (recipe.mixup or recipe.cutmix) or len(labels) < 2:
        return Mixed(images, labels)
    random = np.random.default_rng(seed)
    cuts = bool(recipe.cutmix) and (not recipe.mixup or random.random() < 0.5)
    alpha = recipe.cutmix if cuts else recipe.mixup
    share = float(random.beta(alpha, alpha))
    order = torch.from_numpy(random.permutation(len(labels))).to(images.device)
    if not cuts:
        blended = images * share + images[order] * (1 - share)
        return Mixed(blended, labels, labels[order], share)
    rows, columns = _window(share, (images.shape[2], images.shape[3]), random)
    blended = images.clone()
    blended[:, :, rows, columns] = images[order][:, :, rows, columns]
    covered = (rows.stop - rows.start) * (columns.stop - columns.start)
    return Mixed(blended, labels, labels[order], 1 - covered / (images.shape[2] * images.shape[3]))


def _window(share: float, size: tuple[int, int], random: np.random.Generator) -> tuple[slice, slice]:
    """Draws a window of about ``1 - share`` of an image, cut off at its edges."""
    found = []
    for extent in size:
        half = int(extent * np.sqrt(1 - share)) // 2
        centre = int(random.integers(extent))
        found.append(slice(max(0, centre - half), min(extent, centre + half)))
    return found[0], found[1]


class Objective:
    """The loss of a training.

    Args:
        recipe: what belongs to it.
        teacher: the dense model in evaluation mode, where the recipe distils.

    Raises:
        UsageError: the recipe distils and there is no teacher, or its own loss cannot be loaded.
    """

    def __init__(self, recipe: Recipe, teacher: nn.Module | None = None) -> None:
        if recipe.distill and teacher is None:
            raise UsageError(
                "distillation must have weights of the dense model to learn from, but got none; name "
                "them, or set distill to 0"
            )
        self._recipe = recipe
        self._teacher = teacher
        self._own = None if recipe.loss is None else factories.load(recipe.loss, UsageError)

    def __call__(self, module: nn.Module | Callable[[Tensor], Any], batch: Mixed) -> Tensor:
        """Runs a model on a batch and gives the mean loss."""
        output = module(batch.images)
        if self._own is not None:
            return _checked(self._own(output, batch.labels), self._recipe.loss)
        logits = logits_of(output)
        loss = self._cross_entropy(logits, batch.labels)
        if batch.others is not None:
            other = self._cross_entropy(logits, batch.others)
            loss = batch.share * loss + (1 - batch.share) * other
        if self._teacher is None or not self._recipe.distill:
            return loss
        weight = self._recipe.distill
        return (1 - weight) * loss + weight * self._soft(logits, batch.images)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self._recipe.label_smoothing
        return functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)

    def _soft(self, logits: Tensor, images: Tensor) -> Tensor:
        """Gives the divergence from the dense model's softened outputs, scaled back to gradients of the
        size that labels give.
        """
        assert self._teacher is not None
        with torch.no_grad():
            wanted = logits_of(self._teacher(images)).float()
        degrees = self._recipe.temperature
        found = functional.log_softmax(logits.float() / degrees, dim=1)
        target = functional.log_softmax(wanted / degrees, dim=1)
        divergence = functional.kl_div(found, target, reduction="batchmean", log_target=True)
        return divergence * degrees**2


def _checked(loss: Any, source: str | None) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        kind = f"a tensor {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise UsageError(
            "a loss must return one number that depends on the model's output, but "
            f"{source} gave {kind}"
        )
    return loss.reshape(())
