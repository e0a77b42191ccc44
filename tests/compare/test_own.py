"""Plans of our contestants from made-up tables, and which layers random masks prune."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from autosparse.compare import own
from autosparse.compare.records import Asked, Subject
from autosparse.errors import UsageError
from autosparse.graph import fuse, trace
from autosparse.plans.plan import Plan
from autosparse.records import DENSE, LatencyOption, LayerChoice, LayerInfo, LayerShape, onexn


def layer(name: str, inputs: int = 64, *why_dense: str) -> LayerInfo:
    shape = LayerShape(
        op="conv2d", batch_size=1, in_channels=inputs, out_channels=64, in_height=8, in_width=8
    )
    return LayerInfo(name=name, shape=shape, why_dense=why_dense)


def option(us: float, block_n: int = 0, sparsity: float = 0.0) -> LatencyOption:
    choice = LayerChoice(
        pattern=onexn(block_n) if block_n else DENSE,
        sparsity=sparsity,
        kernel=f"kernel{block_n}",
    )
    return LatencyOption(choice=choice, median_us=us, ci_low_us=us, ci_high_us=us, flops_kept=1)


def asked(**changes: Any) -> Asked:
    return Asked(subject=Subject(model="net"), **{"patterns": (onexn(8), onexn(16)), **changes})


LAYERS = (layer("stem", 3), layer("a.conv"), layer("a.down"), layer("odd", 64, "grouped"), layer("fc"))


def test_first_last_excluded_and_refused_layers_stay_dense() -> None:
    names = [each.name for each in own.sparse_layers(LAYERS, ())]
    assert names == ["a.conv", "a.down"]
    assert [each.name for each in own.sparse_layers(LAYERS, ("*down*",))] == ["a.conv"]


def test_a_model_that_cannot_be_sparse_says_why() -> None:
    with pytest.raises(UsageError, match=r"all 3 stay dense \(grouped\); write --sparsity none"):
        own.sparse_layers(LAYERS, ("a.*",))


def test_every_layer_gets_the_fastest_n_of_those_allowed() -> None:
    options = (option(10.0), option(7.0, 8, 0.5), option(4.0, 8, 0.75), option(3.0, 16, 0.75))
    best = own.sparse_choice(options, 0.75, (onexn(8), onexn(16)), "f32")
    assert (best.pattern, best.sparsity, best.kernel) == (onexn(16), 0.75, "kernel16")
    assert own.sparse_choice(options, 0.5, (onexn(8), onexn(16)), "f32").pattern == onexn(8)


def test_a_layer_that_is_faster_dense_keeps_its_zeros_and_runs_dense() -> None:
    best = own.sparse_choice((option(2.0), option(3.0, 8, 0.5)), 0.5, (onexn(8), onexn(16)), "f32")
    assert (best.pattern, best.sparsity, best.kernel) == (onexn(16), 0.5, "kernel0")


def test_a_layer_that_was_not_timed_leaves_the_kernel_to_the_engine() -> None:
    best = own.sparse_choice((), 0.5, (onexn(8), onexn(16)), "f32")
    assert (best.pattern, best.sparsity, best.kernel) == (onexn(16), 0.5, None)


def test_contestants_are_named_by_type_and_zeros() -> None:
    tuned: Any = SimpleNamespace(
        options={each.name: (option(10.0), option(5.0, 8, 0.75)) for each in LAYERS}
    )
    sparse = own.sparse_layers(LAYERS, ())
    found = own.contestants(asked(sparsities=(0.5, 0.75)), LAYERS, sparse, "f32", tuned)
    assert [each.name for each in found] == [
        "autosparse dense",
        "autosparse 50 %",
        "autosparse 75 %",
    ]
    dense, half, most = found
    assert dense.zeros is None and set(dense.plan.layers) == {each.name for each in LAYERS}
    assert half.plan.layers["a.conv"].kernel == "kernel0"
    assert most.plan.layers["a.conv"].kernel == "kernel8"
    assert most.plan.layers["stem"].pattern.is_dense
    [only] = own.contestants(asked(sparsities=(0.75,), dense=False), LAYERS, sparse, "bf16", tuned)
    assert only.name == "autosparse bf16 75 %"


def test_untuned_contestants_name_no_kernel_and_run_every_pattern() -> None:
    made = asked(sparsities=(0.5, 0.75), untuned=True)
    found = own.untuned_contestants(made, LAYERS, own.sparse_layers(LAYERS, ()), "bf16")
    assert [each.name for each in found] == [
        "autosparse bf16 dense",
        *(f"autosparse bf16 {part} % {p.name}" for part in (50, 75) for p in made.patterns),
    ]
    choices = [choice for each in found if each.plan for choice in each.plan.layers.values()]
    assert {(choice.kernel, choice.dtype) for choice in choices} == {(None, "bf16")}
    assert found[0].zeros is None and not found[0].plan.is_sparse
    assert found[-1].plan.layers["a.conv"].sparsity == 0.75
    assert found[-1].plan.layers["stem"].pattern.is_dense


def test_a_layer_of_so_few_inputs_that_nothing_is_pruned_is_dense() -> None:
    tuned: Any = SimpleNamespace(options={})
    layers = (layer("stem"), layer("few", 2), layer("fc"))
    plan = own.make_plan(asked(), layers, (layers[1],), 0.25, "f32", tuned)
    assert "few" not in plan.layers


def test_a_type_that_no_kernel_computes_in_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own.spec, "all_kernels", lambda: (SimpleNamespace(dtype="f32"),))
    own.check_dtypes(("f32",))
    with pytest.raises(UsageError, match=r"kernels of this build compute in \(f32\), but got bf16"):
        own.check_dtypes(("f32", "bf16"))


def test_a_plan_runs_in_the_type_that_it_says(tmp_path: Path) -> None:
    choice = LayerChoice(pattern=onexn(16), sparsity=0.5, dtype="bf16")
    Plan(model="net", layers={"a.conv": choice}).save(tmp_path / "ab12.yaml")
    made = asked(sparsities=(), plan=str(tmp_path / "ab12.yaml"), artifact="some/net.autosparse")
    planned, exported = own.named_contestants(made)
    assert (planned.name, planned.dtype) == ("autosparse bf16 ab12", "bf16")
    assert planned.zeros is not None and not planned.zeros.random
    assert (exported.name, exported.artifact) == ("autosparse net.autosparse", "some/net.autosparse")


def test_a_model_that_would_run_through_torch_is_refused_before_tuning() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LeakyReLU(), nn.Conv2d(8, 8, 3), nn.LeakyReLU())
    fused = fuse(trace(net, (torch.zeros(1, 3, 8, 8),)))
    with pytest.raises(UsageError, match=r"leaky_relu.default in 1, 3 \(no converter"):
        own.check_native("net", fused)
    own.check_native("net", fuse(trace(net[:1], (torch.zeros(1, 3, 8, 8),))))
