"""From a model's name to a module that runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from autosparse import factories
from autosparse.errors import ModelError, got
from autosparse.models import libraries
from autosparse.models.heads import head
from autosparse.models.initialise import initialise, seeded
from autosparse.models.registry import builder, entries
from autosparse.models.sources import Source, check_source, parse
from autosparse.models.weights import file_hash, fill, read_state
from autosparse.values import MOST

_SIDE = 224  # height and width of an image where a model does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready to run.

    Attributes:
        source: the name it was asked for by.
        module: float32, in eval mode, on the CPU.
        input_shape: one sample's shape, (channels, height, width), for latency unless told otherwise.
        classes: outputs.
        pretrained: whether the weights come from a file rather than from random numbers.
        weights_hash: hash of the weight file's content, None without one.
    """

    source: str
    module: nn.Module
    input_shape: tuple[int, ...]
    classes: int
    pretrained: bool
    weights_hash: str | None


def resolve(
    source: str, *, classes: int | None = None, weights: Path | None = None, seed: int = 0
) -> LoadedModel:
    """Builds the model that a name means.

    Args:
        source: zoo name, ``path/to/file.py:factory``, ``torchvision:NAME``, ``timm:NAME`` or ``hf:ID``.
        classes: outputs; None takes the weights' number, or without weights the model's default.
        weights: a state dict to load (`read_state` says which files); None draws random weights.
        seed: of the random weights.

    Raises:
        ModelError: an unknown name, unusable weights, or weights for another number of classes.
        MissingDependency: the library that the name asks for is not installed.
    """
    if classes is not None and classes < 1:
        raise ModelError(f"classes must be at least 1, but got {classes}")
    check_source(source)
    parsed = parse(source)
    state = None
    if weights is not None:
        trial = _trial(parsed, classes)
        state = read_state(weights, trial.state_dict().keys())
        classes = _agreed_classes(source, parsed, trial, classes, state, str(weights))
    # A local hf: model comes with weights for its own classes; others are refused, not drawn anew.
    built_for = None if parsed.kind == "hf" and state is None else classes
    with seeded(seed):
        module = _build(parsed, built_for)
        if parsed.kind == "zoo" and state is None:
            initialise(module)
    if state is not None:
        fill(module, state, str(weights))
    module = module.float().eval()
    found = head(module, None if parsed.kind == "zoo" else _input_shape(parsed, module))
    if found is None:
        raise ModelError(
            f"a model must have a convolution or a linear layer, but {source} has none; "
            "without one there is nothing to make sparse"
        )
    _check_outputs(source, classes, found.outputs)
    return LoadedModel(
        source=source,
        module=module,
        input_shape=_input_shape(parsed, module),
        classes=found.outputs,
        pretrained=state is not None or parsed.kind == "hf",
        weights_hash=None if weights is None else file_hash(weights),
    )


def _build(source: Source, classes: int | None) -> nn.Module:
    if source.kind == "zoo":
        return builder(source.name)(classes or entries()[source.name].classes)
    if source.kind != "file":
        return libraries.build(source, classes)
    with torch.random.fork_rng(devices=[]):  # what a file draws when it runs shifts no later weights
        factory = factories.load(source.name, ModelError)
    offered = {} if classes is None else {"num_classes": classes}
    made = factories.call(source.name, factory, ModelError, **offered)
    if not isinstance(made, nn.Module):
        raise ModelError(f"{source.name} must return a torch.nn.Module, but got {type(made).__name__}")
    return made


def _trial(parsed: Source, asked: int | None) -> nn.Module:
    """Builds a model to see its names; only our own builders are known to work without memory."""
    with seeded(0), torch.device("meta" if parsed.kind == "zoo" else "cpu"):
        return _build(parsed, asked)


def _agreed_classes(
    source: str,
    parsed: Source,
    trial: nn.Module,
    asked: int | None,
    state: dict[str, Tensor],
    weights: str,
) -> int | None:
    """Gives the number of classes the weights were made for; None if they do not tell."""
    classifier = head(trial, None if parsed.kind == "zoo" else _input_shape(parsed, trial))
    found = state.get(f"{classifier.name}.weight") if classifier else None
    if found is None or found.dim() == 0:
        return asked
    if asked is not None and asked != found.shape[0]:
        raise ModelError(
            f"{source} must have as many outputs as its weights, but {asked} classes were asked for "
            f"and {weights} has {found.shape[0]}; take data with as many classes, or other weights"
        )
    return int(found.shape[0])


def _check_outputs(source: str, asked: int | None, outputs: int) -> None:
    if asked is not None and asked != outputs:
        raise ModelError(
            f"{source} must have {asked} outputs, one per class, but its last layer has {outputs}; "
            f"take data with {outputs} classes, or let a factory take num_classes"
        )


def _input_shape(source: Source, module: nn.Module) -> tuple[int, ...]:
    if source.kind == "zoo":
        return entries()[source.name].input_shape
    told = getattr(module, "input_shape", None)
    if isinstance(told, tuple | list | torch.Size):
        if not all(isinstance(size, int) and 1 <= size <= MOST for size in told):
            raise ModelError(
                f"input_shape of a model must be whole numbers from 1 to {MOST}, but {source.name} has "
                f"{got(told)}; write (3, 224, 224)"
            )
        return tuple(told)
    by_library = libraries.input_shape(module)
    if by_library is not None:
        return by_library
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)), None)
    if first is None:
        return (3, _SIDE, _SIDE)
    if isinstance(first, nn.Conv2d):
        return (first.in_channels, _SIDE, _SIDE)
    return (first.in_features,)
