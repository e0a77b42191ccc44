"""What a GPU was like while something was timed, by a made-up driver."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from fake_nvml import H100, Driver

from autosparse.devices.kinds.cuda import Cuda, watch
from autosparse.devices.kinds.cuda import device as module
from autosparse.devices.kinds.cuda.watch import GpuProber
from autosparse.hardware.gpu import open_sensor
from autosparse.measuring.conditions import Watch
from autosparse.measuring.states import UNMARKED
from autosparse.measuring.stopwatch import MeasurementPolicy, measure

QUICK = MeasurementPolicy(warmup_us=10.0, time_cap_us=1_000.0)
CALM: dict[str, Any] = {
    **H100, "sm_now": 1755, "memory_now": 2619, "draws": 655_000, "reasons": 0x1, "pids": [os.getpid()]
}  # fmt: skip


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOSPARSE_BUSY_HOST")


def prober_of(card: dict[str, Any], load_clock_mhz: int | None = 1700) -> GpuProber:
    return GpuProber(1, sensor=open_sensor("GPU-1", Driver([card])), load_clock_mhz=load_clock_mhz)


def steady(count: int) -> np.ndarray:
    return np.full(count, 5_000, np.int64)


def test_a_calm_gpu_disturbs_nothing_and_its_clocks_are_told() -> None:
    prober = prober_of(CALM)
    timing = measure(steady, QUICK, prober=prober)
    assert (timing.median_us, timing.disturbed) == (5.0, "")
    assert timing.state.label == ""
    assert prober.told == "SM 1755 MHz, memory 2619 MHz, 655 W"
    assert len(prober.readings) >= 2, "before and after every batch"


def test_the_power_cap_is_told_and_does_not_disturb() -> None:
    prober = prober_of({**CALM, "reasons": 0x4})
    assert measure(steady, QUICK, prober=prober).disturbed == ""
    assert prober.told.endswith("655 W, power cap")


def test_other_processes_disturb() -> None:
    busy = {**CALM, "pids": [os.getpid(), 1 << 22], "used": {1 << 22: 30}}
    timing = measure(steady, QUICK, prober=prober_of(busy))
    assert timing.disturbed == "1 other process computed on the GPU"
    idle = {**busy, "used": {os.getpid(): 90}}
    assert measure(steady, QUICK, prober=prober_of(idle)).disturbed == ""


def test_clocks_far_below_those_under_load_disturb() -> None:
    low = {**CALM, "sm_now": 1200}
    assert measure(steady, QUICK, prober=prober_of(low)).disturbed == (
        "the GPU ran at 1200 MHz, but holds 1700 MHz under a steady load"
    )
    assert measure(steady, QUICK, prober=prober_of(low, None)).disturbed == ""


def test_batches_of_a_slowed_gpu_are_thrown_away() -> None:
    card, taken = dict(CALM), []

    def slowed_for_a_while(count: int) -> np.ndarray:
        taken.append(count)
        card["reasons"] = 0x40 if len(taken) in (3, 4) else 0
        return np.full(count, 9_000 if card["reasons"] else 5_000, np.int64)

    prober = prober_of(card)
    timing = measure(slowed_for_a_while, QUICK, prober=prober)
    assert (timing.median_us, timing.ci_high_us, timing.disturbed) == (5.0, 5.0, "")
    assert timing.slowed_s > 0
    assert "thermal slowdown" in prober.told


def test_a_gpu_that_stays_slowed_is_told_of() -> None:
    prober = prober_of({**CALM, "reasons": 0x8 | 0x80})
    timing = measure(steady, QUICK, prober=prober, slow_patience_s=0.02)
    assert timing.disturbed == "the GPU was slowed: hardware slowdown, power brake"
    assert timing.repeats >= QUICK.min_repeats


def test_a_busy_host_that_is_accepted_is_not_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSPARSE_BUSY_HOST", "accept")
    prober = prober_of({**CALM, "sm_now": 500, "reasons": 0x8})
    assert measure(steady, QUICK, prober=prober).disturbed == ""


def test_a_driver_that_does_not_answer_is_no_obstacle() -> None:
    prober = GpuProber(1)
    assert measure(steady, QUICK, prober=prober).disturbed == ""
    assert prober.told == ""


def test_processors_of_the_host_play_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "conditions", lambda self, **how: pytest.fail("of processors"))
    assert measure(steady, QUICK, prober=prober_of(CALM)).disturbed == ""


def test_a_job_watches_the_gpu_that_its_process_sees(
    host_with: Any, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_with(H100, {**CALM, "uuid": "GPU-7"}, here=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-7")
    asked = []
    monkeypatch.setattr(module, "open_sensor", lambda uuid: asked.append(uuid))
    prober = Cuda.watch(1, UNMARKED)
    assert isinstance(prober, watch.GpuProber)
    assert asked == ["GPU-7"]
    assert (prober.taken_ns, prober.taken_paces) == ([], [])
    host_with(here=True)
    assert Cuda.watch(1, UNMARKED) is None
