"""GPU description through a made-up driver module."""

from __future__ import annotations

import os
from typing import Any

import pytest
from fake_nvml import A100, H100, V100, Driver, slice_of

from autosparse import hardware
from autosparse.hardware.gpu import detect_gpus, open_sensor, visible
from autosparse.hardware.measured import GpuLimits, limits_file
from autosparse.records import GpuProfile


def in_mig_mode(*slices: dict[str, Any] | None) -> dict[str, Any]:
    return {**H100, "mig": [1, 1], "slices": slices}


def gpus_of(*cards: dict[str, Any]) -> tuple[GpuProfile, ...]:
    return detect_gpus(Driver(list(cards)))[0]


def test_every_field_of_a_full_answer() -> None:
    driver = Driver([H100])
    [gpu], note = detect_gpus(driver)
    assert note == ""
    assert gpu.name == "NVIDIA H100 80GB HBM3"
    assert (gpu.compute_capability, gpu.architecture, gpu.multiprocessors) == ("9.0", "Hopper", 132)
    assert (gpu.max_sm_clock_mhz, gpu.max_memory_clock_mhz) == (1980, 2619)
    assert gpu.power_cap_watts == pytest.approx(700.0)
    assert (gpu.mig, gpu.mig_slice) == (False, None)
    assert gpu.sparse_tensor_cores
    assert gpu.driver == "550.54"
    assert driver.open == 0


def test_fields_the_device_lacks_are_none() -> None:
    [gpu] = gpus_of(V100)
    assert (gpu.multiprocessors, gpu.max_sm_clock_mhz, gpu.power_cap_watts) == (None, None, None)
    assert (gpu.mig, gpu.sparse_tensor_cores, gpu.architecture) == (False, False, "unknown")


def test_no_driver_is_a_plain_statement() -> None:
    gpus, note = detect_gpus(Driver([], loads=False))
    assert gpus == ()
    assert note.startswith("no GPU: the NVIDIA driver does not answer")


def test_driver_without_a_device_is_a_plain_statement() -> None:
    gpus, note = detect_gpus(Driver([]))
    assert gpus == ()
    assert "sees no device" in note


def test_a_device_that_cannot_be_read_is_a_plain_statement() -> None:
    driver = Driver([{"name": "half"}])
    gpus, note = detect_gpus(driver)
    assert gpus == ()
    assert "cannot be read" in note
    assert driver.open == 0


# ------------------------------------------------------------------------------------------- slices


def test_slices_are_listed_and_the_gpu_that_they_are_of_is_not() -> None:
    small = slice_of(H100, 1, multiprocessors=16, gigabytes=10)
    large = slice_of(H100, 4, multiprocessors=32, gigabytes=20)
    first, second, whole = gpus_of(in_mig_mode(None, small, None, None, large), A100)
    assert [gpu.mig_slice for gpu in (first, second, whole)] == [1, 4, None]
    assert [gpu.uuid for gpu in (first, second, whole)] == ["MIG-1", "MIG-4", "GPU-2"]
    assert [gpu.index for gpu in (first, second, whole)] == [0, 0, 1]
    assert (first.name, first.memory_bytes) == ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10 << 30)
    assert (first.multiprocessors, second.multiprocessors) == (16, 32)
    assert first.mig and first.compute_capability == "9.0"
    assert first.max_sm_clock_mhz == 1980, "clocks are those of the whole GPU"
    assert len({gpu.device_id for gpu in (first, second, whole, *gpus_of(H100))}) == 4


def test_equal_slices_are_one_device_to_rows() -> None:
    slices = [slice_of(H100, number, multiprocessors=16, gigabytes=10) for number in (0, 1)]
    first, second = gpus_of(in_mig_mode(*slices))
    assert first.device_id == second.device_id
    assert first.uuid != second.uuid


def test_drivers_that_name_the_whole_gpu_are_completed() -> None:
    whole = {**slice_of(H100, 0, multiprocessors=16, gigabytes=10), "name": H100["name"]}
    [gpu] = gpus_of(in_mig_mode(whole))
    assert gpu.name == "NVIDIA H100 80GB HBM3 MIG 1g.10gb"


def test_a_gpu_in_mig_mode_without_slices_is_none() -> None:
    gpus, note = detect_gpus(Driver([in_mig_mode(None, None)]))
    assert gpus == ()
    assert "is in MIG mode, but has no slices; make some with nvidia-smi mig" in note


# ------------------------------------------------------------------------------------ which are visible


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (None, ["GPU-1", "GPU-2", "GPU-3"]),
        ("", []),
        ("2,0", ["GPU-3", "GPU-1"]),
        ("GPU-2", ["GPU-2"]),
        ("GPU-2, 0", ["GPU-2", "GPU-1"]),
        ("0,7,1", ["GPU-1"]),
        ("-1", []),
        ("1,1", ["GPU-2"]),
        ("NoDevFiles", []),
    ],
)
def test_visible_are_those_that_the_environment_names(named: str | None, found: list[str]) -> None:
    gpus = gpus_of(H100, A100, V100)
    assert [gpu.uuid for gpu in visible(gpus, named)] == found


