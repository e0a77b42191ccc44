"""torch on a GPU with 2:4 matrix products by cuSPARSELt; convolutions stay dense, as it has none.

It runs the model with 2:4 zeros in every linear layer that it takes, whatever zeros ours has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autosparse.compare.on_gpu import running
from autosparse.compare.peer import Peer, Running, Unsupported, Variant
from autosparse.compare.records import Zeros
from autosparse.compare.task import Task, capture
from autosparse.plans.plan import Plan
from autosparse.records import LayerChoice

if TYPE_CHECKING:
    from torch import nn

# The library takes sizes that these divide, in 16 bits.
_ROWS, _COLUMNS = 32, 64


def half(task: Task) -> Task:
    """Gives the task whose linear layers are 2:4.

    Raises:
        Unsupported: the model has no linear layer that the library takes.
    """
    import dataclasses

    from autosparse.patterns import parse_pattern

    choice = LayerChoice(pattern=parse_pattern("2:4"), sparsity=0.5)
    layers = {
        layer.name: choice
        for layer in capture(task.subject, task.shape, task.device)
        if layer.shape is not None
        and layer.shape.op == "linear"
        and not layer.why_dense
        and layer.shape.out_channels % _ROWS == 0
        and layer.shape.in_channels % _COLUMNS == 0
    }
    if not layers:
        raise Unsupported(
            f"no linear layer has sizes that {_ROWS} and {_COLUMNS} divide, and it runs no other"
        )
    zeros = Zeros(name="2:4", plan=Plan(model=task.subject.model, layers=layers), random=False)
    return dataclasses.replace(task, zeros=zeros)


def semi_structured(task: Task) -> Running:
    """Compresses the layers, and lets torch call the library."""
    assert task.zeros is not None
    names = set(task.zeros.plan.layers)

    def compress(module: nn.Module) -> nn.Module:
        import torch
        from torch import nn
        from torch.sparse import to_sparse_semi_structured

        for name, part in module.named_modules():
            if name in names and isinstance(part, nn.Linear):
                sparse = to_sparse_semi_structured(part.weight.detach())
                part.weight = torch.nn.Parameter(sparse, requires_grad=False)
        return module

    return running(task, compress)


PEER = Peer(
    name="cusparselt",
    needs={"torch": "torch"},
    variants=(
        Variant(name="cusparselt", dtype="bf16", device="cuda", open=semi_structured, instead=half),
    ),
    why_no_memory="it computes on a GPU",
)
