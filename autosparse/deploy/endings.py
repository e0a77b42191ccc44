"""What a file's ending promises, for every kind of file that a model is exported into."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from autosparse.errors import UsageError

Kind = Literal["artifact", "onnx", "torch"]
TORCH_ENDINGS = (".pt", ".pth")
# Endings of each kind, that of an unnamed file first.
ENDINGS: Mapping[Kind, tuple[str, ...]] = {
    "artifact": (".autosparse",),
    "onnx": (".onnx",),
    "torch": (".safetensors", *TORCH_ENDINGS),
}


def check_ending(path: Path, kind: Kind) -> None:
    """Refuses a file whose ending promises something else than is written into it.

    Raises:
        UsageError: the ending is none of its kind.
    """
    known = ENDINGS[kind]
    if path.suffix in known:
        return
    other = next((each for each, endings in ENDINGS.items() if path.suffix in endings), None)
    remedy = f"name it {path.stem or 'model'}{known[0]}"
    raise UsageError(
        f"a file of kind {kind} must end in {' or '.join(known)}, but got {path}; {remedy}"
        + (f", or write --to {other}" if other else "")
    )
