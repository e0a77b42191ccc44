"""Which part of what a model returns are its logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from autosparse.errors import ModelError

# The names under which public models return theirs: transformers, torchvision's auxiliary classifiers
# and its models of dense prediction.
_NAMES = ("logits", "out")


def logits_of(output: Any, classes: int | None = None) -> Tensor:
    """Gives the main logits of a model's output; auxiliary ones train and decide nothing.

    Args:
        output: a tensor; or a tuple, list, mapping or record, of which ``logits`` (or ``out``) is taken
            where there is one of that name, and else the first value.
        classes: how many logits per image there must be, None for any number.

    Returns:
        ``[B, classes]``.

    Raises:
        ModelError: there is no such tensor.
    """
    found = _main(output)
    fits = isinstance(found, Tensor) and found.dim() == 2 and classes in (None, found.shape[1])
    if not fits:
        wanted = "[batch, classes]" if classes is None else f"[batch, {classes}]"
        raise ModelError(
            f"a model must return logits {wanted}, first or under the name logits, but got "
            f"{_told(output)}; wrap the model in one that returns them"
        )
    assert isinstance(found, Tensor)
    return found


def _main(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output
    for name in _NAMES:
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    values = list(output.values()) if isinstance(output, Mapping) else output
    return values[0] if isinstance(values, tuple | list) and values else None


def _told(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor {list(output.shape)}"
    if isinstance(output, Mapping):
        return f"{type(output).__name__} of {', '.join(f'{k}: {_told(v)}' for k, v in output.items())}"
    if isinstance(output, tuple | list):
        return f"{type(output).__name__} of {', '.join(map(_told, output)) or 'nothing'}"
    return type(output).__name__
