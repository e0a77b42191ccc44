"""GPU description through a made-up driver module."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autosparse.hardware.gpu import detect_gpus


class NVMLError(Exception):
    pass


class Driver:
    """Answers like pynvml for cards given as dictionaries; a missing key is 'not supported'."""

    NVMLError = NVMLError
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2

    def __init__(self, cards: list[dict[str, Any]], loads: bool = True) -> None:
        self.cards = cards
        self.loads = loads
        self.open = 0

    def nvmlInit(self) -> None:
        if not self.loads:
            raise NVMLError("Shared Library Not Found")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"550.54"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        return self.cards[index]

    def nvmlDeviceGetMemoryInfo(self, card: dict[str, Any]) -> SimpleNamespace:
        return SimpleNamespace(total=card["memory"])

    def nvmlDeviceGetMaxClockInfo(self, card: dict[str, Any], which: int) -> int:
        return int(self.ask(card, "sm_clock" if which == self.NVML_CLOCK_SM else "memory_clock"))

    @staticmethod
    def ask(card: dict[str, Any], key: str) -> Any:
        if key not in card:
            raise NVMLError("Not Supported")
        return card[key]

    def __getattr__(self, name: str) -> Any:
        keys = {
            "nvmlDeviceGetName": "name",
            "nvmlDeviceGetUUID": "uuid",
            "nvmlDeviceGetCudaComputeCapability": "capability",
            "nvmlDeviceGetEnforcedPowerLimit": "power",
            "nvmlDeviceGetMigMode": "mig",
            "nvmlDeviceGetArchitecture": "architecture",
            "nvmlDeviceGetNumGpuCores": "lanes",
        }
        return lambda card: self.ask(card, keys[name])


H100 = {
    "name": b"NVIDIA H100 80GB HBM3",
    "uuid": "GPU-1",
    "capability": (9, 0),
    "memory": 80 << 30,
    "sm_clock": 1980,
    "memory_clock": 2619,
    "power": 700_000,
    "mig": [1, 1],
    "architecture": 9,
    "lanes": 16896,
}
OLD = {"name": "NVIDIA Tesla V100", "uuid": "GPU-2", "capability": (7, 0), "memory": 16 << 30}


def test_every_field_of_a_full_answer() -> None:
    driver = Driver([H100])
    [gpu], note = detect_gpus(driver)
    assert note == ""
    assert gpu.name == "NVIDIA H100 80GB HBM3"
    assert (gpu.compute_capability, gpu.architecture, gpu.multiprocessors) == ("9.0", "Hopper", 132)
    assert (gpu.max_sm_clock_mhz, gpu.max_memory_clock_mhz) == (1980, 2619)
    assert gpu.power_cap_watts == pytest.approx(700.0)
    assert gpu.mig
    assert gpu.sparse_tensor_cores
    assert gpu.driver == "550.54"
    assert driver.open == 0


def test_fields_the_device_lacks_are_none() -> None:
    [gpu], _ = detect_gpus(Driver([OLD]))
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
