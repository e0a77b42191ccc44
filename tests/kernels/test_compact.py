"""Kernels that expand weights: which they are by the bytes they hold, and the choice without them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autosparse.errors import PlanError
from autosparse.kernels import spec
from autosparse.kernels.compact import check_compact, compact_choice, expanding_kernels
from autosparse.kernels.layer import LayerProgram, random_blocks
from autosparse.kernels.spec import KernelSpec
from autosparse.plan import Plan
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


def chosen(shape: LayerShape, block_n: int = 0, dtype: str = "f32") -> KernelSpec | None:
    structure = random_blocks(shape, onexn(block_n), 0.75, seed=0) if block_n else None
    op = dataclasses.replace(
        spec.native_op(shape, onexn(block_n) if block_n else DENSE),
        weight=np.ones((shape.out_channels, shape.in_channels, *shape.kernel), np.float32),
        group_start=structure.group_start if structure else None,
        kept=structure.kept if structure else None,
    )
    return compact_choice(op, spec.input_shape(shape), spec.output_shape(shape), dtype)


@pytest.mark.parametrize("shape", [LAYER, STEM], ids=["3x3", "7x7"])
@pytest.mark.parametrize("block_n", [0, 16])
def test_the_choice_without_them_runs_the_layer(shape: LayerShape, block_n: int) -> None:
    pattern = onexn(block_n) if block_n else DENSE
    relu = dataclasses.replace(shape, activation="relu", residual=True)
    found = chosen(relu, block_n)
    assert found is not None and not found.expands_weights
    assert found in spec.kernels_for(relu, pattern)
    assert found == chosen(shape, block_n)
    # No narrower vectors than the best of the machine.
    assert found.isa == spec.binding.detect_isa() or found.isa == "avx512"


def test_the_executor_chooses_freely_where_none_of_them_runs() -> None:
    assert chosen(dataclasses.replace(LAYER, kernel=(1, 1), padding=(0, 0))) is None
    assert chosen(dataclasses.replace(LAYER, stride=(2, 2))) is None
    assert chosen(LAYER, dtype="bf16") is None


def test_plans_that_name_them_are_refused() -> None:
    expanding = min(expanding_kernels())
    direct = next(kernel.name for kernel in spec.all_kernels() if not kernel.expands_weights)
    layers = {"open": LayerChoice(), "direct": LayerChoice(kernel=direct)}
    check_compact(Plan(model="net", layers=layers))
    with pytest.raises(PlanError, match=rf"names {expanding} for 'conv'; leave compact_weights out"):
        check_compact(Plan(model="net", layers={**layers, "conv": LayerChoice(kernel=expanding)}))
