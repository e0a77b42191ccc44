"""The choice of kernels: plan before measurement before default, and only rows that fit count."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from autosparse import hardware
from autosparse.database import TuningDatabase
from autosparse.engine import LayerReport, compile, held_zeros
from autosparse.errors import DatabaseError, UsageError
from autosparse.graph import capture_layers, fuse, trace
from autosparse.kernels import spec
from autosparse.kernels.spec import KernelSpec
from autosparse.patterns import CANDIDATES, parse_pattern
from autosparse.plans.plan import Plan
from autosparse.records import (
    DENSE,
    Activation,
    LayerChoice,
    LayerShape,
    Measurement,
    MeasurementKey,
    Pattern,
    Status,
    onexn,
)

X = torch.randn(1, 32, 14, 14, generator=torch.Generator().manual_seed(0))
BLOCK_N, SPARSITY = 8, 0.75


@pytest.fixture
def module(prune_blocks: Callable[..., None]) -> nn.Module:
    conv = nn.Conv2d(32, 32, 3, padding=1)
    prune_blocks(conv.weight, BLOCK_N, SPARSITY, torch.Generator().manual_seed(0))
    return nn.Sequential(conv, nn.ReLU())


@pytest.fixture
def shape(module: nn.Module) -> LayerShape:
    (layer,) = capture_layers(module, (X,))
    assert layer.shape is not None
    return layer.shape


@pytest.fixture
def database(tmp_path: Path) -> Iterator[TuningDatabase]:
    yield TuningDatabase(str(tmp_path / "rows.db"))


def row(
    kernel: KernelSpec,
    shape: LayerShape,
    pattern: Pattern,
    median_us: float,
    /,
    sparsity: float = SPARSITY,
    **changes: object,
) -> Measurement:
    key = {
        "hardware_id": hardware.hardware_id(),
        "kernel": kernel.name,
        "kernel_hash": spec.source_hash(kernel),
        "shape": shape.key,
        "pattern": pattern.name,
        "kept": -1 if pattern.is_dense else round((1 - sparsity) * shape.in_channels),
        "config": "",
        "dtype": "f32",
        "threads": 1,
        "policy": "p",
    }
    at = str(changes.pop("measured_at", "2025-01-01T00:00:00Z"))
    key.update(changes)
    return Measurement(
        key=MeasurementKey(**key),  # type: ignore[arg-type]
        status=Status.OK,
        median_us=median_us,
        ci_low_us=median_us,
        ci_high_us=median_us,
        repeats=10,
        sparsity=0.0 if pattern.is_dense else sparsity,
        measured_at=at,
    )


def chosen(module: nn.Module, database: TuningDatabase | str | None) -> LayerReport:
    with compile(module, (X,), threads=1, database=database) as made:
        return made.layers[0]


def some(shape: LayerShape, pattern: Pattern) -> tuple[KernelSpec, ...]:
    return spec.kernels_for(shape, pattern)


def test_without_rows_the_executor_chooses_sparse(module: nn.Module) -> None:
    found = chosen(module, None)
    assert (found.pattern, found.sparsity) == ("1x8", 0.75)
    assert "default" in found.why


def test_the_fastest_row_decides(
    module: nn.Module, shape: LayerShape, database: TuningDatabase
) -> None:
    kernels = some(shape, onexn(8))
    for index, kernel in enumerate(kernels):
        database.put(row(kernel, shape, onexn(8), 50.0 - index))
    database.put(row(some(shape, DENSE)[0], shape, DENSE, 100.0))
    found = chosen(module, database)
    assert found.kernel == kernels[-1].name
    assert found.why.startswith(f"fastest of {len(kernels) + 1} measured")


def test_smaller_blocks_win_where_they_measured_faster(
    module: nn.Module, shape: LayerShape, database: TuningDatabase
) -> None:
    database.put(row(some(shape, onexn(8))[0], shape, onexn(8), 50.0))
    database.put(row(some(shape, onexn(4))[0], shape, onexn(4), 40.0))
    assert chosen(module, database).pattern == "1x4"


def test_dense_wins_where_it_measured_faster(
    module: nn.Module, shape: LayerShape, database: TuningDatabase
) -> None:
    dense = some(shape, DENSE)[0]
    database.put(row(dense, shape, DENSE, 40.0))
    assert chosen(module, database).pattern == "1x8"  # nothing sparse to compare with
    database.put(row(some(shape, onexn(8))[0], shape, onexn(8), 50.0))
    found = chosen(module, database)
    assert (found.pattern, found.kernel) == ("dense", dense.name)


def test_blocks_larger_than_the_zeros_allow_are_stored_as_they_are(
    module: nn.Module, shape: LayerShape, database: TuningDatabase
) -> None:
    # 1x32 rows at 75 % say nothing about weights whose 1x32 blocks are nearly all alive.
    database.put(row(some(shape, onexn(32))[0], shape, onexn(32), 1.0))
    assert chosen(module, database).pattern == "1x8"


@pytest.mark.parametrize(
    "changes",
    [
        {"hardware_id": "elsewhere"},
        {"threads": 2},
        {"kernel_hash": "old"},
        {"dtype": "bf16"},
        {"shape": "s"},
        {"pattern": "1x16"},
    ],
)
def test_rows_of_something_else_do_not_count(
    module: nn.Module, shape: LayerShape, database: TuningDatabase, changes: dict[str, object]
) -> None:
    database.put(row(some(shape, onexn(8))[-1], shape, onexn(8), 1.0, **changes))
    assert "default" in chosen(module, database).why


def test_rows_of_a_near_sparsity_count_and_of_a_far_one_do_not(
    module: nn.Module, shape: LayerShape, database: TuningDatabase
) -> None:
    last = some(shape, onexn(8))[-1]
    database.put(row(last, shape, onexn(8), 9.0, sparsity=0.5))
    assert "default" in chosen(module, database).why
    database.put(row(last, shape, onexn(8), 5.0, sparsity=0.8))
    found = chosen(module, database)
    assert found.kernel == last.name
    assert "1x8@0.8" in found.why


def test_the_newest_row_of_a_kernel_counts(
    module: nn.Module, shape: LayerShape, database: TuningDatabase
) -> None:
    first, *_, last = some(shape, onexn(8))
    if first == last:
        pytest.skip("one kernel only")
    database.put(row(first, shape, onexn(8), 1.0))
    # Other masks of the same contract are the same work.
    database.put(row(first, shape, parse_pattern("block8"), 9.0, measured_at="2025-02-01T00:00:00Z"))
    database.put(row(last, shape, onexn(8), 5.0))
    assert chosen(module, database).kernel == last.name


def test_rows_of_one_policy_are_compared(
    module: nn.Module, shape: LayerShape, database: TuningDatabase
) -> None:
    first, *_, last = some(shape, onexn(8))
    if first == last:
        pytest.skip("one kernel only")
    database.put(row(first, shape, onexn(8), 4.0))
    database.put(row(last, shape, onexn(8), 5.0))
    database.put(row(last, shape, onexn(8), 1.0, policy="q", measured_at="2025-02-01T00:00:00Z"))
    assert chosen(module, database).kernel == first.name


def test_a_named_database_must_exist(module: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="must exist"):
        compile(module, (X,), database=str(tmp_path / "none.db"))


def test_the_users_own_database_is_used(module: nn.Module, shape: LayerShape) -> None:
    own = TuningDatabase()
    last = some(shape, onexn(8))[-1]
    own.put(row(last, shape, onexn(8), 1.0))
    assert chosen(module, None).kernel == last.name


def test_few_stray_zeros_stay_dense() -> None:
    conv = nn.Conv2d(32, 32, 3)
    with torch.no_grad():
        conv.weight[3, 5] = 0.0
    found = chosen(conv, None)
    assert found.pattern == "dense"
    assert "no 1xN blocks" in found.why


def test_small_blocks_must_leave_out_much_to_be_used(prune_blocks: Callable[..., None]) -> None:
    conv = nn.Conv2d(32, 32, 3)
    prune_blocks(conv.weight, 1, 0.25, torch.Generator().manual_seed(0))
    found = chosen(conv, None)
    assert found.pattern == "dense"
    assert "1x1@0.25 prunes less than" in found.why


def expecting(monkeypatch: pytest.MonkeyPatch, **cycles: float) -> None:
    """Makes the executor expect so many cycles of each pattern, and a thousand of others."""

    def expected(shape: LayerShape, pattern: Pattern, *rest: object, **how: object) -> float:
        return cycles.get(pattern.name.replace("1x", "n"), 1000.0)

    monkeypatch.setattr(spec, "expected_cycles", expected)


@pytest.mark.parametrize(
    ("cycles", "pattern", "why"),
    [
        ({"n8": 300, "n4": 400}, "dense", "1x8@0.75 is expected to take 1.5 times as long as dense"),
        ({"n8": 150, "n4": 50}, "1x4", "for 1x4@0.75, which is expected to take 0.25 times"),
        ({"n8": 150, "n4": 130}, "1x8", "for 1x8@0.75, which is expected to take 0.75 times"),
    ],
    ids=["dense is faster", "smaller blocks are clearly faster", "hardly faster"],
)
def test_without_rows_what_is_expected_to_be_fastest_runs(
    cycles: dict[str, float],
    pattern: str,
    why: str,
    module: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expecting(monkeypatch, dense=200, **cycles)
    found = chosen(module, None)
    assert found.pattern == pattern
    assert why in found.why


def test_expectations_of_compact_weights_leave_out_what_expands(
    module: nn.Module, shape: LayerShape
) -> None:
    for pattern, sparsity in ((DENSE, 0.0), (onexn(8), SPARSITY)):
        least = spec.expected_cycles(shape, pattern, sparsity, "f32")
        compact = spec.expected_cycles(shape, pattern, sparsity, "f32", compact_weights=True)
        assert 0 < least <= compact


def test_blocks_too_small_for_matrix_tiles_must_prune_more_than_dense_ones_on_them() -> None:
    shape = LayerShape(
        op="conv2d",
        batch_size=1,
        in_channels=64,
        out_channels=64,
        in_height=56,
        in_width=56,
        kernel=(3, 3),
        padding=(1, 1),
    )
    if not any(kernel.isa == "amx" for kernel in spec.kernels_for(shape, DENSE, "bf16")):
        pytest.skip("needs AMX, which this processor lacks or the operating system does not grant")
    dense = spec.expected_cycles(shape, DENSE, 0.0, "bf16")
    assert spec.expected_cycles(shape, onexn(8), 0.5, "bf16") > dense
    assert spec.expected_cycles(shape, onexn(8), 0.95, "bf16") < dense
    assert spec.expected_cycles(shape, onexn(16), 0.5, "bf16") < dense


@pytest.mark.usefixtures("largest_blocks")
@pytest.mark.parametrize("block_n", CANDIDATES)
def test_every_block_height_is_recognised(block_n: int, prune_blocks: Callable[..., None]) -> None:
    conv = nn.Conv2d(32, 64, 3)
    prune_blocks(conv.weight, block_n, 0.85, torch.Generator().manual_seed(block_n))
    assert chosen(conv, None).pattern == f"1x{block_n}"


def test_a_layer_pruned_altogether_still_gives_its_bias() -> None:
    conv = nn.Conv2d(32, 16, 3)
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.fill_(2.5)
    with compile(conv, (X,), threads=1) as made:
        assert torch.equal(made(X), torch.full((1, 16, 12, 12), 2.5))
        assert made.layers[0].sparsity == 1.0


def activated(name: str) -> nn.Module:
    made: dict[str, nn.Module] = {
        "none": nn.Identity(),
        "relu": nn.ReLU(),
        "relu6": nn.ReLU6(),
        "silu": nn.SiLU(),
        "hard_swish": nn.Hardswish(),
        "hard_sigmoid": nn.Hardsigmoid(),
        "sigmoid": nn.Sigmoid(),
        "gelu": nn.GELU(),
    }
    return nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), made[name])


def test_every_activation_has_a_key_and_kernels_of_its_own() -> None:
    keys = set()
    for name in Activation:
        (layer,) = capture_layers(activated(name), (X,))
        assert layer.shape is not None
        assert layer.shape.activation is name
        assert LayerShape.from_json(layer.shape.to_json()) == layer.shape
        assert spec.native_op(layer.shape, DENSE).activation.name == name.name
        keys.add(layer.shape.key)
        # What the table offers for the layer, the executor takes inside a model.
        kernel = spec.kernels_for(layer.shape, DENSE)[-1]
        choice = LayerChoice(kernel=kernel.name)
        plan = Plan(model="m", layers={"0": choice})
        with compile(activated(name), (X,), threads=1, plan=plan) as made:
            assert (made.engine, made.layers[0].kernel) == ("autosparse", kernel.name)
    assert len(keys) == len(Activation)


def test_an_activation_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UsageError, match=r"activation must be one of none, relu.*got.*'swish'"):
        LayerShape(op="linear", batch_size=1, in_channels=1, out_channels=1, activation="swish")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["silu", "hard_swish", "gelu"])
def test_a_measured_kernel_that_refuses_the_layer_never_sends_the_model_to_torch(
    name: str, database: TuningDatabase
) -> None:
    module = activated(name)
    (layer,) = capture_layers(module, (X,))
    assert layer.shape is not None
    able = set(some(layer.shape, DENSE))
    plain = dataclasses.replace(layer.shape, activation=Activation.NONE)
    refusing = [kernel for kernel in some(plain, DENSE) if kernel not in able]
    if not refusing:
        pytest.skip("every dense kernel of this build runs every activation")
    database.put(row(refusing[0], layer.shape, DENSE, 1.0))
    with compile(module, (X,), threads=1, database=database) as made:
        assert made.engine == "autosparse"
        [found] = made.layers
        assert found.kernel in {kernel.name for kernel in able}
        assert f"but refused: {refusing[0].name}" in found.why
        assert torch.allclose(made(X), module(X), atol=1e-4)


def test_what_a_plan_calls_dense_runs_dense_whatever_its_zeros(
    module: nn.Module, shape: LayerShape, database: TuningDatabase
) -> None:
    database.put(row(some(shape, onexn(8))[0], shape, onexn(8), 1.0))
    for options in (
        {"plan": Plan(model="m", layers={"0": LayerChoice()})},
        {"use_zeros": False},
        {"use_zeros": False, "plan": Plan(model="m")},
    ):
        with compile(module, (X,), threads=1, database=database, **options) as made:
            [found] = made.layers
            assert (found.pattern, found.sparsity) == ("dense", 0.0)
            assert found.why.startswith(("dense by the plan", "zeros are not to be used"))
            assert torch.allclose(made(X), module(X), atol=1e-4)
    with compile(module, (X,), threads=1, database=database, plan=Plan(model="m")) as made:
        assert made.layers[0].pattern == "1x8", "the plan does not name it"
    held = held_zeros(fuse(trace(module, (X,))))
    assert [(name, way.pattern.name, way.sparsity) for name, way in held.items()] == [
        ("0", "1x8", 0.75)
    ]
