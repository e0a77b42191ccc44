"""What the engine's tests share: comparison with torch, batch-norm statistics, 1xN masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autosparse.engine import CompiledModel, compile
from autosparse.graph import Emulation, Exported, fuse

TOLERANCE = {"f32": 1e-4, "bf16": 0.04}
"""Largest difference over the largest value of the output. bf16 rounds every activation and weight to 8
bits; that kernels round no more than that is the affair of the kernels' own tests."""
EMULATED = 2.0**-8
"""Likewise against the emulation: another order of sums may round a value of bf16 the other way."""


def stir(module: nn.Module, seed: int = 0) -> nn.Module:
    """Gives batch-norms statistics that folding cannot get right by accident, biases values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
                part.running_mean.normal_(0, 0.2, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
                part.weight.uniform_(0.5, 1.2, generator=generator)
                part.weight[::3] *= -1
                part.bias.normal_(0, 0.2, generator=generator)
            elif isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
                part.bias.normal_(0, 0.2, generator=generator)
    return module.eval()


def prune_blocks(weight: Tensor, block_n: int, sparsity: float, generator: torch.Generator) -> None:
    """Zeros random 1xN blocks in place, equally many in every group of outputs."""
    outputs, inputs = weight.shape[:2]
    pruned = int(sparsity * inputs + 1e-9)
    with torch.no_grad():
        for start in range(0, outputs, block_n):
            dead = torch.randperm(inputs, generator=generator)[:pruned]
            weight[start : start + block_n, dead] = 0.0


def prune(module: nn.Module, seed: int = 0, share: float = 1.0) -> nn.Module:
    """Prunes a share of all layers, each to a random N and one of 0, .5, .75, .9 and 1."""
    generator = torch.Generator().manual_seed(seed)

    def pick(count: int) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear) and getattr(part, "groups", 1) == 1:
            block_n = (1, 2, 4, 8, 16, 32)[pick(6)]
            sparsity = (0.0, 0.5, 0.75, 0.9, 1.0)[pick(5)]
            if torch.rand(1, generator=generator).item() < share:
                prune_blocks(part.weight, block_n, sparsity, generator)
    return module


def relative_error(ours: Any, theirs: Any) -> float:
    """Largest difference over the largest value, over all leaves; infinite if the forms differ."""
    mine, mine_spec = pytree.tree_flatten(ours)
    other, other_spec = pytree.tree_flatten(theirs)
    assert mine_spec == other_spec
    worst = 0.0
    for a, b in zip(mine, other, strict=True):
        assert a.shape == b.shape
        assert torch.isfinite(a).all()
        difference = (a.double() - b.double()).abs().max().item()
        worst = max(worst, difference / max(b.double().abs().max().item(), 1e-6))
    return worst


def check_against_torch(
    module: nn.Module, inputs: Sequence[Tensor], *, native: bool = True, **options: Any
) -> CompiledModel:
    """Compiles, runs twice, compares with torch in float64, and gives the (closed) compiled model.

    Does so in every dtype, in bf16 also with the emulation; the model given back computes in f32. All
    of it begins with one capture by torch, which takes most of the time.
    """
    module.eval().double()
    with torch.no_grad():
        theirs = module(*(x.double() for x in inputs))
    module.float()
    before = [x.clone() for x in inputs]
    models, exported = {}, Exported(module, tuple(inputs))
    for dtype, tolerance in TOLERANCE.items():
        model = compile(exported, tuple(inputs), dtype=dtype, **options)
        with model:
            assert model.engine == ("autosparse" if native else "torch"), model.why
            first, second = model(*inputs), model(*inputs)
        assert relative_error(first, theirs) < tolerance
        if native and dtype == "bf16":
            with torch.no_grad():
                emulated = Emulation(fuse(exported.graph()))(*inputs)
            assert relative_error(first, emulated) < EMULATED
        for a, b in zip(pytree.tree_leaves(first), pytree.tree_leaves(second), strict=True):
            assert torch.equal(a, b)
        models[dtype] = model
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True)), "inputs were written"
    return models["f32"]


@pytest.fixture(name="check")
def check_fixture() -> Callable[..., CompiledModel]:
    return check_against_torch


@pytest.fixture(name="stir")
def stir_fixture() -> Callable[..., nn.Module]:
    return stir


@pytest.fixture(name="prune")
def prune_fixture() -> Callable[..., nn.Module]:
    return prune


@pytest.fixture(name="prune_blocks")
def prune_blocks_fixture() -> Callable[..., None]:
    return prune_blocks
