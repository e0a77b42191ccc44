"""Models of libraries that happen to be installed. Nothing is downloaded."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from autosparse.errors import ModelError
from autosparse.models.sources import Source, unknown


class Logits(nn.Module):
    """Gives the logits tensor of a transformers classifier, which itself returns a record."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (b, 3, h, w) to logits (b, classes)."""
        return self.model(x).logits  # type: ignore[no-any-return]


def build(source: Source, classes: int | None) -> nn.Module:
    """Builds a library's model with random weights; for ``hf:`` with the local weights.

    Args:
        source: where from; `kind` is the library.
        classes: outputs, or None for the library's own default.

    Raises:
        ModelError: the library does not know the name, or has no local copy.
    """
    return {"torchvision": _torchvision, "timm": _timm, "hf": _hf}[source.kind](source.name, classes)


def input_shape(module: nn.Module) -> tuple[int, ...] | None:
    """Gives the shape a library's model says it is meant for, or None."""
    told = getattr(module, "default_cfg", None)  # timm
    if isinstance(told, dict) and "input_size" in told:
        return tuple(int(size) for size in told["input_size"])
    config = getattr(getattr(module, "model", None), "config", None)  # transformers
    side = getattr(config, "image_size", None)
    if isinstance(side, int):
        return (int(getattr(config, "num_channels", 3)), side, side)
    return None


def _torchvision(name: str, classes: int | None) -> nn.Module:
    library: Any = importlib.import_module("torchvision.models")
    known = library.list_models(module=library)
    if name not in known:
        raise unknown(name, known, "a torchvision model")
    given = {} if classes is None else {"num_classes": classes}
    return library.get_model(name, weights=None, **given)  # type: ignore[no-any-return]


def _timm(name: str, classes: int | None) -> nn.Module:
    library: Any = importlib.import_module("timm")
    if not library.is_model(name):
        raise unknown(name, library.list_models(), "a timm model")
    given = {} if classes is None else {"num_classes": classes}
    return library.create_model(name, pretrained=False, **given)  # type: ignore[no-any-return]


def _hf(name: str, classes: int | None) -> nn.Module:
    library: Any = importlib.import_module("transformers")
    given = {} if classes is None else {"num_labels": classes, "ignore_mismatched_sizes": True}
    try:
        model = library.AutoModelForImageClassification.from_pretrained(
            name, local_files_only=True, **given
        )
    except (OSError, ValueError) as problem:
        first = (str(problem).strip().splitlines() or [""])[0]
        raise ModelError(
            f"hf:{name} must be an image classifier in a local folder or in the local cache, but got: "
            f"{first}; fetch it first with: hf download {name}"
        ) from None
    return Logits(model)
