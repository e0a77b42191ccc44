"""The compiled model as its user sees it: kinds, errors, threads, measuring, closing, falling back."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.prune import ln_structured

import autosparse
from autosparse import hardware
from autosparse.engine import CompiledModel, compile
from autosparse.errors import ModelError, PlanError, UsageError
from autosparse.graph import Exported
from autosparse.kernels import binding, spec
from autosparse.plans.plan import Plan
from autosparse.records import LayerChoice, onexn

X = torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(8, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.Conv2d(32, 16, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    ).eval()


@pytest.fixture
def model() -> Iterator[CompiledModel]:
    with compile(net(), (X,), threads=1) as made:
        yield made


def test_is_the_public_function() -> None:
    assert autosparse.compile is compile
    assert autosparse.CompiledModel is CompiledModel


def test_gives_the_kind_it_is_given(model: CompiledModel) -> None:
    tensor, array = model(X), model(X.numpy())
    assert isinstance(tensor, Tensor)
    assert isinstance(array, np.ndarray)
    assert tensor.shape == (2, 5)
    assert np.array_equal(tensor.numpy(), array)


def test_results_are_fresh_and_carry_no_gradient(model: CompiledModel) -> None:
    first = model(X.clone().requires_grad_())
    kept = first.clone()
    model(X + 1)
    assert torch.equal(first, kept)
    assert not first.requires_grad
    (first * torch.ones(1, requires_grad=True)).sum().backward()


def test_takes_any_memory_layout(model: CompiledModel) -> None:
    expected = model(X)
    assert torch.equal(model(X.to(memory_format=torch.channels_last)), expected)
    assert torch.equal(model(X.transpose(2, 3).contiguous().transpose(2, 3)), expected)
    read_only = X.numpy().copy()
    read_only.flags.writeable = False
    assert np.array_equal(model(read_only), expected.numpy())
    assert np.array_equal(model(np.asfortranarray(X.numpy())), expected.numpy())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "takes 1 inputs, but got 0"),
        ((X, X), "takes 1 inputs, but got 2"),
        ((X[:1],), "example's shape"),
        ((X[..., :11],), r"\[2, 8, 12, 12\], but got \[2, 8, 12, 11\]"),
        ((X.double(),), "must be float32, but got float64"),
        ((X.numpy().astype(np.float64),), "must be float32, but got float64"),
        ((X.tolist(),), "torch tensors or all numpy arrays, but got list"),
        ((X.to("meta"),), "must be on the CPU"),
    ],
)
def test_wrong_inputs_are_refused(
    model: CompiledModel, inputs: tuple[object, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        model(*inputs)


def test_mixed_kinds_are_refused() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with compile(Sum(), (X, X), threads=1) as made:
        assert torch.equal(made(X, X), 2 * X)
        with pytest.raises(UsageError, match="Tensor, ndarray"):
            made(X, X.numpy())


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "fp16"},
        {"dtype": "bf16", "plan": Plan(model="m", layers={"0": LayerChoice()})},
        {"threads": 0},
        {"threads": 100_000},
        {"threads": True},
        {"threads": "2"},
        {"dtype": "f32", "plan": Plan(model="m", layers={"0": LayerChoice(dtype="bf16")})},
    ],
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"threads must be|dtype must be"):
        compile(net(), (X,), **options)  # type: ignore[arg-type]


def test_layers_tell_kernel_and_reason(model: CompiledModel) -> None:
    found = {layer.name: layer for layer in model.layers}
    assert list(found) == ["0", "3", "4", "7"]
    names = {kernel.name for kernel in spec.all_kernels()}
    assert all(found[name].kernel in names for name in ("0", "4", "7"))
    assert found["3"].kernel == "builtin"
    assert "depthwise" in found["3"].why
    assert all(layer.pattern == "dense" and layer.why for layer in model.layers)


def test_the_zeros_decide_whoever_pruned(prune_blocks: Callable[..., None]) -> None:
    module = net()
    prune_blocks(module[0].weight, 16, 0.75, torch.Generator().manual_seed(0))
    with compile(module, (X,), threads=1) as made:
        layer = made.layers[0]
        assert (layer.pattern, layer.sparsity) == ("1x16", 0.75)
        assert spec.get(layer.kernel).block_n == 16
        sparse_bytes = made.weight_bytes
    with compile(net(), (X,), threads=1) as made:
        assert sparse_bytes < made.weight_bytes


def test_later_changes_of_the_module_do_not_reach_it() -> None:
    module = net()
    with compile(module, (X,), threads=1) as made:
        before = made(X)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
        assert torch.equal(made(X), before)


def test_a_module_in_training_mode_is_compiled_for_evaluation() -> None:
    module = nn.Sequential(net(), nn.Dropout(0.9)).train()
    with compile(module, (X,), threads=1) as made:
        ours = made(X)
    assert module.training
    assert torch.allclose(ours, module.eval()(X), atol=1e-5)


def test_threads_take_turns() -> None:
    module = net()
    xs = [X + i for i in range(8)]
    with compile(module, (X,), threads=1) as made:
        expected = [made(x) for x in xs]
        wrong: list[int] = []

        def work(index: int) -> None:
            for _ in range(20):
                if not torch.equal(made(xs[index]), expected[index]):
                    wrong.append(index)

        workers = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert not wrong


def test_several_models_live_side_by_side() -> None:
    with compile(net(), (X,), threads=1) as one, compile(net(), (X[:1],), threads=1) as two:
        assert torch.allclose(one(X)[:1], two(X[:1]), atol=1e-6)
        assert (one.batch_size, two.batch_size) == (2, 1)


def test_closing_is_final_and_may_be_repeated(model: CompiledModel) -> None:
    model.close()
    model.close()
    for use in (lambda: model(X), lambda: model.run_times(1), lambda: model.weight_bytes):
        with pytest.raises(UsageError, match="closed"):
            use()


def test_can_be_neither_pickled_nor_copied(model: CompiledModel) -> None:
    with pytest.raises(TypeError, match="compile the module again where it is needed"):
        pickle.dumps(model)
    with pytest.raises(TypeError, match="compile the module again where it is needed"):
        copy.copy(model)


def test_measuring(model: CompiledModel) -> None:
    times = model.run_times(5)
    assert times.shape == (5,)
    assert (times > 0).all()
    whole = model.measure(8)
    assert 0 < whole.ci_low_ms <= whole.median_ms <= whole.ci_high_ms
    assert (whole.repeats, whole.threads, whole.batch_size, whole.engine) == (8, 1, 2, "autosparse")
    operators, layers = model.measure_operators(10), model.measure_layers(10)
    assert set(layers) == {"0", "3", "4", "7"}
    assert set(layers) < set(operators)
    assert all(us >= 0 for us in operators.values())
    assert sum(layers.values()) > 0
    with pytest.raises(UsageError, match="repeats"):
        model.run_times(0)


def test_counts_lines_that_move_per_operator(model: CompiledModel) -> None:
    assert set(model.moved_lines()) == set(model.measure_operators(10))
    assert not any(map(any, model.moved_lines().values()))
    with compile(net(), (X[:1],), threads=2) as on_two:
        assert any(map(any, on_two.moved_lines().values()))


def test_arena_and_weights_have_sizes(model: CompiledModel) -> None:
    weights = 4 * sum(p.numel() for name, p in net().named_parameters() if name.endswith("weight"))
    assert 0.8 * weights < model.weight_bytes < 4 * weights
    assert model.arena_bytes >= 2 * 8 * 12 * 12 * 4


# ------------------------------------------------------------------------------------- plans


def planned(kernel: str | None, sparsity: float = 0.5, block_n: int = 8) -> Plan:
    choice = LayerChoice(pattern=onexn(block_n), sparsity=sparsity, kernel=kernel)
    return Plan(model="m", layers={"0": choice})


def kernels_for(module: nn.Module, block_n: int) -> tuple[str, ...]:
    from autosparse.graph import capture_layers

    shape = capture_layers(module, (X,))[0].shape
    assert shape is not None
    return tuple(kernel.name for kernel in spec.kernels_for(shape, onexn(block_n)))


@pytest.mark.smoke
def test_the_plans_kernel_is_used(prune_blocks: Callable[..., None]) -> None:
    module = net()
    prune_blocks(module[0].weight, 8, 0.5, torch.Generator().manual_seed(0))
    for name in kernels_for(module, 8):
        with compile(module, (X,), threads=1, plan=planned(name)) as made:
            assert made.layers[0].kernel == name
            assert made.layers[0].why == "named by the plan"
            assert torch.allclose(made(X), module(X), atol=1e-4)


def test_a_plan_whose_zeros_are_missing_is_refused() -> None:
    with pytest.raises(PlanError, match="sparsify"):
        compile(net(), (X,), plan=planned(None))


def test_a_plan_for_another_model_is_refused() -> None:
    plan = Plan(model="m", layers={"conv9": LayerChoice()})
    with pytest.raises(PlanError, match="conv9"):
        compile(net(), (X,), plan=plan)


def test_a_plans_kernel_that_cannot_run_here_gives_way_to_another(
    prune_blocks: Callable[..., None],
) -> None:
    module = net()
    prune_blocks(module[0].weight, 8, 0.5, torch.Generator().manual_seed(0))
    wide = [k.name for k in spec.all_kernels() if k.block_n == 8 and k.isa != "generic"]
    if not wide:
        pytest.skip("this build has kernels of the portable baseline only")
    try:
        binding.limit_isa("generic")
        with compile(module, (X,), threads=1, plan=planned(wide[0])) as made:
            assert made.engine == "autosparse"
            found = made.layers[0]
            assert (found.pattern, found.sparsity) == ("1x8", 0.5)
            assert found.kernel in kernels_for(module, 8)
            assert f"named by the plan, but refused: {wide[0]}: needs" in found.why
            assert torch.allclose(made(X), module(X), atol=1e-4)
    finally:
        binding.limit_isa(None)


def test_a_plans_kernel_of_another_type_is_refused(prune_blocks: Callable[..., None]) -> None:
    module = net()
    prune_blocks(module[0].weight, 8, 0.5, torch.Generator().manual_seed(0))
    other = next(k.name for k in spec.all_kernels() if k.block_n == 8 and k.dtype == "bf16")
    with pytest.raises(PlanError, match=f"{other} of '0' computes in bf16"):
        compile(module, (X,), threads=1, plan=planned(other))


@pytest.mark.parametrize(
    "parametrise",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.weight_norm,
        lambda layer: ln_structured(layer, "weight", 0.5, n=1, dim=1),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_are_computed_are_baked(
    parametrise: Callable[[nn.Module], object], check: Callable[..., CompiledModel]
) -> None:
    module = net()
    parametrise(module[0])
    before = module[0].weight.detach().clone()
    made = check(module, (X,), threads=1)
    # A mask over whole inputs leaves blocks of zeros, whoever multiplies by it.
    whole = bool((before == 0).any())
    assert (made.layers[0].sparsity == 0.5) == whole
    assert torch.allclose(module[0].weight.float(), before)


# ------------------------------------------------------------------------------- through torch


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)
        self.norm = nn.GroupNorm(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).relu_())


def test_a_model_with_a_foreign_operator_runs_through_torch_and_says_so(
    check: Callable[..., CompiledModel],
) -> None:
    model = check(Attention(), (X,), native=False)
    assert model.engine == "torch"
    assert "aten.group_norm.default in module 'norm'" in model.why[0]
    assert [layer.name for layer in model.layers] == ["conv"]
    assert model.layers[0].kernel == "torch"
    assert "group_norm" in model.layers[0].why


def test_through_torch_everything_else_works_too() -> None:
    module = Attention().eval()
    before = torch.get_num_threads()
    with compile(module, (X,), threads=1) as made:
        assert isinstance(made(X.numpy()), np.ndarray)
        with pytest.raises(UsageError, match="example's shape"):
            made(X[:1])
        assert made.measure(6).engine == "torch"
        assert made.measure_layers(2) == {}
        assert made.weight_bytes == 4 * (64 + 8 + 16)
        with torch.no_grad():
            module.conv.weight.zero_()
        assert made(X).abs().max() > 0.1
    assert torch.get_num_threads() == before


def test_sizes_that_the_executor_refuses_run_through_torch(check: Callable[..., CompiledModel]) -> None:
    model = check(nn.MaxPool2d((1, 1030)), (torch.randn(1, 2, 3, 1100),), native=False)
    assert model.why == ("aten.max_pool2d.default: kernel_h and kernel_w must lie in 1..1024",)


def test_integer_inputs_run_through_torch() -> None:
    tokens = torch.arange(6).reshape(2, 3)
    with compile(nn.Embedding(8, 4), (tokens,)) as made:
        assert made.engine == "torch"
        assert made(tokens).shape == (2, 3, 4)
        assert made.run_times(2).shape == (2,)


def test_what_cannot_be_exported_is_an_error() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match="exportable"):
        compile(Branch(), (X,))


def test_default_threads_are_the_usable_cores() -> None:
    with compile(net(), (X,)) as made:
        assert made.threads == hardware.usable_cores()


def test_several_weights_of_one_model_are_captured_once() -> None:
    """Each compiled model keeps the weights that the module held then."""
    first, second = net(), net()
    with torch.no_grad():
        for values in second.parameters():
            values.mul_(0.5)
    captured = Exported(net(), (X,))
    with pytest.raises(
        UsageError, match=r"captured on, .*\(2, 8, 12, 12\).*, but got .*\(1, 8, 12, 12\)"
    ):
        compile(captured, (X[:1],), threads=1)
    models = []
    for each in (first, second):
        captured.module.load_state_dict(each.state_dict())
        models.append(compile(captured, (X,), threads=1))
    for model, module in zip(models, (first, second), strict=True):
        with model, torch.no_grad():
            torch.testing.assert_close(model(X), module(X), rtol=1e-4, atol=1e-5)