def test_a_number_means_all_slices_of_a_gpu() -> None:
    slices = [slice_of(H100, number, multiprocessors=16, gigabytes=10) for number in (0, 1)]
    gpus = gpus_of(A100, in_mig_mode(*slices))
    assert [gpu.uuid for gpu in visible(gpus, "1")] == ["MIG-0", "MIG-1"]
    assert [gpu.uuid for gpu in visible(gpus, "MIG-1")] == ["MIG-1"]


# ------------------------------------------------------------------------------------------- sensors

BUSY = {**H100, "sm_now": 1755, "memory_now": 2619, "draws": 655_000, "reasons": 0x4 | 0x1}


def test_a_sensor_reads_clocks_power_and_reasons() -> None:
    sensor = open_sensor("GPU-1", Driver([BUSY]))
    assert sensor is not None
    reading = sensor.read()
    assert (reading.sm_clock_mhz, reading.memory_clock_mhz) == (1755, 2619)
    assert reading.power_watts == pytest.approx(655.0)
    assert reading.reasons == ("power cap",)
    assert reading.slowdowns == ()


@pytest.mark.parametrize("field", ["reasons", "old_reasons"])
def test_what_slows_a_gpu_is_named(field: str) -> None:
    sensor = open_sensor("GPU-1", Driver([{**H100, field: 0x8 | 0x40 | 0x80 | 0x4}]))
    assert sensor is not None
    assert sensor.read().slowdowns == ("hardware slowdown", "thermal slowdown", "power brake")


def test_what_a_driver_does_not_tell_is_none() -> None:
    sensor = open_sensor("GPU-3", Driver([V100]))
    assert sensor is not None
    reading = sensor.read()
    assert (reading.sm_clock_mhz, reading.power_watts, reading.reasons) == (None, None, ())
    assert sensor.others() is None


def test_a_slice_is_read_by_the_gpu_that_it_is_of() -> None:
    small = {
        **slice_of(H100, 1, multiprocessors=16, gigabytes=10),
        "parent": BUSY,
        "pids": [os.getpid()],
    }
    sensor = open_sensor("MIG-1", Driver([{**BUSY, "mig": [1, 1], "slices": [small]}]))
    assert sensor is not None
    assert sensor.read().sm_clock_mhz == 1755
    assert sensor.others() == 0


@pytest.mark.parametrize(
    ("pids", "used", "others"),
    [
        ([os.getpid()], None, 0),
        ([os.getpid(), 1 << 22], None, 1),
        ([os.getpid(), os.getppid()], None, 0),
        ([os.getpid(), 1 << 22], {os.getpid(): 90}, 0),
        ([os.getpid(), 1 << 22], {os.getpid(): 50, 1 << 22: 40}, 1),
        ([1 << 22], None, None),
    ],
    ids=["alone", "beside", "parent", "idle", "busy", "container"],
)
def test_others_that_compute_are_counted(
    pids: list[int], used: dict[int, int] | None, others: int | None
) -> None:
    card = {**H100, "pids": pids} | ({} if used is None else {"used": used})
    sensor = open_sensor("GPU-1", Driver([card]))
    assert sensor is not None
    assert sensor.others() == others


def test_no_sensor_without_a_driver_or_device() -> None:
    assert open_sensor("GPU-1", Driver([], loads=False)) is None
    assert open_sensor("GPU-9", Driver([H100])) is None


# -------------------------------------------------------------------------------------------- limits


def test_limits_are_kept_by_device_and_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    [gpu] = gpus_of({key: value for key, value in H100.items() if key != "lanes"})
    host = hardware.describe()
    described = GpuLimits(
        multiprocessors=132, l2_bytes=50 << 20, bf16_tflops=798.0, f16_tflops=790.0, fp8_tflops=1400.0,
        copy_gbytes_per_s=3000.0, node_us=1.5, load_clock_mhz=1700,
    )  # fmt: skip
    monkeypatch.setattr(
        hardware, "describe", lambda: host.from_json({**host.to_json(), "gpus": [gpu.to_json()]})
    )
    assert hardware.detect().gpus == (gpu,)
    hardware.save_limits(gpu.device_id, described)
    try:
        [known] = hardware.detect().gpus
    finally:
        limits_file(gpu.device_id).unlink()
    assert (known.multiprocessors, known.l2_bytes, known.bf16_tflops) == (132, 50 << 20, 798.0)
    assert known.device_id == gpu.device_id
    assert hardware.detect().gpus == (gpu,)


def test_profiles_written_before_have_none() -> None:
    [gpu] = gpus_of(H100)
    assert "l2_bytes" not in gpu.to_json()
    assert GpuProfile.from_json(gpu.to_json()) == gpu
