"""A loaded model: what it takes, what it gives, many at once, and where its kernels are missing."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autosparse
from autosparse.deploy import LoadedModel
from autosparse.errors import ArtifactError, UsageError
from autosparse.kernels import binding


@pytest.fixture
def loaded(artifact: Path) -> Iterator[LoadedModel]:
    with autosparse.load(artifact, threads=1) as model:
        yield model


def test_arrays_give_arrays_and_tensors_tensors(loaded: LoadedModel, image: Tensor) -> None:
    arrays, tensors = loaded(image.numpy()), loaded(image)
    assert list(arrays) == ["classes", "more"]
    assert isinstance(arrays["more"], list) and isinstance(arrays["more"][1], tuple)
    assert isinstance(arrays["classes"], np.ndarray)
    assert isinstance(tensors["classes"], Tensor)
    assert np.array_equal(arrays["classes"], tensors["classes"].numpy())
    assert arrays["classes"].shape == (2, 10)


def test_anything_that_turns_into_an_array_is_taken(loaded: LoadedModel, image: Tensor) -> None:
    class Wrapped:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return image.numpy()

    wanted = loaded(image.numpy())["classes"]
    assert np.array_equal(loaded(Wrapped())["classes"], wanted)
    assert np.array_equal(loaded(image.clone().requires_grad_())["classes"].numpy(), wanted)
    strided = np.ascontiguousarray(image.numpy().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not strided.flags.c_contiguous
    assert np.array_equal(loaded(strided)["classes"], wanted)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ((), "takes 1 inputs, but got 0"),
        ((np.zeros((1, 3, 14, 14), np.float32),), r"shape \[2, 3, 14, 14\], but got \[1, 3, 14, 14\]"),
        ((np.zeros((2, 3, 14, 14)),), "must be float32, but got float64"),
        (("text",), r"but got \[\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(loaded: LoadedModel, inputs: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        loaded(*inputs)


def test_inputs_are_not_written_and_results_are_the_callers(loaded: LoadedModel, image: Tensor) -> None:
    given = image.numpy().copy()
    first = loaded(given)
    kept = copy.deepcopy(first)
    second = loaded(-given)
    assert np.array_equal(given, image.numpy())
    assert np.array_equal(first["classes"], kept["classes"])
    assert not np.array_equal(first["classes"], second["classes"])


def test_it_is_timed_like_a_compiled_model(loaded: LoadedModel) -> None:
    assert (loaded.run_times(3) > 0).all()
    latency = loaded.measure(8)
    assert (latency.repeats, latency.threads, latency.batch_size, latency.dtype) == (8, 1, 2, "f32")
    operators = loaded.measure_operators(5)
    assert {layer.name for layer in loaded.layers} == set(loaded.measure_layers(5)) <= set(operators)
    assert loaded.engine == "autosparse"
    assert loaded.weight_bytes > 0 < loaded.arena_bytes


def test_threads_are_the_callers_choice(artifact: Path, image: Tensor) -> None:
    with autosparse.load(artifact, threads=1) as one, autosparse.load(artifact, pin=False) as every:
        assert one.threads == 1
        assert every.threads >= 1
        assert np.array_equal(one(image.numpy())["classes"], every(image.numpy())["classes"])
    with pytest.raises(UsageError, match="threads must be a whole number"):
        autosparse.load(artifact, threads=100_000)


def test_closed_models_refuse_and_close_again(artifact: Path, image: Tensor) -> None:
    model = autosparse.load(artifact, threads=1)
    model.close()
    model.close()
    with pytest.raises(UsageError, match="closed; load it again"):
        model(image)
    with pytest.raises(TypeError, match="load it again"):
        copy.copy(model)


def test_several_live_side_by_side_and_one_serves_many_threads(artifact: Path, image: Tensor) -> None:
    models = [autosparse.load(artifact, threads=1, pin=False) for _ in range(3)]
    wanted = models[0](image.numpy())["classes"]
    barrier = threading.Barrier(6)

    def work(index: int) -> bool:
        barrier.wait()
        model = models[index % 3]
        return all(np.array_equal(model(image.numpy())["classes"], wanted) for _ in range(20))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))
    for model in models:
        model.close()


def test_the_file_is_not_needed_once_loaded(artifact: Path, image: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "net.autosparse"
    path.write_bytes(artifact.read_bytes())
    with autosparse.load(path, threads=1) as model:
        wanted = model(image.numpy())["classes"]
        path.unlink()
        assert np.array_equal(model(image.numpy())["classes"], wanted)


@pytest.mark.skipif(binding.detect_isa() == "generic", reason="no wider instruction set to hide")
def test_a_machine_without_the_kernels_runs_the_defaults_and_says_so(
    artifact: Path, net: nn.Module, image: Tensor
) -> None:
    binding.limit_isa("generic")
    try:
        with autosparse.load(artifact, threads=1) as model:
            found = model(image)["classes"]
            layers = {layer.name: layer for layer in model.layers}
    finally:
        binding.limit_isa(None)
    with torch.inference_mode():
        assert torch.allclose(found, net(image)["classes"], rtol=1e-4, atol=1e-4)
    assert layers["wide"].kernel.startswith("f32_conv_onexn16__generic")
    recorded = model.manifest.layers[1].kernel
    assert recorded in layers["wide"].why
    assert "this machine grants generic" in layers["wide"].why
    assert "the executor's default" in layers["wide"].why


def test_a_kernel_of_another_version_is_replaced_and_named(
    net: nn.Module, image: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = binding.NativeProgram.op_kernels

    def renamed(program: binding.NativeProgram) -> tuple[str | None, ...]:
        return tuple(name and name.replace("__", "__future_") for name in real(program))

    path = tmp_path / "net.autosparse"
    with monkeypatch.context() as patched:
        patched.setattr(binding.NativeProgram, "op_kernels", renamed)
        autosparse.export(net, (image,), path, measure=False, threads=1)
    with autosparse.load(path, threads=1) as model, torch.inference_mode():
        assert torch.allclose(model(image)["classes"], net(image)["classes"], rtol=1e-4, atol=1e-4)
        assert "this version has no such kernel" in model.layers[0].why
        assert "future" not in model.layers[0].kernel


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"net\.autosparse: an artifact must be a readable file"):
        autosparse.load(tmp_path / "net.autosparse")
    with pytest.raises(ArtifactError, match="no ordinary file"):
        autosparse.load(tmp_path)
