"""GPUs as devices: which a host has and why none, their ids, kernels, facts and types."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_nvml import A100, H100, V100, slice_of

from autosparse import hardware
from autosparse.cli import run
from autosparse.config import resolve
from autosparse.database import TuningDatabase
from autosparse.database.table import Stale
from autosparse.devices.device import find, kind_of
from autosparse.devices.kinds.cuda import Cuda, libraries
from autosparse.devices.layer import random_layer
from autosparse.errors import ConfigError, MissingDependency, NoKernel, UsageError
from autosparse.hosts.host import offers
from autosparse.measuring.stopwatch import LAYERS
from autosparse.patterns import parse_pattern
from autosparse.records import (
    DENSE,
    HardwareProfile,
    LayerInfo,
    LayerShape,
    Measurement,
    Status,
    onexn,
)
from autosparse.tuning.asker import key_of
from autosparse.tuning.autotune import known
from autosparse.tuning.narrowing import Option
from autosparse.tuning.request import TuneRequest

Hosts = Callable[..., HardwareProfile]

LINEAR = LayerShape(op="linear", batch_size=1, in_channels=768, out_channels=3072, in_height=4096)
CONV = LayerShape(
    op="conv2d", batch_size=64, in_channels=128, out_channels=128, in_height=28, in_width=28,
    kernel=(3, 3), padding=(1, 1),
)  # fmt: skip
TILES, TILES_24 = parse_pattern("tw128k16"), parse_pattern("tvw128k16")


# ------------------------------------------------------------------------------------ which there are


@pytest.mark.smoke
def test_every_gpu_that_kernels_are_made_for_is_one(host_with: Hosts, installed: None) -> None:
    host = host_with(V100, H100, A100, here=True)
    first, second = Cuda.of(host)
    assert (first.name, second.name) == ("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB")
    assert (first.named, second.named) == ("cuda", "cuda:1")
    assert first.id == host.gpus[1].device_id != second.id
    assert first.environment["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert first.environment["AUTOSPARSE_MEASURING_LOCK"].endswith(".GPU-1")
    assert (first.lock, second.lock) == ("GPU-1", "GPU-2")
    assert (first.space, second.space) == ("cuda-hopper", "cuda-ampere")
    assert first.most_threads == 1
    assert first.cache_bytes == 0, "before it was looked at"
    assert find("cuda", host) == first
    assert find("cuda:1", host) == second
    with pytest.raises(
        MissingDependency, match=r"cuda:2 .* this host has cuda \(NVIDIA H100.*, cuda:1"
    ):
        find("cuda:2", host)


def test_slices_are_devices(host_with: Hosts, installed: None) -> None:
    slices = [slice_of(H100, number, multiprocessors=16, gigabytes=10) for number in (0, 1)]
    found = Cuda.of(host_with({**H100, "mig": [1, 1], "slices": slices}, here=True))
    assert [device.environment["CUDA_VISIBLE_DEVICES"] for device in found] == ["MIG-0", "MIG-1"]
    assert len({device.id for device in found}) == 1
    assert found[0].id != Cuda.of(host_with(H100, here=True))[0].id


def test_only_visible_ones_are_used_here(
    host_with: Hosts, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = host_with(H100, A100, here=True), host_with({**A100, "uuid": "GPU-elsewhere"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2,GPU-1")
    assert [device.gpu.uuid for device in Cuda.of(here)] == ["GPU-2", "GPU-1"]
    assert [device.gpu.uuid for device in Cuda.of(elsewhere)] == ["GPU-elsewhere"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Cuda.of(here) == ()
    assert Cuda.why_none(here) == "CUDA_VISIBLE_DEVICES='' hides all of this host's GPUs; unset it"


def test_why_none_names_what_is_missing(host_with: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "torch_cuda", lambda: "13.0")
    monkeypatch.setattr(libraries, "missing", lambda: ())
    why = libraries.why_no_kernels.__wrapped__
    monkeypatch.setattr(libraries, "why_no_kernels", why)
    no_driver = host_with(loads=False)
    assert "the NVIDIA driver does not answer" in Cuda.why_none(no_driver)
    assert "--host recorded:FILE" in Cuda.why_none(no_driver)
    assert "sees no device" in Cuda.why_none(host_with())
    old = host_with(V100, here=True)
    assert Cuda.of(old) == ()
    assert "compute capability 8.0, 8.6, 8.7, 8.9, 9.0, but NVIDIA Tesla V100 has 7.0" in Cuda.why_none(
        old
    )
    host = host_with(H100, here=True)
    assert len(Cuda.of(host)) == 1
    monkeypatch.setattr(libraries, "torch_cuda", lambda: "")
    assert Cuda.of(host) == ()
    assert "torch that is installed was built without CUDA; install one" in Cuda.why_none(host)
    monkeypatch.setattr(libraries, "missing", lambda: ("triton",))
    assert Cuda.of(host) == ()
    assert Cuda.why_none(host).endswith("triton, which is not installed; pip install 'autosparse[gpu]'")
    assert len(Cuda.of(host_with({**H100, "uuid": "GPU-elsewhere"}))) == 1, (
        "nothing is built for that one"
    )


def test_what_torch_was_built_with_is_known_without_loading_it() -> None:
    import torch

    assert libraries.torch_cuda() == (torch.version.cuda or "")


@pytest.mark.skipif(bool(Cuda.of(hardware.detect())), reason="this host has a GPU")
@pytest.mark.parametrize("verb", ["tune", "search"])
def test_a_host_without_one_exits_with_7_and_says_why(
    verb: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = [verb, "--model", "resnet20", "--device", "cuda"]
    assert run([*asked, "--data", "digits"] if verb == "search" else asked) == 7
    assert (
        f"device cuda was asked for, but {Cuda.why_none(hardware.detect())}" in capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "cpu", "auto"])
def test_a_config_takes_names_of_devices(name: str) -> None:
    assert resolve({"model": "resnet20", "device": name}, {}).device == name


@pytest.mark.parametrize("name", ["cuda:", "cuda:one", "cuda:-1", "auto:1", "gpu", 7])
def test_a_config_refuses_what_is_none(name: object) -> None:
    with pytest.raises(ConfigError, match="device must be auto or cpu or cuda, but got"):
        resolve({"model": "resnet20", "device": name}, {})


# ------------------------------------------------------------------------------------------- kernels


@pytest.mark.parametrize("card", [A100, H100], ids=["A100", "H100"])
@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_kernels_of_a_recorded_gpu(card: dict[str, object], dtype: str, host_with: Hosts) -> None:
    [device] = Cuda.of(host_with(card))
    assert not device.is_here
    libraries_of = {LINEAR: "cublas", CONV: "cudnn"}
    for shape in (LINEAR, CONV):
        dense = {kernel.name for kernel in device.kernels_for(shape, DENSE, dtype)}
        assert f"{dtype}_dense__cuda_{libraries_of[shape]}" in dense, "dense is always tried"
        assert f"{dtype}_dense__cuda_triton" in dense
        tiles = device.kernels_for(shape, TILES, dtype)
        assert {kernel.name for kernel in tiles} == {f"{dtype}_tw__cuda_triton"}
        assert all(device.configs(kernel, shape, TILES) for kernel in tiles)
        inside = device.kernels_for(shape, TILES_24, dtype)
        assert f"{dtype}_tvw__cuda_mma" in {kernel.name for kernel in inside}
        assert {kernel.dtype for kernel in (*tiles, *inside)} == {dtype}


def test_launch_parameters_are_those_of_the_chip_and_the_pattern(host_with: Hosts) -> None:
    ampere, hopper = Cuda.of(host_with(A100, H100))
    [kernel] = ampere.kernels_for(LINEAR, TILES, "bf16")
    lists = [device.configs(kernel, LINEAR, TILES) for device in (ampere, hopper)]
    narrow = ampere.configs(kernel, LINEAR, parse_pattern("tw32k16"))
    assert lists[0] != lists[1] != narrow
    assert all(",".join(sorted(text.split(","))) == text for text in lists[0])


def test_no_kernel_carries_every_reason(host_with: Hosts) -> None:
    [device] = Cuda.of(host_with(H100))
    with pytest.raises(NoKernel, match=r"no bf16 kernel of a GPU runs .* pattern 1x16") as refused:
        device.kernels_for(LINEAR, onexn(16), "bf16")
    assert "bf16_tw__cuda_triton" in refused.value.reasons


def test_types_and_threads(host_with: Hosts) -> None:
    [device] = Cuda.of(host_with(H100))
    assert (device.why_no_dtype("bf16"), device.why_no_dtype("f16")) == ("", "")
    assert device.why_no_dtype("f32").startswith("kernels of GPUs compute in bf16 and f16")
    assert device.usual_dtypes == ("bf16",)
    device.check_threads(1)
    with pytest.raises(UsageError, match="a GPU leaves none to choose, but got 2"):
        device.check_threads(2)
    assert Cuda.dtype_of("f16_tw__cuda_triton") == "f16"
    with pytest.raises(UsageError, match="nearest: "):
        Cuda.dtype_of("f16_tw__cuda_tritom")


def test_processors_have_no_f16() -> None:
    assert find("cpu").why_no_dtype("f16") == "kernels of processors compute in bf16 and f32"


def test_hosts_offer_their_gpus(host_with: Hosts) -> None:
    [offer] = (each for each in offers(host_with(H100)) if each.kind == "cuda")
    assert offer.name == "NVIDIA H100 80GB HBM3"
    assert set(offer.why_not) == {"f32"}
    assert {"bf16_tw__cuda_triton", "f16_dense__cuda_cublas"} <= set(offer.kernels)
    [none] = (each for each in offers(host_with()) if each.kind == "cuda")
    assert none.why_none


def test_a_kernel_that_is_built_without_a_gpu_says_so() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU")
    layer = random_layer(dataclasses.replace(LINEAR, in_height=2), DENSE, 0.0, "bf16")
    with pytest.raises(NoKernel, match="bf16_dense__cuda_cublas needs a GPU, but torch sees none"):
        kind_of("cuda").build(layer, "bf16_dense__cuda_cublas", 1)


# ----------------------------------------------------------------------- what makes rows stale


def test_facts_name_driver_cuda_cap_and_libraries(host_with: Hosts, installed: None) -> None:
    [device] = Cuda.of(host_with(H100, here=True))
    facts = device.facts("bf16_tw__cuda_triton")
    assert facts.startswith("driver 550.54, cuda 13.0, cap 700 W, ")
    assert "triton 3." in facts and "torch 2." in facts
    assert "nvidia-cuda-nvrtc" in device.facts("bf16_tvw__cuda_mma")
    assert device.facts("gone") == "driver 550.54, cuda 13.0, cap 700 W"
    [elsewhere] = Cuda.of(host_with({**H100, "uuid": "GPU-elsewhere"}))
    assert elsewhere.facts("bf16_tw__cuda_triton") == "", "nobody knows what is installed there"


REQUEST = TuneRequest(
    layers=(LayerInfo(name="fc", shape=LINEAR),),
    patterns=(),
    sparsities=(),
    dtype="bf16",
    policy=LAYERS.for_model(1 << 20),
)


def row_of(device: Cuda) -> Measurement:
    [kernel] = (k for k in device.kernels_for(LINEAR, DENSE, "bf16") if k.name.endswith("cublas"))
    option = Option(LINEAR, DENSE, -1, 0.0, kernel)
    key = key_of(option, REQUEST, device, REQUEST.catalogue(device), "")
    return Measurement(key=key, status=Status.OK, median_us=200.0)


def test_another_driver_makes_rows_stale_and_touches_no_other_device(
    host_with: Hosts, installed: None, tmp_path: Path
) -> None:
    [before] = Cuda.of(host_with(H100, here=True))
    with TuningDatabase(f"sqlite:///{tmp_path}/t.db") as database:
        database.put(row_of(before))
        assert known(REQUEST, before, database).options["fc"][0].median_us == 200.0
        assert not database.stale()
        [newer] = Cuda.of(host_with(H100, here=True, driver=b"560.1"))
        assert newer.id == before.id
        assert known(REQUEST, newer, database).options == {}
        [stale] = database.rows()
        assert database.why_stale(stale) is Stale.FACTS
        [other] = Cuda.of(host_with(A100))
        assert known(REQUEST, other, database).options == {}


def test_rows_of_a_recorded_gpu_count_whatever_its_driver(
    host_with: Hosts, installed: None, tmp_path: Path
) -> None:
    [there] = Cuda.of(host_with(H100, here=True))
    row = row_of(there)
    host_with(here=True)
    [recorded] = Cuda.of(host_with(H100))
    with TuningDatabase(f"sqlite:///{tmp_path}/t.db") as database:
        database.put(row)
        assert known(REQUEST, recorded, database).options["fc"][0].median_us == 200.0


def test_hashes_of_sources_are_known_on_every_host() -> None:
    hashes = Cuda.source_hashes()
    assert len(set(hashes.values())) > 3
    assert hashes["bf16_tw__cuda_triton"] == hashes["f16_tw__cuda_triton"]
    assert not hashes.keys() & kind_of("cpu").source_hashes().keys()
