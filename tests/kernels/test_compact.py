"""Kernels that expand weights: which they are by the bytes they hold, and the choice without them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autosparse.errors import PlanError, UsageError
from autosparse.kernels import spec
from autosparse.kernels.binding import NativeProgram
from autosparse.kernels.compact import check_compact, expanding_kernels
from autosparse.kernels.layer import LayerProgram, random_blocks
from autosparse.kernels.native_op import ANY_KERNEL, COMPACT_KERNEL
from autosparse.kernels.spec import KernelSpec
from autosparse.plans.plan import Plan
from autosparse.records import DENSE, LayerChoice, LayerShape, onexn

BYTES = {"f32": 4, "bf16": 2}
LAYER = LayerShape(
    op="conv2d",
    batch_size=1,
    in_channels=64,
    out_channels=192,
    in_height=14,
    in_width=14,
    kernel=(3, 3),
    padding=(1, 1),
)
STEM = dataclasses.replace(LAYER, kernel=(7, 7), stride=(2, 2), padding=(3, 3))


def held_bytes_per_given(kernel: KernelSpec) -> float:
    """Packs a layer that is 75 % zeros, or dense, and weighs it against the weights that are kept."""
    shape = STEM if kernel.method == "wp" else LAYER
    structure, kept = None, 1.0
    if kernel.block_n:
        structure, kept = random_blocks(shape, onexn(kernel.block_n), 0.75, seed=0), 0.25
    weight = np.ones((shape.out_channels, shape.in_channels, *shape.kernel), np.float32)
    program = LayerProgram(shape, weight=weight, structure=structure, kernel=kernel, dtype=kernel.dtype)
    held = program.weight_bytes
    program.close()
    return held / (kept * weight.size * BYTES[kernel.dtype])


def test_exactly_those_expand_weights_that_hold_more_of_them() -> None:
    seen = set()
    for kernel in spec.all_kernels():
        shape = STEM if kernel.method == "wp" else LAYER
        if spec.why_not(kernel, shape, onexn(kernel.block_n) if kernel.block_n else DENSE):
            continue  # another machine's
        seen.add((kernel.dtype, kernel.method))
        # Lists of kept inputs add a ninth at most, and 192 outputs leave no tile half empty.
        assert (held_bytes_per_given(kernel) > 1.5) == kernel.expands_weights, kernel.name
    assert {("f32", method) for method in ("px", "oc", "wg", "wf", "wp")} <= seen
    assert not any(kernel.expands_weights for kernel in spec.all_kernels() if kernel.dtype == "bf16")


def chosen(shape: LayerShape, free: int, block_n: int = 0, dtype: str = "f32") -> KernelSpec:
    """Gives the executor's own choice."""
    structure = random_blocks(shape, onexn(block_n), 0.75, seed=0) if block_n else None
    with NativeProgram(threads=1, pin=False) as program:
        source = program.tensor(shape.input_shape, dtype)
        sink = program.tensor(shape.output_shape, dtype)
        program.input(source)
        op = spec.native_op(shape, block_n, inputs=(source,), output=sink)
        program.op(
            dataclasses.replace(
                op,
                kernel=free,
                weight=np.ones((shape.out_channels, shape.in_channels, *shape.kernel), np.float32),
                group_start=structure.group_start if structure else None,
                kept=structure.kept if structure else None,
            )
        )
        [name] = program.op_kernels()
    assert name is not None
    return spec.get(name)


@pytest.mark.parametrize("shape", [LAYER, STEM], ids=["3x3", "7x7"])
@pytest.mark.parametrize("block_n", [0, 16])
def test_the_choice_without_them_is_the_best_of_the_others(shape: LayerShape, block_n: int) -> None:
    relu = dataclasses.replace(shape, activation="relu")
    found = chosen(relu, COMPACT_KERNEL, block_n)
    assert not found.expands_weights
    assert found in spec.kernels_for(relu, onexn(block_n) if block_n else DENSE)
    assert found == chosen(dataclasses.replace(shape, activation="none"), COMPACT_KERNEL, block_n)
    if shape == LAYER and block_n == 0:
        assert chosen(relu, ANY_KERNEL).expands_weights, "this test must leave something out"


def test_the_choice_is_the_same_where_none_of_them_runs() -> None:
    for shape in (
        dataclasses.replace(LAYER, kernel=(1, 1), padding=(0, 0)),
        dataclasses.replace(LAYER, stride=(2, 2)),
    ):
        assert chosen(shape, COMPACT_KERNEL) == chosen(shape, ANY_KERNEL)
    assert chosen(LAYER, COMPACT_KERNEL, dtype="bf16") == chosen(LAYER, ANY_KERNEL, dtype="bf16")


@pytest.mark.parametrize("free", [-3, 10**6])
def test_what_is_no_row_and_no_choice_is_refused(free: int) -> None:
    with pytest.raises(UsageError, match="kernel must be a row of the kernel table, -1 or -2"):
        chosen(LAYER, free)


def test_plans_that_name_them_are_refused() -> None:
    expanding = min(expanding_kernels())
    direct = next(kernel.name for kernel in spec.all_kernels() if not kernel.expands_weights)
    layers = {"open": LayerChoice(), "direct": LayerChoice(kernel=direct)}
    check_compact(Plan(model="net", layers=layers))
    with pytest.raises(PlanError, match=rf"names {expanding} for 'conv'; leave compact_weights out"):
        check_compact(Plan(model="net", layers={**layers, "conv": LayerChoice(kernel=expanding)}))
