"""`compile(..., compact_weights=True)`: whatever is measured, weights take no more than was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

import autosparse
from autosparse import hardware, models
from autosparse.database import TuningDatabase
from autosparse.engine import CompiledModel, LayerReport, compile
from autosparse.errors import PlanError
from autosparse.graph import capture_layers
from autosparse.kernels import spec
from autosparse.kernels.compact import expanding_kernels
from autosparse.kernels.spec import KernelSpec
from autosparse.plans.plan import Plan
from autosparse.records import (
    DENSE,
    LayerChoice,
    LayerShape,
    Measurement,
    MeasurementKey,
    Pattern,
    Status,
    onexn,
)

X = torch.randn(1, 64, 28, 28, generator=torch.Generator().manual_seed(0))
BLOCK_N, SPARSITY = 16, 0.75


@pytest.fixture
def module(prune_blocks: Callable[..., None]) -> nn.Module:
    conv = nn.Conv2d(64, 64, 3, padding=1)
    prune_blocks(conv.weight, BLOCK_N, SPARSITY, torch.Generator().manual_seed(0))
    return nn.Sequential(conv, nn.ReLU())


@pytest.fixture
def database(tmp_path: Path) -> TuningDatabase:
    return TuningDatabase(str(tmp_path / "rows.db"))


def shape_of(module: nn.Module) -> LayerShape:
    (layer,) = capture_layers(module, (X,))
    assert layer.shape is not None
    return layer.shape


def rows(
    shape: LayerShape, kernels: Sequence[KernelSpec], pattern: Pattern, median_us: float
) -> list[Measurement]:
    return [
        Measurement(
            key=MeasurementKey(
                hardware_id=hardware.hardware_id(),
                kernel=kernel.name,
                kernel_hash=spec.source_hash(kernel),
                shape=shape.key,
                pattern=pattern.name,
                kept=-1 if pattern.is_dense else round((1 - SPARSITY) * shape.in_channels),
                config="",
                dtype=kernel.dtype,
                threads=1,
                policy="p",
            ),
            status=Status.OK,
            median_us=median_us,
            sparsity=0.0 if pattern.is_dense else SPARSITY,
        )
        for kernel in kernels
    ]


def both(shape: LayerShape, pattern: Pattern) -> tuple[list[KernelSpec], list[KernelSpec]]:
    """Gives the kernels of a layer that expand weights, and the others."""
    able = spec.kernels_for(shape, pattern)
    return [k for k in able if k.expands_weights], [k for k in able if not k.expands_weights]


def layer_of(module: nn.Module, database: TuningDatabase, *, compact: bool) -> LayerReport:
    with compile(module, (X,), threads=1, database=database, compact_weights=compact) as made:
        [layer] = made.layers
        return layer


def test_measured_kernels_that_expand_weights_are_passed_over(
    module: nn.Module, database: TuningDatabase
) -> None:
    shape = shape_of(module)
    expanding, direct = both(shape, onexn(BLOCK_N))
    database.put_all(rows(shape, expanding, onexn(BLOCK_N), 1.0))
    found = layer_of(module, database, compact=True)
    assert found.kernel not in expanding_kernels() and found.pattern == f"1x{BLOCK_N}"
    database.put_all(rows(shape, direct[-1:], onexn(BLOCK_N), 9.0))
    assert layer_of(module, database, compact=False).kernel in expanding_kernels()
    found = layer_of(module, database, compact=True)
    assert (found.kernel, found.why.partition(":")[0]) == (direct[-1].name, "fastest of 1 measured")


@pytest.mark.parametrize(
    "dense",
    [
        nn.Sequential(nn.Conv2d(64, 32, 3, padding=1), nn.ReLU6()),
        nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(64, 32, 3)),
        nn.Conv2d(64, 32, 7, stride=2, padding=3),
        nn.Conv2d(64, 32, 1),
    ],
    ids=["3x3", "padded on two sides", "7x7", "1x1"],
)
def test_the_executors_own_choice_is_none_of_them(
    dense: nn.Module, check: Callable[..., CompiledModel], database: TuningDatabase
) -> None:
    free = check(dense, (X,), threads=1, database=database)
    model = check(dense, (X,), threads=1, database=database, compact_weights=True)
    [was], [layer] = free.layers, model.layers
    assert layer.kernel not in expanding_kernels()
    if was.kernel not in expanding_kernels():
        assert layer.kernel == was.kernel


def test_a_plan_that_names_one_is_refused_and_an_open_one_is_followed(
    module: nn.Module, database: TuningDatabase
) -> None:
    expanding, direct = both(shape_of(module), onexn(BLOCK_N))

    def compiled(kernel: str | None, **options: bool) -> str:
        choice = LayerChoice(pattern=onexn(BLOCK_N), sparsity=SPARSITY, kernel=kernel)
        named = Plan(model="net", layers={"0": choice})
        with compile(module, (X,), threads=1, plan=named, database=database, **options) as made:
            return made.layers[0].kernel

    assert compiled(expanding[0].name) == expanding[0].name
    with pytest.raises(PlanError, match=rf"names {expanding[0].name} for '0'"):
        compiled(expanding[0].name, compact_weights=True)
    assert compiled(direct[0].name, compact_weights=True) == direct[0].name
    assert compiled(None, compact_weights=True) not in expanding_kernels()


def test_bf16_loses_nothing(module: nn.Module) -> None:
    names = []
    for compact in (False, True):
        with compile(module, (X,), dtype="bf16", threads=1, compact_weights=compact) as made:
            names.append((made.layers[0].kernel, made.weight_bytes))
    assert names[0] == names[1]


def test_a_model_with_three_quarters_of_zeros_holds_under_a_third(database: TuningDatabase) -> None:
    """Though every row of the database speaks for kernels that expand weights."""
    module, x = models.resolve("resnet20").module, torch.zeros(1, 3, 32, 32)
    layers = capture_layers(module, (x,))
    plan = Plan.uniform("resnet20", layers[1:], block_n=BLOCK_N, sparsity=SPARSITY)
    autosparse.sparsify(module, plan)
    for shape in {layer.shape for layer in layers if layer.shape is not None}:
        for pattern in (DENSE, onexn(BLOCK_N)):
            database.put_all(rows(shape, both(shape, pattern)[0][:1], pattern, 1.0))
    dense_bytes = 4 * sum(layer.shape.weights for layer in layers if layer.shape)
    shares = []
    for compact in (False, True):
        with compile(module, (x,), threads=1, database=database, compact_weights=compact) as made:
            shares.append(made.weight_bytes / dense_bytes)
    assert shares[0] > 0.4
    assert shares[1] <= 0.32


def test_an_exported_module_keeps_to_it(module: nn.Module, tmp_path: Path) -> None:
    database = TuningDatabase()
    shape = shape_of(module)
    database.put_all(rows(shape, both(shape, onexn(BLOCK_N))[0], onexn(BLOCK_N), 1.0))
    for compact in (False, True):
        path = tmp_path / f"{compact}.autosparse"
        manifest = autosparse.export(
            module, (X,), path, threads=1, measure=False, compact_weights=compact
        )
        assert (manifest.layers[0].kernel in expanding_kernels()) is not compact
