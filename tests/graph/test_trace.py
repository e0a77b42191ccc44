"""Single operators: what each becomes, and that it computes the same."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from autosparse.errors import ModelError, UsageError
from autosparse.graph import Graph, Op, capture_layers, fuse, trace

Interpret = Callable[..., list[Tensor]]


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., object], **parameters: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in parameters.items():
            self.register_buffer(name, value)

    def forward(self, *inputs: Tensor) -> object:
        buffers = dict(self.named_buffers())
        return self.function(*inputs, **buffers)


X = torch.randn(2, 6, 9, 11, generator=torch.Generator().manual_seed(1))
ROWS = torch.randn(3, 10, generator=torch.Generator().manual_seed(2))

SUPPORTED: dict[str, tuple[nn.Module, Tensor, list[Op]]] = {
    "conv": (nn.Conv2d(6, 4, 3, 2, 1), X, [Op.CONV]),
    "conv without bias": (nn.Conv2d(6, 4, (1, 5), bias=False), X, [Op.CONV]),
    "conv dilated": (nn.Conv2d(6, 4, 3, padding=2, dilation=2), X, [Op.CONV]),
    "conv same": (nn.Conv2d(6, 4, (2, 4), padding="same"), X, [Op.CONV]),
    "conv valid": (nn.Conv2d(6, 4, 3, padding="valid"), X, [Op.CONV]),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2), X, [Op.CONV_GROUPED]),
    "depthwise": (nn.Conv2d(6, 12, 3, groups=6), X, [Op.CONV_GROUPED]),
    "linear": (nn.Linear(10, 7), ROWS, [Op.CONV]),
    "batch-norm": (nn.BatchNorm2d(6), X, [Op.AFFINE]),
    "batch-norm plain": (nn.BatchNorm2d(6, affine=False), X, [Op.AFFINE]),
    "batch-norm rows": (nn.BatchNorm1d(10), ROWS, [Op.AFFINE]),
    "relu": (nn.ReLU(inplace=True), X, [Op.ACTIVATION]),
    "relu6": (nn.ReLU6(inplace=True), X, [Op.ACTIVATION]),
    "clamp": (Calls(lambda x: x.clamp(0, 6)), X, [Op.ACTIVATION]),
    "clamp below": (Calls(lambda x: x.clamp(min=0)), X, [Op.ACTIVATION]),
    "silu": (nn.SiLU(), X, [Op.ACTIVATION]),
    "hardswish": (nn.Hardswish(), X, [Op.ACTIVATION]),
    "hardsigmoid": (nn.Hardsigmoid(), X, [Op.ACTIVATION]),
    "sigmoid": (nn.Sigmoid(), ROWS, [Op.ACTIVATION]),
    "gelu": (nn.GELU(), X, [Op.ACTIVATION]),
    "softmax": (nn.Softmax(-1), ROWS, [Op.SOFTMAX]),
    "softmax channels": (nn.Softmax(1), X, [Op.SOFTMAX]),
    "max-pool": (nn.MaxPool2d(3, 2, 1), X, [Op.MAX_POOL]),
    "max-pool dilated": (nn.MaxPool2d(2, dilation=2), X, [Op.MAX_POOL]),
    "max-pool ceil": (nn.MaxPool2d(2, 2, ceil_mode=True), X, [Op.MAX_POOL]),
    "avg-pool": (nn.AvgPool2d(3, 2, 1), X, [Op.AVG_POOL]),
    "avg-pool uncounted": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), X, [Op.AVG_POOL]),
    "avg-pool ceil": (nn.AvgPool2d(2, 2, ceil_mode=True), X, [Op.AVG_POOL]),
    "avg-pool ceil padded": (nn.AvgPool2d(4, 3, 1, ceil_mode=True), X, [Op.AVG_POOL]),
    "max-pool ceil padded": (nn.MaxPool2d(4, 3, 1, ceil_mode=True), X, [Op.MAX_POOL]),
    "global": (nn.AdaptiveAvgPool2d(1), X, [Op.GLOBAL_AVG_POOL]),
    "mean": (Calls(lambda x: x.mean((-1, 2))), X, [Op.GLOBAL_AVG_POOL]),
    "mean kept": (Calls(lambda x: x.mean([2, 3], keepdim=True)), X, [Op.GLOBAL_AVG_POOL]),
    "amax": (Calls(lambda x: x.amax((2, 3))), X, [Op.MAX_POOL]),
    "adaptive divisor": (nn.AdaptiveAvgPool2d((3, 11)), X, [Op.AVG_POOL]),
    "adaptive": (nn.AdaptiveAvgPool2d((4, 13)), X, [Op.ADAPTIVE_AVG_POOL]),
    "adaptive same": (nn.AdaptiveAvgPool2d((9, 11)), X, []),
    "adaptive max": (nn.AdaptiveMaxPool2d((3, 1)), X, [Op.MAX_POOL]),
    "flatten": (nn.Flatten(), X, [Op.FLATTEN]),
    "view": (Calls(lambda x: x.view(x.size(0), -1)), X, [Op.FLATTEN]),
    "flat already": (Calls(lambda x: x.mean((2, 3), keepdim=True).flatten(1)), X, [Op.GLOBAL_AVG_POOL]),
    "back to images": (Calls(lambda x: x.relu()[:, :, None, None]), ROWS, [Op.ACTIVATION]),
    "dropout": (nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.Dropout2d(0.5)), X, [Op.ACTIVATION]),
    "identity": (nn.Sequential(nn.Identity(), nn.ReLU()), X, [Op.ACTIVATION]),
    "no-ops": (Calls(lambda x: x.detach().contiguous().relu().clone()), X, [Op.ACTIVATION]),
    "add": (Calls(lambda x: x.relu() + x), X, [Op.ACTIVATION, Op.ADD]),
    "add number": (Calls(lambda x: x + 3), X, [Op.AFFINE]),
    "subtract from": (Calls(lambda x: 1 - x), X, [Op.AFFINE]),
    "scale": (Calls(lambda x: 2.5 * x / 3.0), X, [Op.AFFINE]),
    "normalise": (
        Calls(lambda x, m, s: (x - m) / s, m=torch.rand(1, 6, 1, 1), s=torch.rand(6, 1, 1) + 1),
        X,
        [Op.AFFINE],
    ),
    "multiply": (Calls(lambda x: x.relu() * x), X, [Op.ACTIVATION, Op.MUL]),
    "squeeze-excite": (
        Calls(lambda x: x.mean((2, 3), keepdim=True).sigmoid() * x),
        X,
        [Op.GLOBAL_AVG_POOL, Op.ACTIVATION, Op.MUL],
    ),
    "concat": (Calls(lambda x: torch.cat([x, x.relu(), x], 1)), X, [Op.ACTIVATION, Op.CONCAT]),
    "option A": (
        Calls(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 2), "constant", 0)),
        X,
        [Op.SUBSAMPLE_PAD],
    ),
    "slice": (Calls(lambda x: x[:, :, ::3, ::2]), X, [Op.SUBSAMPLE_PAD]),
    "pad and conv": (
        nn.Sequential(nn.ZeroPad2d((1, 2, 0, 3)), nn.Conv2d(6, 4, 3, padding=1)),
        X,
        [Op.CONV],
    ),
}


def close(ours: Tensor, theirs: Tensor) -> None:
    scale = theirs.abs().max().clamp(min=1e-3)
    assert ours.shape == theirs.shape
    assert ((ours - theirs.double()).abs().max() / scale) < 1e-5


@pytest.mark.parametrize("name", SUPPORTED)
def test_operator_becomes_its_node_and_computes_the_same(
    name: str, interpret: Interpret, stirred: Callable[[nn.Module], nn.Module]
) -> None:
    module, x, ops = SUPPORTED[name]
    stirred(module)
    graph = trace(module, (x,))
    fused = fuse(graph)
    assert [node.op for node in fused.nodes] == ops, [node.reason for node in fused.nodes]
    close(interpret(fused, x)[0], module(x.clone()))
    close(interpret(graph, x)[0], module(x.clone()))


UNSUPPORTED: dict[str, tuple[nn.Module, Tensor, str, str]] = {
    "group norm": (nn.GroupNorm(2, 6), X, "aten.group_norm.default", "no converter"),
    "tanh": (nn.Tanh(), X, "aten.tanh.default", "no converter"),
    "approximate gelu": (nn.GELU("tanh"), X, "aten.gelu.default", "exact"),
    "hardtanh": (nn.Hardtanh(-1, 1), X, "aten.hardtanh.default", "bounds"),
    "transposed": (nn.ConvTranspose2d(6, 4, 2), X, "aten.conv_transpose2d.input", "no converter"),
    "softmax of columns": (nn.Softmax(3), X, "aten.softmax.int", "channels"),
    "channel split": (Calls(lambda x: x[:, :3]), X, "aten.slice.Tensor", "whole dimension"),
    "transpose": (Calls(lambda x: x.transpose(2, 3)), X, "aten.transpose.int", "no converter"),
    "reshape": (Calls(lambda x: x.reshape(2, 6, 99)), X, "aten.", "flatten"),
    "mean of rows": (Calls(lambda x: x.mean(1)), X, "aten.mean.dim", "dimensions 2 and 3"),
    "lone pad": (nn.ZeroPad2d(1), X, "aten.pad.default", "followed by a convolution"),
    "pad with ones": (nn.ConstantPad2d(1, 1.0), X, "aten.pad.default", "zeros"),
    "broadcast": (Calls(lambda x: x + x.amax((2, 3), True)), X, "aten.add.Tensor", "alike"),
    "batch statistics": (nn.BatchNorm2d(6, track_running_stats=False), X, "aten.", ""),
    "divisor": (nn.AvgPool2d(2, divisor_override=3), X, "aten.avg_pool2d.default", "divisor_override"),
    "tokens": (nn.Linear(11, 3), X, "aten.linear.default", "(batch, channels)"),
    "volumes": (nn.ReLU(), X[None], "placeholder", "2 to 4 dimensions"),
    "integers": (nn.Embedding(4, 4), torch.zeros(2, 3, dtype=torch.int64), "placeholder", "float32"),
    "double": (Calls(lambda x: x.double().relu().float()), X, "aten._to_copy.default", "float32"),
    "random": (Calls(lambda x: x + torch.rand(1)), X, "aten.rand.default", "random"),
    "constant result": (Calls(lambda x, c: (x.relu(), c * 2), c=torch.ones(2, 2)), X, "", "depend"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_the_executor_lacks_is_named_with_the_reason(name: str) -> None:
    module, x, aten, reason = UNSUPPORTED[name]
    refused = fuse(trace(module.eval(), (x,))).unsupported
    assert refused
    assert refused[0].aten.startswith(aten)
    assert any(word in refused[0].reason for word in reason.split("|"))


@pytest.mark.smoke
def test_an_unsupported_operator_names_its_module() -> None:
    net = nn.Sequential(nn.Conv2d(6, 4, 1), nn.Sequential(nn.Tanh()))
    (refused,) = trace(net, (X,)).unsupported
    assert refused.module == "1.0"


def test_computed_weights_are_evaluated_and_stay_dense_for_the_search(interpret: Interpret) -> None:
    conv = nn.Conv2d(6, 8, 3)
    prune.random_unstructured(conv, "weight", 0.5)
    net = nn.Sequential(conv, nn.ReLU()).eval()
    fused = fuse(trace(net, (X,)))
    close(interpret(fused, X)[0], net(X))
    assert (fused.nodes[0].weight == 0).mean() == pytest.approx(0.5, abs=0.01)
    (layer,) = capture_layers(net, (X,))
    assert layer.name == "0"
    assert "computed" in layer.why_dense[0]


def test_training_flags_are_left_as_they_were() -> None:
    net = nn.Sequential(nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    net.train()
    net[1].eval()
    trace(net, (X,))
    assert [part.training for part in net.modules()] == [True, True, False, True]


def test_several_inputs_and_outputs_keep_their_structure() -> None:
    net = Calls(lambda x, y: {"sum": x + y, "rest": (x.relu(), y)})
    graph: Graph = trace(net, (X, X))
    assert len(graph.inputs) == 2
    assert [port.dims for port in graph.outputs] == [tuple(X.shape)] * 3
    assert torch.utils._pytree.tree_unflatten([1, 2, 3], graph.out_spec) == {"sum": 1, "rest": (2, 3)}


def test_a_module_that_counts_its_calls_is_refused() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x.relu()

    with pytest.raises(ModelError, match="'calls'"):
        trace(Counter(), (X,))


@pytest.mark.smoke
@pytest.mark.parametrize("inputs", [X, (), (1.0,), None])
def test_inputs_must_be_tensors(inputs: object) -> None:
    with pytest.raises(UsageError, match="example_inputs"):
        trace(nn.ReLU(), inputs)  # type: ignore[arg-type]


def test_a_model_must_be_a_module() -> None:
    with pytest.raises(UsageError, match="Module"):
        trace(lambda x: x, (X,))  # type: ignore[arg-type]


def test_what_torch_cannot_export_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="exportable"):
        trace(Calls(lambda x: x.relu() if x.sum() > 0 else x), (X,))


def test_torch_prints_no_graph_of_what_it_cannot_export(capsys: pytest.CaptureFixture[str]) -> None:
    def choose(x: torch.Tensor) -> torch.Tensor:
        return x.relu() if x.sum() > 0 else x

    with pytest.raises(ModelError, match="exportable"):
        trace(Calls(choose), (X,))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_model_says_meanwhile_is_heard(fails: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def speak(x: torch.Tensor) -> torch.Tensor:
        print("look here", file=sys.stderr)
        if fails:
            raise ValueError("no")
        return x.relu()

    before = sys.stderr
    with pytest.raises(ModelError) if fails else nullcontext():
        trace(Calls(speak), (X,))
    assert "look here\n" in capsys.readouterr().err
    assert sys.stderr is before


def test_a_wrong_input_size_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="exportable"):
        trace(nn.Conv2d(7, 4, 1), (X,))
