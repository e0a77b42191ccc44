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


def prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {prefix + name: value for name, value in state.items()}


def masked(state: dict[str, Any]) -> dict[str, Any]:
    """As torch's pruning saves it: what the mask removes is still there."""
    made = {}
    for name, value in state.items():
        if name.endswith("conv1.weight"):
            mask = (value != value.flatten()[0]).float()
            made[f"{name}_orig"], made[f"{name}_mask"] = value, mask
            value.mul_(mask)  # the state that the test compares with
            made[f"{name}_orig"] = torch.where(mask == 0, torch.tensor(5.0), value)
        else:
            made[name] = value
    return made


@pytest.mark.smoke
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
        lambda s: prefixed("net.", s),
        lambda s: prefixed("model.", s),
        lambda s: {"state_dict_ema": s, "epoch": 3},
        lambda s: {"net": s, "acc": 93.1},
        lambda s: {"model_state": s},
        lambda s: {"ema": {"module": prefixed("module.", s), "updates": 7}},
        lambda s: {"checkpoint": {"generator": {"weights": prefixed("backbone.0.", s)}}},
        lambda s: {
            "epoch": 3,
            "state_dict": {**prefixed("model.", s), "criterion.weight": torch.ones(10)},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
            "loops": {"fit_loop": {"best": torch.tensor(0.1)}},
        },
        lambda s: {"network": s, "state_dict_ema": {k: v + 1 for k, v in s.items()}},
        lambda s: {"student": s, "model": {k: v.clone() for k, v in s.items()}},
        masked,
        lambda s: {"net": prefixed("module.", masked(s))},
    ],
    ids=[
        "module",
        "compiled",
        "state_dict",
        "model",
        "nested",
        "without counters",
        "float64",
        "net.",
        "model.",
        "state_dict_ema",
        "net",
        "model_state",
        "ema.module",
        "a name nobody knows",
        "a trainer's checkpoint",
        "weights beside their average",
        "the same weights twice",
        "pruning masks",
        "pruning masks, wrapped",
    ],
)
def test_wrappings_are_undone(wrap: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    wanted = source_module().state_dict()
    path = save(wrap(wanted), tmp_path / "wrapped.pt")
    got = resolve("resnet20", weights=path)
    state = got.module.state_dict()
    assert all(torch.equal(state[key], wanted[key]) for key in wanted)
    assert (got.pretrained, got.weights_hash, got.classes) == (True, file_hash(path), 10)
    by_module = resolve("resnet20", seed=8).module
    load_weights(by_module, path)
    assert all(torch.equal(by_module.state_dict()[key], wanted[key]) for key in wanted)


def test_weights_of_a_wrapped_model_fit_its_wrapper(tmp_path: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.ModuleDict({"net": nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 3))})

    wrapper, plain = Wrapper(), nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 3))
    load_weights(wrapper, save(plain.state_dict(), tmp_path / "plain.pt"))
    assert torch.equal(wrapper.body["net"][1].weight, plain[1].weight)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm], ids=["old", "new"]
)
def test_the_two_parts_of_weight_norm_are_put_together(norm: Any, tmp_path: Path) -> None:
    made = nn.Sequential(norm(nn.Conv2d(3, 4, 3)), norm(nn.Linear(4, 5)))
    path = save(made.state_dict(), tmp_path / "normed.pt")
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 5))
    load_weights(plain, path)
    for index in range(2):
        assert torch.allclose(plain[index].weight, made[index].weight, atol=1e-6)
    same = nn.Sequential(norm(nn.Conv2d(3, 4, 3)), norm(nn.Linear(4, 5)))
    load_weights(same, path)  # a model that is parametrised itself takes them as they are
    assert torch.equal(same.state_dict()["0.bias"], made.state_dict()["0.bias"])


def test_a_parametrisation_that_only_the_model_can_compute_names_the_remedy(tmp_path: Path) -> None:
    made = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), nn.Conv2d(4, 4, 1)
    )
    path = save(made.state_dict(), tmp_path / "spectral.pt")
    with pytest.raises(
        ModelError, match=r"parametrizations.weight.original in place of 0\.weight.*bake"
    ):
        load_weights(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)), path)


def test_several_sets_of_weights_are_refused_by_name(tmp_path: Path) -> None:
    first, second = (resolve("resnet20", seed=seed).module.state_dict() for seed in (1, 2))
    both = {**prefixed("student.", first), **prefixed("critic.", second)}
    with pytest.raises(ModelError, match="holds several: 'critic', 'student'; save the one"):
        resolve("resnet20", weights=save(both, tmp_path / "both.pt"))


def test_a_buffer_may_hold_infinities_and_weights_and_statistics_may_not(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
            self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))

    path = tmp_path / "masked.pt"
    made = Masked()
    load_weights(made, save(Masked().state_dict(), path))
    assert made.mask[0, 1] == -torch.inf
    for name in ("conv.weight", "conv.bias", "bn.weight", "bn.running_var"):
        state = Masked().state_dict()
        state[name].flatten()[0] = torch.inf
        with pytest.raises(ModelError, match=f"NaN or infinity in {name}"):
            load_weights(made, save(state, path))
    state = Masked().state_dict()
    state["mask"][0, 0] = torch.nan
    with pytest.raises(ModelError, match="NaN or infinity in mask"):
        load_weights(made, save(state, path))


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


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t.to_sparse(),
        lambda t: t.to("meta"),
        lambda t: t.to(torch.complex64),
        lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
        lambda t: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    ],
    ids=["sparse", "meta", "complex", "quantised", "nested"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_of_other_kinds_are_named(make: Callable[[Any], Any], tmp_path: Path) -> None:
    state = source_module().state_dict()
    state["conv1.weight"] = make(state["conv1.weight"])
    path = save(state, tmp_path / "w.pt")
    with pytest.raises(
        ModelError, match=r"must be ordinary tensors, but .* holds another kind in conv1"
    ):
        resolve("resnet20", weights=path)


FLOAT8 = [getattr(torch, name) for name in dir(torch) if name.startswith("float8_")]


@pytest.mark.parametrize("dtype", FLOAT8, ids=str)
def test_floats_of_eight_bits_are_widened(dtype: torch.dtype, tmp_path: Path) -> None:
    state = source_module().state_dict()
    state["linear.weight"] = small = state["linear.weight"].to(dtype)
    loaded = resolve("resnet20", weights=save(state, tmp_path / "w.pt"))
    assert torch.equal(loaded.module.state_dict()["linear.weight"], small.float())


@pytest.mark.parametrize("dtype", FLOAT8, ids=str)
def test_what_is_no_number_in_eight_bits_is_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    state = source_module().state_dict()
    bits = torch.full(
        state["linear.weight"].shape, 0x80 if "fnuz" in str(dtype) else 0xFF, dtype=torch.uint8
    )
    state["linear.weight"] = bits.view(dtype)
    with pytest.raises(ModelError, match=r"finite numbers, but .* NaN or infinity in linear"):
        resolve("resnet20", weights=save(state, tmp_path / "w.pt"))


@pytest.mark.parametrize("name", ["float4_e2m1fn_x2", "bits8", "bits16"])
def test_types_that_torch_does_not_turn_into_float32_are_named(name: str, tmp_path: Path) -> None:
    if not hasattr(torch, name):
        pytest.skip(f"this torch has no {name}")
    state = source_module().state_dict()
    state["linear.weight"] = torch.empty(state["linear.weight"].shape, dtype=getattr(torch, name))
    with pytest.raises(ModelError, match=f"must be of a type .* but .* holds {name} in linear"):
        resolve("resnet20", weights=save(state, tmp_path / "w.pt"))
