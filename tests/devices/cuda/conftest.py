"""Hosts with GPUs that are not there: as a made-up driver describes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from fake_nvml import Driver

from autosparse import hardware
from autosparse.devices.kinds.cuda import libraries
from autosparse.hardware.gpu import detect_gpus
from autosparse.records import HardwareProfile

Hosts = Callable[..., HardwareProfile]


@pytest.fixture
def host_with(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """Gives the profile of a host with cards of a made-up driver; elsewhere, or this very one."""
    own = hardware.describe()

    def with_cards(
        *cards: dict[str, Any], here: bool = False, loads: bool = True, driver: bytes = b"550.54"
    ) -> HardwareProfile:
        gpus, note = detect_gpus(Driver(list(cards), loads, driver))
        host = dataclasses.replace(own, gpus=gpus, gpu_note=note)
        if here:
            monkeypatch.setattr(hardware, "describe", lambda: host)
        return host

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return with_cards


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets all that kernels of GPUs need be installed, whatever is."""
    monkeypatch.setattr(libraries, "torch_cuda", lambda: "13.0")
    monkeypatch.setattr(libraries, "missing", lambda: ())
    monkeypatch.setattr(libraries, "why_no_kernels", lambda: "")
