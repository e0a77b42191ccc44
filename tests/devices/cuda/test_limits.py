"""Limits of GPUs: measured once per device by a process of its own, and what they bound."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from fake_nvml import A100, H100, Driver

from autosparse import hardware
from autosparse.devices import checkup
from autosparse.devices.device import Bounds
from autosparse.devices.kinds.cuda import Cuda, libraries
from autosparse.devices.kinds.cuda import device as module
from autosparse.errors import AutosparseError, MissingMeasurement
from autosparse.hardware import GpuLimits
from autosparse.hardware.doctor import check_gpus
from autosparse.hardware.gpu import detect_gpus, open_sensor
from autosparse.hardware.measured import limits_file
from autosparse.measuring.stopwatch import LAYERS
from autosparse.patterns import parse_pattern
from autosparse.records import GpuProfile, HardwareProfile, LayerShape
from autosparse.tuning.narrowing import kept_inputs, steps
from autosparse.workers.worker import Answer

Hosts = Callable[..., HardwareProfile]

LIMITS = GpuLimits(
    multiprocessors=132, l2_bytes=50 << 20, bf16_tflops=800.0, f16_tflops=780.0, fp8_tflops=1500.0,
    copy_gbytes_per_s=3000.0, node_us=1.5, load_clock_mhz=1700,
)  # fmt: skip
LARGE = LayerShape(op="linear", batch_size=1, in_channels=8192, out_channels=8192, in_height=8192)
FLAT = LayerShape(op="linear", batch_size=1, in_channels=512, out_channels=512, in_height=1 << 16)
TINY = LayerShape(op="linear", batch_size=1, in_channels=64, out_channels=64)


class MadeUpWorker:
    """Answers a request for limits; keeps how it was made and asked."""

    answer: ClassVar[Answer] = Answer(ending="done", outcome=LIMITS.to_json())
    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, runner: str, **how: Any) -> None:
        self._how = {"runner": runner, **how}

    def __enter__(self) -> MadeUpWorker:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def call(self, job: dict[str, Any], timeout_s: float, progress: object) -> Answer:
        self.made.append({**self._how, "job": job})
        return self.answer


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> type[MadeUpWorker]:
    monkeypatch.setattr(module, "Worker", MadeUpWorker)
    monkeypatch.setattr(MadeUpWorker, "made", [])
    return MadeUpWorker


@pytest.fixture(autouse=True)
def unknown() -> Any:
    ids = [gpu.device_id for gpu in detect_gpus(Driver([H100, A100]))[0]]
    yield
    for each in ids:
        limits_file(each).unlink(missing_ok=True)


def test_they_are_measured_once_by_a_process_that_sees_this_gpu_alone(
    host_with: Hosts, installed: None, worker: type[MadeUpWorker]
) -> None:
    [device] = Cuda.of(host_with(H100, here=True))
    assert not device.has_limits
    measured = device.with_limits()
    assert measured.has_limits and measured.id == device.id
    assert (measured.cache_bytes, measured.gpu.bf16_tflops) == (50 << 20, 800.0)
    [asked] = worker.made
    assert asked["environment"] == device.environment
    assert asked["environment"]["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert asked["job"] == {"uuid": "GPU-1", "has_fp8": True}
    assert asked["runner"] == "autosparse.devices.kinds.cuda.limits:run"
    [again] = Cuda.of(hardware.detect())
    assert again.with_limits() is again
    assert again == measured
    assert len(worker.made) == 1


def test_ampere_is_not_asked_for_eight_bits(
    host_with: Hosts, installed: None, worker: type[MadeUpWorker]
) -> None:
    [device] = Cuda.of(host_with(A100, here=True))
    device.with_limits()
    assert worker.made[0]["job"]["has_fp8"] is False


def test_a_process_that_fails_says_how(
    host_with: Hosts, installed: None, worker: type[MadeUpWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    [device] = Cuda.of(host_with(H100, here=True))
    monkeypatch.setattr(worker, "answer", Answer(ending="crashed", message="signal SIGSEGV"))
    with pytest.raises(AutosparseError, match=r"limits of NVIDIA H100.* crashed: signal SIGSEGV"):
        device.with_limits()
    assert hardware.load_gpu_limits(device.id) is None


def test_those_of_a_gpu_elsewhere_are_measured_there(host_with: Hosts) -> None:
    [device] = Cuda.of(host_with(H100))
    with pytest.raises(MissingMeasurement, match="run autosparse profile where it is"):
        device.with_limits()
    with pytest.raises(MissingMeasurement, match=r"measured limits of NVIDIA H100.* in bf16"):
        device.bounds(1, LAYERS, "bf16")


def test_a_profile_measures_equal_gpus_once(
    host_with: Hosts, installed: None, worker: type[MadeUpWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autosparse.measuring.limits.profile", lambda **how: hardware.detect())
    host_with(H100, {**H100, "uuid": "GPU-9"}, A100, here=True)
    found = checkup.profile()
    assert [gpu.bf16_tflops for gpu in found.gpus] == [800.0] * 3
    assert [each["environment"]["CUDA_VISIBLE_DEVICES"] for each in worker.made] == ["GPU-1", "GPU-2"]
    assert HardwareProfile.from_json(found.to_json()) == found
    checkup.profile()
    assert len(worker.made) == 2
    checkup.profile(refresh=True)
    assert len(worker.made) == 4


# ------------------------------------------------------------------------------------------- doctor


def test_the_doctor_tells_of_gpus_and_what_they_lack(
    host_with: Hosts, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = host_with(H100, here=True)
    _, finding = checkup.check_devices()
    assert (finding.name, finding.severity) == ("device cuda", "ok")
    assert "limits are measured at first use" in finding.message
    monkeypatch.setattr(libraries, "why_no_kernels", lambda: "torch is too old; pip install it")
    _, finding = checkup.check_devices()
    assert (finding.severity, finding.message) == ("warn", "none: torch is too old; pip install it")
    host_with(here=True)
    assert list(checkup.check_devices()) == []
    assert host.gpus[0].place == "0"


@pytest.mark.parametrize(
    ("more", "severity", "told"),
    [
        ({"sm_now": 1980, "draws": 70_000, "pids": []}, "ok", "at 1980 of 1980 MHz, 70 of 700 W"),
        ({"reasons": 0x40}, "warn", "slowed by thermal slowdown"),
        ({"pids": [1 << 22]}, "warn", "1 processes hold it"),
        ({}, "ok", "NVIDIA H100 80GB HBM3, driver 550.54"),
    ],
)
def test_the_doctor_tells_what_disturbs_a_gpu(more: dict[str, Any], severity: str, told: str) -> None:
    driver = Driver([{**H100, **more}])
    [finding] = check_gpus(lambda: detect_gpus(driver), lambda uuid: open_sensor(uuid, driver))
    assert (finding.name, finding.severity) == ("GPU 0", severity)
    assert told in finding.message
    assert bool(finding.remedy) == (severity == "warn")


# ------------------------------------------------------------------------------------------- bounds


def gpu_with_limits() -> GpuProfile:
    [gpu] = detect_gpus(Driver([H100]))[0]
    return LIMITS.apply(gpu)


def bounds(reuse_bytes: int = 1 << 30, dtype: str = "bf16") -> Bounds:
    return Cuda(gpu_with_limits()).bounds(
        1, dataclasses.replace(LAYERS, reuse_bytes=reuse_bytes), dtype
    )


def test_large_layers_are_bounded_by_arithmetic() -> None:
    dense_us = bounds().bound_us(LARGE, -1)
    assert dense_us == pytest.approx(0.8 * 2 * 8192**3 / 800e6)
    assert bounds(dtype="f16").bound_us(LARGE, -1) == pytest.approx(dense_us * 800 / 780)
    assert bounds().bound_us(LARGE, 2048) == pytest.approx(dense_us / 4)


def test_flat_layers_are_bounded_by_memory_and_tiny_ones_by_a_kernel() -> None:
    moved_bytes = 2 * (2 << 16) * 512
    assert bounds(0).bound_us(FLAT, -1) == pytest.approx(0.8 * moved_bytes / 3000e3)
    assert bounds(0).bound_us(FLAT, 0) == pytest.approx(0.8 * moved_bytes / 2 / 3000e3)
    assert bounds().bound_us(TINY, -1) == pytest.approx(0.8 * 1.5)


def test_weights_count_where_they_must_come_from_memory() -> None:
    wide = LayerShape(op="linear", batch_size=1, in_channels=4096, out_channels=4096, in_height=8)
    policy_bytes = 2 * (8 * 4096 * 2)
    warm = bounds(64 << 20).bound_us(wide, -1)
    assert warm == pytest.approx(0.8 * max(policy_bytes / 3000e3, 1.5))
    policy = dataclasses.replace(LAYERS, reuse_bytes=1 << 30, max_copies_bytes=1 << 30)
    cold = Cuda(gpu_with_limits()).bounds(1, policy, "bf16").bound_us(wide, -1)
    assert cold == pytest.approx(0.8 * (policy_bytes + 2 * 4096**2) / 3000e3)


@pytest.mark.parametrize("name", ["tw128k16", "tvw128k16", "2:4"])
def test_sparse_layers_are_bounded_below_dense_ones(name: str) -> None:
    pattern, dense_us = parse_pattern(name), bounds().bound_us(LARGE, -1)
    for step in steps(LARGE, pattern, (0.5, 0.75)):
        kept = kept_inputs(LARGE, pattern, step.kept)
        share = bounds().bound_us(LARGE, kept) / dense_us
        assert share == pytest.approx(1 - step.sparsities[0], abs=0.02)


def test_other_types_have_no_bounds() -> None:
    with pytest.raises(MissingMeasurement, match="in f32"):
        bounds(dtype="f32")
