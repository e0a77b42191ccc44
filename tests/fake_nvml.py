"""A made-up driver module: answers like pynvml for cards given as dictionaries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    pass


_FIELDS = {
    "nvmlDeviceGetName": "name",
    "nvmlDeviceGetUUID": "uuid",
    "nvmlDeviceGetCudaComputeCapability": "capability",
    "nvmlDeviceGetEnforcedPowerLimit": "power",
    "nvmlDeviceGetMigMode": "mig",
    "nvmlDeviceGetArchitecture": "architecture",
    "nvmlDeviceGetNumGpuCores": "lanes",
    "nvmlDeviceGetAttributes": "attributes",
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": "parent",
    "nvmlDeviceGetPowerUsage": "draws",
    "nvmlDeviceGetCurrentClocksEventReasons": "reasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons": "old_reasons",
}


class Driver:
    """A missing key of a card is 'not supported'."""

    NVMLError = NVMLError
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2

    def __init__(
        self, cards: list[dict[str, Any]], loads: bool = True, version: bytes = b"550.54"
    ) -> None:
        self.cards = cards
        self.version = version
        self.loads = loads
        self.open = 0

    def nvmlInit(self) -> None:
        if not self.loads:
            raise NVMLError("Shared Library Not Found")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return self.version

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> dict[str, Any]:
        for card in self.cards:
            for each in (card, *filter(None, card.get("slices", ()))):
                if each["uuid"] == uuid:
                    return each
        raise NVMLError("Not Found")

    def nvmlDeviceGetMaxMigDeviceCount(self, card: dict[str, Any]) -> int:
        return len(card.get("slices", ()))

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: dict[str, Any], place: int) -> dict[str, Any]:
        if card["slices"][place] is None:
            raise NVMLError("Not Found")
        found: dict[str, Any] = card["slices"][place]
        return found

    def nvmlDeviceGetMemoryInfo(self, card: dict[str, Any]) -> SimpleNamespace:
        return SimpleNamespace(total=card["memory"])

    def nvmlDeviceGetMaxClockInfo(self, card: dict[str, Any], which: int) -> int:
        return int(self.ask(card, "sm_clock" if which == self.NVML_CLOCK_SM else "memory_clock"))

    def nvmlDeviceGetClockInfo(self, card: dict[str, Any], which: int) -> int:
        return int(self.ask(card, "sm_now" if which == self.NVML_CLOCK_SM else "memory_now"))

    def nvmlDeviceGetComputeRunningProcesses(self, card: dict[str, Any]) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid) for pid in self.ask(card, "pids")]

    def nvmlDeviceGetProcessUtilization(
        self, card: dict[str, Any], since_us: int
    ) -> list[SimpleNamespace]:
        used = self.ask(card, "used").items()
        return [SimpleNamespace(pid=pid, smUtil=percent) for pid, percent in used]

    @staticmethod
    def ask(card: dict[str, Any], key: str) -> Any:
        if key not in card:
            raise NVMLError("Not Supported")
        return card[key]

    def __getattr__(self, name: str) -> Any:
        return lambda card: self.ask(card, _FIELDS[name])


H100: dict[str, Any] = {
    "name": b"NVIDIA H100 80GB HBM3",
    "uuid": "GPU-1",
    "capability": (9, 0),
    "memory": 80 << 30,
    "sm_clock": 1980,
    "memory_clock": 2619,
    "power": 700_000,
    "mig": [0, 0],
    "architecture": 9,
    "lanes": 16896,
}
A100: dict[str, Any] = {
    "name": "NVIDIA A100-SXM4-80GB",
    "uuid": "GPU-2",
    "capability": (8, 0),
    "memory": 80 << 30,
    "sm_clock": 1410,
    "memory_clock": 1593,
    "power": 400_000,
    "mig": [0, 0],
    "architecture": 7,
    "lanes": 6912,
}
V100: dict[str, Any] = {
    "name": "NVIDIA Tesla V100",
    "uuid": "GPU-3",
    "capability": (7, 0),
    "memory": 16 << 30,
}


def slice_of(
    card: dict[str, Any], number: int, *, multiprocessors: int, gigabytes: int
) -> dict[str, Any]:
    """Gives a slice as drivers tell of it: hardly any field of the whole GPU's."""
    return {
        "name": f"{card['name'].decode()} MIG 1g.{gigabytes}gb",
        "uuid": f"MIG-{number}",
        "memory": gigabytes << 30,
        "parent": card,
        "attributes": SimpleNamespace(
            multiprocessorCount=multiprocessors, gpuInstanceSliceCount=1, memorySizeMB=gigabytes << 10
        ),
    }
