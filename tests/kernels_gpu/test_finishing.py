"""Bias, residual and activation after a product, by kernel and by torch, against float64."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import numpy as np
import pytest

from autosparse.kernels.gpu import finishing, nvrtc, resources
from autosparse.kernels.gpu.chips import CHIPS
from autosparse.kernels.gpu.finishing import DTYPES, Finish, FinishArgs
from autosparse.kernels.gpu.methods.sparse_mma.packing import to_bits
from autosparse.records import Activation
from tests.kernels_gpu.emulated import Machine, aligned, guarded, inside, poisoned, values_of, written
from tests.kernels_gpu.sparse_mma.layers import activated, rounded

# Type, channels, whether columns are named, residual, activation.
CASES = (
    ("bf16", 64, False, True, Activation.RELU),
    ("bf16", 40, True, False, Activation.GELU),
    ("f16", 13, True, True, Activation.NONE),
    ("f16", 7, False, False, Activation.HARD_SWISH),
)
PIXELS = 531


def given(case: tuple[str, int, bool, bool, Activation]) -> dict[str, np.ndarray | None]:
    dtype, channels, is_mapped, residual, _ = case
    random = np.random.default_rng(channels)
    pitch = channels // 2 if is_mapped else channels
    columns = np.full(channels, -1, np.int32)
    columns[np.sort(random.permutation(channels)[:pitch])] = np.arange(pitch)
    return {
        "product": rounded(random.standard_normal((PIXELS, pitch)) * 4, dtype),
        "residual": rounded(random.standard_normal((PIXELS, channels)), dtype) if residual else None,
        "bias": random.standard_normal(channels).astype(np.float32),
        "columns": columns if is_mapped else None,
    }


def wanted(
    case: tuple[str, int, bool, bool, Activation], arrays: dict[str, np.ndarray | None]
) -> np.ndarray:
    sums = arrays["product"].astype(np.float64)  # type: ignore[union-attr]
    if (columns := arrays["columns"]) is not None:
        sums = np.where(columns < 0, 0, sums[:, columns])
    sums = sums + arrays["bias"] + (0 if arrays["residual"] is None else arrays["residual"])
    return activated(sums, case[4])


def name_of(case: tuple[str, int, bool, bool, Activation]) -> str:
    dtype, channels, is_mapped, residual, activation = case
    width = 1 if channels % 8 else 8
    return finishing.source_of(
        dtype, width, is_mapped, residual=residual, activation=activation
    ).variant


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    if shutil.which("g++") is None:
        pytest.skip("no g++, which compiles the emulated machine")
    entries = [f"AS_FINISH({name_of(case)})" for case in CASES]
    return Machine(tmp_path_factory.mktemp("finish"), entries)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[4])
def test_the_kernel(machine: Machine, case: tuple[str, int, bool, bool, Activation]) -> None:
    dtype, channels = case[:2]
    arrays = given(case)
    product = guarded(to_bits(arrays["product"], dtype))
    residual = guarded(
        to_bits(np.zeros(1) if arrays["residual"] is None else arrays["residual"], dtype)
    )
    out = poisoned(PIXELS * channels)
    bias = aligned(arrays["bias"])
    args = FinishArgs(
        product=inside(product), residual=inside(residual), out=inside(out), bias=bias.ctypes.data,
        columns=None if arrays["columns"] is None else arrays["columns"].ctypes.data,
        pixels=PIXELS, channels=channels, pitch=arrays["product"].shape[1],
    )  # fmt: skip
    machine.launch(f"Finish {name_of(case)}", args, grid=3)
    got = values_of(written(out), dtype).reshape(PIXELS, channels)
    exact = wanted(case, arrays)
    bits = 8 if dtype == "bf16" else 11
    np.testing.assert_allclose(got, exact, rtol=2.0**-bits, atol=1e-6)
    assert machine.native.emulated_finish_args_bytes() == ctypes.sizeof(FinishArgs)


@pytest.mark.smoke
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[4])
def test_on_a_processor(case: tuple[str, int, bool, bool, Activation]) -> None:
    import torch

    dtype, channels, _, residual, activation = case
    arrays = given(case)
    finish = Finish(
        dtype, arrays["bias"], torch.device("cpu"),
        activation=activation, residual=residual, columns=arrays["columns"],
    )  # fmt: skip
    tensors = {
        name: None if arrays[name] is None else torch.from_numpy(arrays[name]).to(DTYPES[dtype])
        for name in ("product", "residual")
    }
    out = torch.full((PIXELS, channels), float("nan"), dtype=DTYPES[dtype])
    finish(tensors["product"], tensors["residual"], out)  # type: ignore[arg-type]
    bits = 8 if dtype == "bf16" else 11
    np.testing.assert_allclose(out.float().numpy(), wanted(case, arrays), rtol=2.0**-bits, atol=1e-6)
    assert finish.bytes >= 4 * channels


def test_machine_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSPARSE_HOME", str(tmp_path))
    source = finishing.source_of("bf16", 8, False, residual=True, activation=Activation.RELU)
    for chip in (CHIPS[8, 0], CHIPS[9, 0]):
        code = nvrtc.cubin(source, chip.target)
        found = resources.of_cubin(code, threads=finishing.THREADS, function=finishing.FUNCTION)
        assert found.spilled_bytes == 0
        assert found.instructions["LDG.128"] >= 2 and found.instructions["STG.128"] == 1
