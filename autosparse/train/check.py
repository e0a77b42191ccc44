"""Whether a model can be evaluated and trained on a data set, tried on a few images before any work."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autosparse.data import AnySplit
from autosparse.errors import ModelError
from autosparse.models.outputs import logits_of
from autosparse.plans.plan import Plan
from autosparse.train.methods.latent import MaskedLayers
from autosparse.train.methods.method import method_named
from autosparse.train.modes import mode
from autosparse.train.recipes import Recipe

_IMAGES = 4


def check_module(module: nn.Module, split: AnySplit, classes: int, *, trains: bool) -> None:
    """Refuses a model that cannot be evaluated or, where it shall be, trained; leaves it as it was.

    Args:
        module: maps images NCHW to logits, as `logits_of` takes them.
        split: images to try it on.
        classes: of the data.
        trains: whether a step of training is tried too.

    Raises:
        ModelError: it fails, or returns no logits; says what was tried.
    """
    images, labels = next(iter(split.batches(_IMAGES, limit=_IMAGES)))
    with _kept(module):
        _tried("be evaluated", lambda: _evaluated(module, images, classes))
        if trains:
            _tried("train", lambda: _step(module, images, labels, classes))


def check_plan(module: nn.Module, plan: Plan, recipe: Recipe) -> None:
    """Refuses a plan that a recipe's method cannot train; changes nothing.

    Args:
        module: that would be trained.
        plan: pattern and sparsity per layer.
        recipe: names the method.

    Raises:
        PlanError: the plan does not fit the model, or the method not a pattern; says which does.
    """
    layers = MaskedLayers(module, plan)
    method_named(recipe.method)(layers, recipe.rules, epochs=recipe.epochs, seed=recipe.seed)


def memory_format(
    module: nn.Module, split: AnySplit, classes: int, *, batch_size: int, trains: bool = True
) -> torch.memory_format:
    """Gives the order of images that a model is run fastest with and survives.

    Channels last is what the convolutions of torch's CPU backend want, but a ``view`` in a user's
    forward may refuse it. A model survives it if the logits stay and a step of training runs.

    Args:
        module: stays as it is.
        split: whose first images it is tried on.
        classes: outputs of the model.
        batch_size: images that it is run on at once.
        trains: whether it will be trained.

    Raises:
        ModelError: the model runs in no order; says why.
    """
    count = min(_IMAGES, batch_size)
    images, labels = next(iter(split.batches(count, limit=count)))
    if trains:
        with _kept(module):
            _tried("train", lambda: _step(module, images, labels, classes))
    with _kept(module):  # anew, since a step moves batch-norm statistics
        plain = _tried("be evaluated", lambda: _evaluated(module, images, classes))
        other = images.contiguous(memory_format=torch.channels_last)
        try:
            _reordered(module, torch.channels_last)
            same = torch.allclose(_evaluated(module, other, classes), plain, rtol=1e-3, atol=1e-4)
            if trains:
                _step(module, other, labels, classes)
        except Exception:  # whatever a user's code raises; in the plain order it ran
            same = False
        finally:
            _reordered(module, torch.contiguous_format)
    return torch.channels_last if same else torch.contiguous_format


def _reordered(module: nn.Module, order: torch.memory_format) -> None:
    module.to(memory_format=order)  # type: ignore[call-overload]


@torch.no_grad()
def _evaluated(module: nn.Module, images: Tensor, classes: int) -> Tensor:
    with mode(module, training=False):
        return logits_of(module(images), classes)


def _step(module: nn.Module, images: Tensor, labels: Tensor, classes: int) -> None:
    with mode(module, training=True):
        loss = functional.cross_entropy(logits_of(module(images), classes), labels)
        loss.backward()  # type: ignore[no-untyped-call]
    if not torch.isfinite(loss.detach()):
        raise ModelError(f"its loss must be finite before the first step, but is {loss.item():g}")


def _tried(what: str, attempt: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return attempt()
    except Exception as problem:  # a border to code that is not ours: anything may come
        told = str(problem).strip().splitlines() or [""]
        name = "" if isinstance(problem, ModelError) else f"{type(problem).__name__}: "
        raise ModelError(
            f"a model must {what} on images of its data set, but of a few images came: {name}{told[0]}"
        ) from problem


@contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    """Gives weights, buffers and absent gradients back, and the state of torch's random numbers."""
    tensors = [*module.parameters(), *module.buffers()]
    before, random = [tensor.detach().clone() for tensor in tensors], torch.get_rng_state()
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, values in zip(tensors, before, strict=True):
                if not torch.equal(tensor, values):  # also spares views that cannot be written to
                    tensor.copy_(values)
        module.zero_grad(set_to_none=True)
        torch.set_rng_state(random)
