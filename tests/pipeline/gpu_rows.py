"""A GPU that is not here, and rows of it as a tuner would have taken them: by the analytic model.

These are test data: no such GPU was measured.
"""

from __future__ import annotations

import dataclasses

from autosparse import hardware
from autosparse.database import TuningDatabase
from autosparse.devices.device import Device
from autosparse.kernels.gpu.forecast import PRODUCTS, forecast, library_forecast, uniform_work
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.method import GpuKernel
from autosparse.records import GpuProfile, HardwareProfile, Measurement, Status
from autosparse.tuning.asker import key_of
from autosparse.tuning.narrowing import Narrowing, Option
from autosparse.tuning.request import TuneRequest, distinct, explore

GPU = GpuProfile(
    index=0, name="Hopper of a test", uuid="GPU-test", compute_capability="9.0", architecture="Hopper",
    multiprocessors=132, memory_bytes=80 << 30, max_sm_clock_mhz=1980, max_memory_clock_mhz=2619,
    power_cap_watts=700.0, mig=False, driver="580.0", sparse_tensor_cores=True, l2_bytes=50 << 20,
    bf16_tflops=700.0, f16_tflops=700.0, copy_gbytes_per_s=3000.0, node_us=1.5, load_clock_mhz=1700,
)  # fmt: skip
_LIKE = PRODUCTS["H100-SXM5-80GB"]


def host() -> HardwareProfile:
    """This host, but that it has another processor and the GPU."""
    here = hardware.describe()
    return dataclasses.replace(here, hardware_id="0123456789ab", gpus=(GPU,), gpu_note="")


def fill(request: TuneRequest, device: Device, database: TuningDatabase) -> int:
    """Puts a row into the database for whatever the tuner asks for; gives how many."""
    catalogue = request.catalogue(device)
    rows: list[Measurement] = []

    def ask(option: Option, rival_us: float | None) -> Measurement | None:
        us = _us(option)
        rows.append(
            Measurement(
                key=key_of(option, request, device, catalogue, ""),
                status=Status.OK if us else Status.ERROR,
                median_us=us,
                ci_low_us=us and 0.99 * us,
                ci_high_us=us and 1.01 * us,
                repeats=20,
                sparsity=option.sparsity,
                flops_kept=option.shape.kept_flops(option.kept_inputs),
                measured_at="2026-01-01T00:00:00+00:00",
            )
        )
        return rows[-1]

    bounds = device.bounds(request.threads, request.effective_policy, request.dtype)
    explore(Narrowing(ask, bounds, catalogue), request, distinct(request))
    database.put_all(rows)
    return len(rows)


def _us(option: Option) -> float | None:
    kernel, shape = option.kernel, option.shape
    assert isinstance(kernel, GpuKernel)
    if kernel.method in ("cublas", "cudnn", "cusparselt"):
        return library_forecast(shape, _LIKE, sparse=kernel.nm is not None).us
    launch, density = Launch.parse(option.config), (1 - option.sparsity) * (2 if kernel.nm else 1)
    share = density**0.5
    work = uniform_work(
        shape,
        outputs=max(1, round(share * shape.out_channels)),
        columns=max(1, round(share * shape.in_channels * shape.taps)),
        group_out=option.pattern.group_out or shape.out_channels,
        unit_in=option.pattern.unit_in if option.pattern.group_out else shape.in_channels,
        sparse=kernel.nm is not None,
    )
    smem_bytes = launch.stages * (launch.bm + launch.bn) * launch.bk * 2
    found = forecast(work, launch, _LIKE, registers=96, smem_bytes=smem_bytes)
    return None if found is None else found.us
