"""Trained weights as a state dict, zeros in place, with the plan beside them."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
from torch import nn

from autosparse.files import write_bytes
from autosparse.plan import Plan


def write_state_dict(path: Path, module: nn.Module, plan: Plan) -> None:
    """Writes every parameter and buffer of a module as safetensors, the plan as its metadata ``plan``.

    The file loads with ``module.load_state_dict(..., strict=True)`` and with
    `autosparse.models.load_weights`.

    Raises:
        RunError: the file cannot be written.
    """
    # Clones, because safetensors refuses tensors that share memory, such as tied weights.
    state = {name: value.detach().clone().contiguous() for name, value in module.state_dict().items()}
    metadata = {"format": "pt", "plan": json.dumps(plan.to_json(), sort_keys=True)}
    write_bytes(path, safetensors.torch.save(state, metadata=metadata))
