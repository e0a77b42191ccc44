"""Weights from files: what is inside, and into a module with them. Nothing in a file is executed."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from autosparse.errors import ModelError
from autosparse.weight_files import check_weights

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # left by DataParallel and by torch.compile
_SHOWN = 4

# What torch's readers raise on damaged files; which one depends on the byte that is wrong.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    safetensors.SafetensorError,
)


def read_state(path: Path | str) -> dict[str, Tensor]:
    """Reads a state dict from ``.safetensors`` or from a file that torch saved.

    Files of torch are read with ``weights_only``, so that none can run code. A dict under
    ``state_dict``, ``model_state_dict`` or ``model`` is unwrapped, and the prefixes that DataParallel
    and torch.compile put before every name are removed.

    Returns:
        Name to tensor, on the CPU.

    Raises:
        ModelError: the file is missing, damaged, of another kind, or holds no or impossible weights.
    """
    path = Path(path).expanduser()
    check_weights(path)
    state = _tensors(path, _content(path))
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"weights must be finite numbers, but {path} holds NaN or infinity in {name}; "
                "the file is damaged or the training diverged"
            )
    return state


def load_weights(module: nn.Module, path: Path | str) -> None:
    """Loads a weight file into a module, every parameter and buffer of it.

    Raises:
        ModelError: the file cannot be used (see `read_state`), or does not fit the module.
    """
    fill(module, read_state(path), str(path))


def fill(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Copies a state dict into a module.

    Args:
        module: receives the values, converted to its own dtypes.
        state: name to tensor.
        what: where the state comes from, for messages.

    Raises:
        ModelError: keys are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    # Counters of batches decide nothing in eval mode, and old files do not have them.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    misshaped = [
        f"{k} ({_shape(state[k])}, not {_shape(own[k])})"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    faults = [
        f"{len(keys)} {label}: {', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''}"
        for label, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshaped),
        )
        if keys
    ]
    if faults:
        raise ModelError(f"weights must fit their model, but {what} does not: {'; '.join(faults)}")
    module.load_state_dict(state, strict=False)


def file_hash(path: Path | str) -> str:
    """Gives 16 hexadecimal digits that change when the file's content does."""
    with Path(path).expanduser().open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"


def _content(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch suspects of a file is settled by what follows
            if path.suffix == ".safetensors":
                return safetensors.torch.load_file(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as problem:
        raise ModelError(_reason(path, problem)) from None


def _reason(path: Path, problem: BaseException) -> str:
    if isinstance(problem, pickle.UnpicklingError) and "Unsupported global" in str(problem):
        return (
            f"weights must be tensors alone, but {path} holds other objects, which might run code when "
            "read; save it again with torch.save(model.state_dict(), FILE)"
        )
    first = (str(problem).strip().splitlines() or [""])[0][:120]
    return (
        f"weights must be a .safetensors file or one written by torch.save, but {path} is damaged, "
        f"truncated or of another kind ({type(problem).__name__}: {first}); fetch it again"
    )


def _tensors(path: Path, found: object) -> dict[str, Tensor]:
    for _ in range(len(_WRAPPERS)):  # wrappers may be nested, but not without end
        if isinstance(found, Mapping):
            found = next((found[k] for k in _WRAPPERS if isinstance(found.get(k), Mapping)), found)
    if not isinstance(found, Mapping):
        raise ModelError(f"weights must be a dict of tensors, but {path} holds {type(found).__name__}")
    state = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if not state:
        keys = ", ".join(str(key) for key in list(found)[:_SHOWN])
        raise ModelError(f"weights must be a dict of tensors, but {path} has none; keys: {keys}")
    if any(value.is_sparse or value.is_meta for value in state.values()):
        raise ModelError(f"weights must be ordinary tensors, but {path} holds sparse or empty ones")
    return _without_prefixes(state)


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
                stripped = True
    return state
