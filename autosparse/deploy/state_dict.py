"""Trained weights as a state dict, zeros in place: safetensors with the plan, or torch's own format."""

from __future__ import annotations

import io
import json
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from autosparse.deploy.endings import TORCH_ENDINGS
from autosparse.plans.plan import Plan
from autosparse.storage.files import write_bytes


def write_state_dict(path: Path, module: nn.Module, plan: Plan) -> None:
    """Writes every parameter and buffer of a module, in the format that the file's ending says.

    ``.safetensors`` holds the plan as metadata ``plan``; ``.pt`` and ``.pth`` are what ``torch.load``
    reads, also with ``weights_only``. Both load with ``module.load_state_dict(..., strict=True)`` and
    with `autosparse.models.load_weights`.

    Raises:
        RunError: the file cannot be written.
    """
    if path.suffix in TORCH_ENDINGS:
        stream = io.BytesIO()
        torch.save({name: value.detach().cpu() for name, value in module.state_dict().items()}, stream)
        write_bytes(path, stream.getvalue())
        return
    # Clones, because safetensors refuses tensors that share memory, such as tied weights.
    state = {name: value.detach().clone().contiguous() for name, value in module.state_dict().items()}
    metadata = {"format": "pt", "plan": json.dumps(plan.to_json(), sort_keys=True)}
    write_bytes(path, safetensors.torch.save(state, metadata=metadata))
