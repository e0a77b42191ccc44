"""Weight files: all the good ones load, all the bad ones say why in one sentence, none runs code."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from autosparse.errors import ModelError
from autosparse.models import load_weights, read_state, resolve
from autosparse.models.weights import file_hash


def source_module() -> nn.Module:
    return resolve("resnet20", seed=3).module


def save(state: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


def check_equal(path: Path, **options: Any) -> None:
    wanted = source_module().state_dict()
    got = resolve("resnet20", weights=path, **options)
    state = got.module.state_dict()
    assert all(torch.equal(state[key], wanted[key]) for key in wanted)
    assert got.pretrained
    assert got.weights_hash == file_hash(path)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.th", "w.safetensors"])
def test_a_saved_state_loads_unchanged(name: str, tmp_path: Path) -> None:
    check_equal(save(source_module().state_dict(), tmp_path / name))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": s, "epoch": 3, "best": 0.9},
        lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {k: v for k, v in s.items() if "num_batches_tracked" not in k},
        lambda s: {k: v.double() if v.is_floating_point() else v for k, v in s.items()},
    ],
    ids=["module", "compiled", "state_dict", "model", "nested", "without counters", "float64"],
)
def test_wrappings_are_undone(wrap: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    check_equal(save(wrap(source_module().state_dict()), tmp_path / "wrapped.pt"))


def test_the_old_format_of_torch_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.th"
    torch.save(source_module().state_dict(), path, _use_new_zipfile_serialization=False)
    check_equal(path)


def test_classes_follow_the_weights(tmp_path: Path) -> None:
    path = save(resolve("resnet20", classes=7).module.state_dict(), tmp_path / "seven.pt")
    assert resolve("resnet20", weights=path).classes == 7
    assert resolve("resnet20", weights=path, classes=7).classes == 7
    with pytest.raises(ModelError, match=r"10 classes were asked for and .* has 7"):
        resolve("resnet20", weights=path, classes=10)


def test_a_misfit_names_the_first_keys(tmp_path: Path) -> None:
    state = source_module().state_dict()
    state["stranger"] = torch.zeros(2)
    state["bn1.weight"] = torch.zeros(5)
    del state["layer1.0.conv1.weight"]
    path = save(state, tmp_path / "misfit.pt")
    with pytest.raises(ModelError) as caught:
        load_weights(source_module(), path)
    message = str(caught.value)
    assert "1 missing: layer1.0.conv1.weight" in message
    assert "1 unexpected: stranger" in message
    assert "1 of another shape: bn1.weight (5, not 16)" in message


def test_many_misfits_are_counted_and_not_all_named(tmp_path: Path) -> None:
    path = save(resolve("resnet32").module.state_dict(), tmp_path / "deeper.pt")
    with pytest.raises(ModelError, match="unexpected: ") as caught:
        load_weights(source_module(), path)
    assert len(str(caught.value)) < 500


def test_a_misfit_changes_nothing(tmp_path: Path) -> None:
    module, before = source_module(), source_module().state_dict()
    state = resolve("resnet20", seed=9).module.state_dict()
    del state["linear.bias"]
    with pytest.raises(ModelError):
        load_weights(module, save(state, tmp_path / "partial.pt"))
    assert all(torch.equal(module.state_dict()[key], before[key]) for key in before)


BAD = {
    "empty": (b"", "is empty"),
    "page": (b"\n<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    "text": (b"these are not weights\n" * 100, "damaged"),
    "zeros": (bytes(4096), "damaged"),
    "zip": (b"PK\x03\x04" + bytes(400), "damaged"),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", BAD)
def test_files_of_another_kind_are_refused(name: str, suffix: str, tmp_path: Path) -> None:
    content, reason = BAD[name]
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=reason) as caught:
        read_state(path)
    assert "\n" not in str(caught.value)


def save_old(state: Any, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("writer", [torch.save, save_old, safetensors.torch.save_file])
def test_truncation_is_seen_in_every_format(
    writer: Callable[[Any, Path], None], share: float, tmp_path: Path
) -> None:
    path = tmp_path / ("w.safetensors" if "safetensors" in writer.__module__ else "w.th")
    writer(source_module().state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ModelError, match=r"truncated|of another kind") as caught:
        read_state(path)
    assert "\n" not in str(caught.value)


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_a_damaged_byte_never_escapes_as_another_error(tmp_path: Path) -> None:
    path = tmp_path / "old.th"
    save_old({"w": torch.arange(4.0), "b": torch.zeros(2)}, path)
    content = path.read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            read_state(path)
        except ModelError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("writer", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_code_in_a_file_is_not_run(writer: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    path, target = tmp_path / "evil.pt", tmp_path / "was-run"
    writer({"state_dict": {"w": torch.zeros(1)}, "extra": Evil(target)}, path)
    with pytest.raises(ModelError):
        read_state(path)
    assert not target.exists()


def test_a_pickled_module_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="state_dict"):
        read_state(save(nn.Linear(2, 2), tmp_path / "module.pt"))


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(1)], torch.zeros(3)])
def test_a_file_without_a_state_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="dict of tensors"):
        read_state(save(content, tmp_path / "other.pt"))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = source_module().state_dict()
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"NaN or infinity in conv1\.weight"):
        read_state(save(state, tmp_path / "nan.pt"))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(ModelError, match="readable file"):
            read_state(path)


@pytest.mark.parametrize(
    ("name", "file"), [("resnet20", "resnet20-12fca82f.th"), ("resnet32", "resnet32-d509ac18.th")]
)
def test_public_cifar_weights_fit(name: str, file: str, real_data: Path) -> None:
    path = real_data / "cifar10_resnets" / file
    loaded = resolve(name, weights=path)
    assert loaded.classes == 10
    assert loaded.weights_hash is not None
    assert loaded.weights_hash.startswith(file.partition("-")[2].removesuffix(".th"))
