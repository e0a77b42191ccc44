"""What a GPU can do at most: rates of dense products and copies, and the shortest kernel in a graph.

Measured once per device in a process of its own, which ends afterwards: its context on the GPU is gone
before anything else is timed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from autosparse.devices.kinds.cuda.clock import Call, runner_of
from autosparse.errors import NoKernel
from autosparse.hardware.gpu import open_sensor
from autosparse.hardware.gpu_sensor import GpuSensor
from autosparse.hardware.measured import GpuLimits
from autosparse.progress import Progress

log = logging.getLogger(__name__)

RUNNER = f"{__name__}:run"
TIMEOUT_S = 180.0
_SAMPLES = 12
# Bursts of samples with rests between, of which the best counts: a limit is what the GPU can do, and
# no burst is held down by the power that the last one drew.
_BURSTS = 3
_REST_S = 0.1
# Sides of square products: large ones fill all multiprocessors, but draw most power.
_SIDES = (4096, 8192)
_NODES = 1000
_LEAST_COPY_BYTES = 256 << 20
_LOAD_S = 1.5
_STEPS = 6  # probes that progress is told of

# What products of 8-bit floats are of: both formats that there are multiply at one rate.
_FP8 = torch.float8_e4m3fn


def run(values: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Measures the first GPU that this process sees; gives `GpuLimits` as plain values.

    Args:
        values: ``uuid``, by which the driver knows the GPU, and ``has_fp8``, whether it multiplies
            8-bit floats.
        progress: told of each probe.
    """
    device = torch.device("cuda", torch.cuda.current_device())
    sensor = open_sensor(values["uuid"])
    return measure(device, sensor, has_fp8=values["has_fp8"], progress=progress).to_json()


def measure(
    device: torch.device, sensor: GpuSensor | None, *, has_fp8: bool, progress: Progress
) -> GpuLimits:
    """Measures a GPU.

    Args:
        device: the GPU.
        sensor: reads its clocks; None where the driver does not answer.
        has_fp8: whether it multiplies 8-bit floats.
        progress: told of each probe, and asked whether to stop.
    """
    of = torch.cuda.get_device_properties(device)
    with progress.step("measuring limits of the GPU", _STEPS) as step:

        def probe(found: Any) -> Any:
            step.advance()
            return found

        return GpuLimits(
            multiprocessors=int(of.multi_processor_count),
            l2_bytes=int(of.L2_cache_size),
            bf16_tflops=probe(_tflops(_product(torch.bfloat16, device), device)),
            f16_tflops=probe(_tflops(_product(torch.float16, device), device)),
            fp8_tflops=probe(_fp8_tflops(device) if has_fp8 else None),
            copy_gbytes_per_s=probe(_copy_gbytes_per_s(device, of.L2_cache_size, of.total_memory)),
            node_us=probe(_node_us(device)),
            load_clock_mhz=probe(_load_clock_mhz(device, sensor)),
        )


def _best_us(calls: Sequence[Call], device: torch.device, what: str) -> float:
    """Gives the least time of a call that any sample shows."""
    runner, found = runner_of(calls, device, what), []
    for _ in range(_BURSTS):
        time.sleep(_REST_S)
        found.append(int(runner(_SAMPLES).min()))
    return min(found) / 1e3


def _tflops(product: Callable[[int], Call], device: torch.device) -> float:
    rates = [2e-6 * side**3 / _best_us([product(side)], device, "a dense product") for side in _SIDES]
    return max(rates)


def _product(dtype: torch.dtype, device: torch.device) -> Callable[[int], Call]:
    def of(side: int) -> Call:
        # Random: products of zeros draw less power, and run at clocks that no model sees.
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.empty(side, side, dtype=dtype, device=device)
        return lambda: torch.mm(left, right.t(), out=out)

    return of


def _fp8_tflops(device: torch.device) -> float | None:
    one = torch.ones((), device=device)

    def of(side: int) -> Call:
        left, right = (torch.randn(side, side, device=device).to(_FP8) for _ in range(2))
        return lambda: torch._scaled_mm(left, right.t(), one, one, out_dtype=torch.bfloat16)

    try:
        return _tflops(of, device)
    except (NoKernel, AttributeError, TypeError) as error:  # torch's is not public, and may change
        log.info("products of 8-bit floats are not measured: %s", error)
        return None


def _copy_gbytes_per_s(device: torch.device, l2_bytes: int, memory_bytes: int) -> float:
    size = min(max(8 * l2_bytes, _LEAST_COPY_BYTES), memory_bytes // 8)
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    took_us = _best_us([lambda: target.copy_(source)], device, "a copy")
    return 2e-3 * source.nbytes / took_us


def _node_us(device: torch.device) -> float:
    """Gives the time of a kernel of one element that waits for the one before it."""
    one = torch.zeros(1, device=device)
    return _best_us([lambda: one.add_(1.0)] * _NODES, device, "a kernel of one element")


def _load_clock_mhz(device: torch.device, sensor: GpuSensor | None) -> int | None:
    """Gives the median clock during the second half of a steady load."""
    if sensor is None:
        return None
    product, readings = _product(torch.bfloat16, device)(_SIDES[-1]), list[int]()
    begun = time.monotonic()
    while (passed_s := time.monotonic() - begun) < _LOAD_S:
        for _ in range(4):
            product()
        clock = sensor.read().sm_clock_mhz  # while the products that were asked for run
        if clock is not None and passed_s > _LOAD_S / 2:
            readings.append(clock)
        torch.cuda.synchronize(device)
    return round(float(np.median(readings))) if readings else None
