"""An artifact computes what the compiled model computes, to the bit, and tells where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import autosparse
from autosparse import models
from autosparse.deploy.container import ALIGNMENT
from autosparse.deploy.recorded import kept_blocks_of
from autosparse.engine import compile
from autosparse.errors import RunError, UsageError
from autosparse.graph import capture_layers
from autosparse.hardware import hardware_id
from autosparse.kernels.binding import NativeOp, OpKind
from autosparse.plans.plan import Plan
from autosparse.records import Accuracy, WholeLatency


def header_of(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + length]))


def same(left: Any, right: Any) -> bool:
    ours, shape = pytree.tree_flatten(left)
    theirs, other = pytree.tree_flatten(right)
    return shape == other and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a_loaded_model_computes_the_same_bits(
    dtype: str, net: nn.Module, image: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "net.autosparse"
    with compile(net, (image,), dtype=dtype, threads=1, exportable=True) as compiled:
        compiled.save(path)
        with autosparse.load(path, threads=1) as loaded:
            assert same(loaded(image.numpy()), compiled(image.numpy()))
            assert loaded.dtype == dtype
            assert loaded.weight_bytes == compiled.weight_bytes
            assert [layer.to_json() for layer in loaded.layers] == [
                layer.to_json() for layer in compiled.layers
            ]


@pytest.mark.parametrize(
    ("name", "block_n"),
    [*(("resnet20", block_n) for block_n in (1, 2, 4, 8, 16, 32)), ("mobilenet_v2", 16)],
)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_zoo_models_of_every_block_height(name: str, block_n: int, dtype: Any, tmp_path: Path) -> None:
    module = models.resolve(name).module
    images = torch.randn(1, 3, 40, 40)
    layers = capture_layers(module, (images,))
    plan = Plan.uniform(name, layers[1:], block_n=block_n, sparsity=0.75, dtype=dtype)
    autosparse.sparsify(module, plan)
    path = tmp_path / "model.autosparse"
    with compile(module, (images,), plan=plan, threads=1, exportable=True) as compiled:
        compiled.save(path, plan=plan)
        with autosparse.load(path, threads=1) as loaded:
            assert same(loaded(images), compiled(images))


def test_stored_weights_are_the_kept_blocks_alone(tmp_path: Path) -> None:
    layer = nn.Conv2d(256, 256, 3, padding=1, bias=False).eval()
    plan = Plan.uniform("layer", capture_layers(layer, (torch.randn(1, 256, 8, 8),)), block_n=16,
                        sparsity=0.75)  # fmt: skip
    autosparse.sparsify(layer, plan)
    sizes = {}
    for dtype in ("f32", "bf16"):
        path = tmp_path / f"{dtype}.autosparse"
        autosparse.export(
            layer, (torch.randn(1, 256, 8, 8),), path, dtype=dtype, measure=False, threads=1
        )
        sizes[dtype] = path.stat().st_size / (256 * 256 * 9 * 4)
    assert sizes["f32"] < 0.26
    assert sizes["bf16"] < 0.135


def test_blocks_are_stored_by_group_then_kept_input_then_position() -> None:
    weight = np.arange(5 * 4 * 2 * 3, dtype=np.float32).reshape(5, 4, 2, 3)
    op = NativeOp(
        kind=OpKind.CONV,
        inputs=(0,),
        output=1,
        weight=weight,
        block_n=2,
        group_start=np.array([0, 2, 2, 3], np.int32),
        kept=np.array([1, 3, 0], np.int32),
    )
    blocks = kept_blocks_of(op)
    assert blocks.shape == (3, 6, 2)
    assert blocks[1, 4, 1] == weight[1, 3, 1, 1]
    assert blocks[2, 5, 0] == weight[4, 0, 1, 2]
    assert not blocks[2, :, 1].any()  # the last group has one output


def test_the_file_is_safetensors_with_aligned_arrays(artifact: Path) -> None:
    with safetensors.safe_open(artifact, framework="numpy") as opened:
        metadata = opened.metadata()
        assert opened.get_tensor("program.ops").shape[1] == 28
        assert opened.get_tensor("op.1.weight").shape[1:] == (9, 16)
    assert (metadata["format"], metadata["format_version"]) == ("autosparse", "1")
    length = int.from_bytes(artifact.read_bytes()[:8], "little")
    header = header_of(artifact)
    del header["__metadata__"]
    assert (8 + length) % ALIGNMENT == 0
    assert all(
        entry["data_offsets"][0] % ALIGNMENT == 0 for entry in header.values() if entry["dtype"] != "U8"
    )


def test_the_manifest_says_what_it_is_and_where_from(
    net: nn.Module, image: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "net.autosparse"
    plan = Plan(model="net", note="uniform 1x16 at 0.5")
    accuracy = Accuracy(value=0.91, kind="full", split="test", samples=10_000)
    latency = WholeLatency(
        median_ms=1.5, ci_low_ms=1.4, ci_high_ms=1.6, repeats=30, threads=1, batch_size=2, dtype="f32"
    )
    with compile(net, (image,), threads=1, exportable=True) as compiled:
        written = compiled.save(path, model="net", plan=plan, accuracy=accuracy, latency=latency)
    with autosparse.load(path, threads=1) as loaded:
        manifest = loaded.manifest
    assert manifest == written
    assert (manifest.model, manifest.accuracy, manifest.latency) == ("net", accuracy, latency)
    assert manifest.latency_hardware_id == manifest.provenance.hardware_id == hardware_id()
    assert manifest.plan == json.loads(json.dumps(plan.to_json()))
    assert [port.shape for port in manifest.inputs] == [(2, 3, 14, 14)]
    assert [port.shape for port in manifest.outputs] == [(2, 10), (2, 40, 7, 7), (2, 40, 7, 7)]
    assert manifest.provenance.torch == torch.__version__
    assert manifest.provenance.autosparse == autosparse.__version__
    used = {layer.kernel for layer in manifest.layers} - {"builtin"}
    assert set(manifest.provenance.kernels) == used
    assert str(tmp_path) not in path.read_bytes().decode("latin1")


def test_export_compiles_measures_and_writes(net: nn.Module, image: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "net.autosparse"
    manifest = autosparse.export(net, (image,), path, name="net", threads=1)
    assert manifest.latency is not None and manifest.latency.median_ms > 0
    with autosparse.load(path, threads=1) as loaded:
        with torch.inference_mode():
            wanted = net(image)["classes"]
        assert torch.allclose(loaded(image)["classes"], wanted, rtol=1e-4, atol=1e-4)


def test_a_file_that_exists_is_replaced_on_demand_only(
    net: nn.Module, image: Tensor, artifact: Path, tmp_path: Path
) -> None:
    path = tmp_path / "net.autosparse"
    path.write_bytes(artifact.read_bytes())
    with pytest.raises(UsageError, match="must not exist"):
        autosparse.export(net, (image,), path, measure=False)
    autosparse.export(net, (image,), path, measure=False, overwrite=True, threads=1)
    with pytest.raises(UsageError, match="folder"):
        autosparse.export(net, (image,), tmp_path, measure=False, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["net.autosparse"]


def test_what_cannot_be_saved_says_why(net: nn.Module, image: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "net.autosparse"
    with compile(net, (image,), threads=1) as compiled:
        with pytest.raises(UsageError, match="exportable=True"):
            compiled.save(path)

    class Foreign(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft2(x).abs()

    with pytest.raises(UsageError, match="runs through torch"):
        autosparse.export(Foreign(), (image,), path, measure=False)
    compiled = compile(net, (image,), threads=1, exportable=True)
    compiled.close()
    with pytest.raises(UsageError, match="closed"):
        compiled.save(path)
    with compile(net, (image,), threads=1, exportable=True) as compiled:
        with pytest.raises(RunError, match="must be writable"):
            compiled.save(Path("/proc/nowhere/net.autosparse"))
    assert not list(tmp_path.iterdir())


def test_later_changes_of_the_module_do_not_reach_the_file(image: Tensor, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    with compile(module, (image,), threads=1, exportable=True) as compiled:
        before = compiled(image)
        with torch.no_grad():
            module[0].weight.zero_()
        compiled.save(tmp_path / "net.autosparse")
    with autosparse.load(tmp_path / "net.autosparse", threads=1) as loaded:
        assert same(loaded(image), before)


class Tied(nn.Module):
    """One convolution called three times, and two more modules that hold its very parameters."""

    def __init__(self, block_n: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 32, 1)
        self.again, self.copy, self.other = (nn.Conv2d(32, 32, 3, padding=1) for _ in range(3))
        if block_n:
            with torch.no_grad():
                for start in range(0, 32, block_n):
                    self.again.weight[start : start + block_n, torch.randperm(32)[:24]] = 0.0
        self.copy.weight, self.copy.bias = self.again.weight, self.again.bias

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        for _ in range(3):
            x = torch.relu(self.again(x))
        return self.other(torch.sigmoid(self.copy(x)))


@pytest.mark.usefixtures("largest_blocks")
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("block_n", [0, 8])
def test_weights_that_are_shared_are_held_once(block_n: int, dtype: str, tmp_path: Path) -> None:
    path, net, x = tmp_path / "tied.autosparse", Tied(block_n).eval(), torch.randn(1, 3, 9, 9)
    # A kernel that keeps weights as they are, whatever the activation, so that sizes are known.
    options = {"threads": 1, "dtype": dtype, "exportable": True, "compact_weights": True}
    with compile(net, (x,), **options) as compiled:
        manifest = compiled.save(path)
        wanted = compiled(x)
        assert torch.allclose(wanted, net(x), atol=1e-4 if dtype == "f32" else 0.05)
        held = compiled.weight_bytes
    header = header_of(path)
    weights = [name for name in header if name.endswith(".weight")]
    assert len(weights) == 3, "of first, again and other"
    assert (manifest.format_version, header["__metadata__"]["format_version"]) == (2, "2")
    with autosparse.load(path, threads=1) as loaded:
        assert same(loaded(x), wanted)
        assert loaded.weight_bytes == held
        assert loaded.manifest == manifest
    with torch.no_grad():  # the same network without sharing
        net.copy.weight = nn.Parameter(net.copy.weight * 1.5)
    with compile(net, (x,), **options) as compiled:
        compiled.save(tmp_path / "untied.autosparse")
        more = compiled.weight_bytes - held
    size = 32 * 32 * 9 * (4 if dtype == "f32" else 2) * (0.25 if block_n else 1)
    assert 0.9 * size < more < 1.3 * size, "one more layer's weights"


def test_a_file_in_which_nothing_is_shared_is_of_the_first_version(artifact: Path) -> None:
    assert header_of(artifact)["__metadata__"]["format_version"] == "1"
    assert "program.shared" not in header_of(artifact)
