"""Where models come from: the zoo, a user's file, or a library that happens to be installed.

    resnet18                   the zoo (`names`), torchvision's parameter names
    path/to/file.py:factory    a function that returns a module, called with num_classes if it takes it
    torchvision:NAME           torchvision's models, if torchvision is installed
    timm:NAME                  timm's models, if timm is installed
    hf:ID                      image classifiers of transformers, from a local folder or cache

Nothing is ever downloaded: weights are random, or come from a file. To add a model to the zoo, put a
function marked with `zoo_model` into a file of ``autosparse/models/zoo``; it is found there.
Importing this package does not import torch; asking it for `resolve` does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autosparse.models.registry import names
from autosparse.models.sources import check_source

if TYPE_CHECKING:
    from autosparse.models.loading import LoadedModel, resolve
    from autosparse.models.weights import load_weights, read_state

__all__ = ["LoadedModel", "check_source", "load_weights", "names", "read_state", "resolve"]

_LAZY = {
    "LoadedModel": "loading",
    "resolve": "loading",
    "load_weights": "weights",
    "read_state": "weights",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
