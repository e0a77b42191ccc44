"""Weights from files: what is inside, and into a module with them. Nothing in a file is executed."""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from autosparse.errors import ModelError
from autosparse.models import checkpoints
from autosparse.models.weight_files import check_weights
from autosparse.storage.files import opened

_SHOWN = 4
_STATISTICS = ("running_mean", "running_var")

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


def read_state(path: Path | str, own: Collection[str] | None = None) -> dict[str, Tensor]:
    """Reads a model's weights from ``.safetensors`` or from a file that torch saved.

    Files of torch are read with ``weights_only``, so that none can run code. What training code puts
    around weights is undone; see `checkpoints`.

    Args:
        path: the file.
        own: names of the model's parameters and buffers, which tell what in the file is meant; None
            takes the largest mapping of tensors, without prefixes of DataParallel and torch.compile.

    Returns:
        Name to tensor, on the CPU.

    Raises:
        ModelError: the file is missing, damaged, of another kind, or holds no or impossible weights, or
            several sets of them.
    """
    path = Path(os.path.expanduser(path))
    check_weights(path)
    found = checkpoints.states(_content(path), str(path))
    state = checkpoints.alone(found) if own is None else checkpoints.of_model(found, own, str(path))
    for name, tensor in state.items():
        if not _is_ordinary(tensor):
            raise ModelError(
                f"weights must be ordinary tensors, but {path} holds another kind in {name}"
            )
        if not _is_readable(tensor.dtype):
            raise ModelError(
                f"weights must be of a type that can be turned into float32, but {path} holds "
                f"{str(tensor.dtype).removeprefix('torch.')} in {name}; save them as float32"
            )
        if tensor.is_floating_point() and bool(torch.isnan(_wide(_held(tensor))).any()):
            raise _not_finite(str(path), name)
    return state


@functools.cache
def _is_readable(dtype: torch.dtype) -> bool:
    """Whether torch can turn values of a type into float32; of most below a byte it cannot."""
    try:
        torch.empty(1, dtype=dtype).float()
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _wide(tensor: Tensor) -> Tensor:
    """Gives values of a small type, such as the floats of eight bits, in one that torch computes in."""
    return tensor.float() if tensor.element_size() < 2 else tensor


def _is_ordinary(tensor: Tensor) -> bool:
    has_values = tensor.layout is torch.strided and not (tensor.is_nested or tensor.is_meta)
    return has_values and not (tensor.is_quantized or tensor.is_complex())


def _held(tensor: Tensor) -> Tensor:
    """Gives the values that a tensor holds, once each: an expanded one shows them many times."""
    once = (slice(0, 1) if step == 0 else slice(None) for step in tensor.stride())
    return tensor[tuple(once)]


def load_weights(module: nn.Module, path: Path | str) -> None:
    """Loads a weight file into a module, every parameter and buffer of it.

    Raises:
        ModelError: the file cannot be used (see `read_state`), or does not fit the module.
    """
    fill(module, read_state(path, module.state_dict().keys()), str(path))


def fill(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Copies a state dict into a module.

    Args:
        module: receives the values, converted to its own dtypes.
        state: name to tensor.
        what: where the state comes from, for messages.

    Raises:
        ModelError: keys are missing, unexpected or of another shape, or a weight is not finite. Buffers
            may hold infinities, as the mask of causal attention does; statistics may not.
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
    _check_finite(module, state, what)
    module.load_state_dict(state, strict=False)


def _check_finite(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    weights = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for name, tensor in state.items():
        must_be = name in weights or name.endswith(_STATISTICS)
        if must_be and tensor.is_floating_point() and not bool(torch.isfinite(_wide(tensor)).all()):
            raise _not_finite(what, name)


def _not_finite(what: str, name: str) -> ModelError:
    return ModelError(
        f"weights must be finite numbers, but {what} holds NaN or infinity in {name}; "
        "the file is damaged or the training diverged"
    )


def file_hash(path: Path | str) -> str:
    """Gives 16 hexadecimal digits that change when the file's content does."""
    with opened(Path(os.path.expanduser(path))) as stream:
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
