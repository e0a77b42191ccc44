"""What only a GPU can show: kernels of every method built, verified and timed, limits, and a tuning."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from autosparse import hardware
from autosparse.database import TuningDatabase
from autosparse.devices.device import find, kind_of
from autosparse.devices.kinds.cuda import Cuda
from autosparse.devices.kinds.cuda.layer import LayerOnGpu
from autosparse.devices.layer import random_layer
from autosparse.errors import NoKernel
from autosparse.measuring.stopwatch import LAYERS, measure
from autosparse.patterns import parse_pattern
from autosparse.records import DENSE, Activation, LayerInfo, LayerShape, Status
from autosparse.tuning import layer_job
from autosparse.tuning.autotune import tune
from autosparse.tuning.layer_job import LayerJob
from autosparse.tuning.request import TuneRequest
from autosparse.workers.worker import Worker

pytestmark = pytest.mark.skipif(
    not Cuda.of(hardware.detect()), reason=f"no GPU to use: {Cuda.why_none(hardware.detect())}"
)

CONV = LayerShape(
    op="conv2d", batch_size=4, in_channels=64, out_channels=96, in_height=15, in_width=14,
    kernel=(3, 3), padding=(1, 1), activation=Activation.RELU, residual=True,
)  # fmt: skip
LINEAR = LayerShape(
    op="linear", batch_size=1, in_channels=256, out_channels=384, in_height=500,
    activation=Activation.GELU,
)  # fmt: skip
PATTERNS = ((DENSE, 0.0), (parse_pattern("tw64k16"), 0.75), (parse_pattern("tvw64k16"), 0.75))


def job_of(shape: LayerShape, pattern: object, sparsity: float, kernel: str, config: str) -> LayerJob:
    return LayerJob(
        shape=shape, pattern=pattern, sparsity=sparsity, kernel=kernel, config=config, device="cuda",  # type: ignore[arg-type]
        dtype="bf16", threads=1, policy=LAYERS.for_model(64 << 20),
    )  # fmt: skip


@pytest.mark.parametrize("shape", [CONV, LINEAR], ids=["conv", "linear"])
@pytest.mark.parametrize(("pattern", "sparsity"), PATTERNS, ids=["dense", "tw", "tvw"])
def test_every_kernel_is_right_and_timed(shape: LayerShape, pattern: object, sparsity: float) -> None:
    device = find("cuda")
    for kernel in device.kernels_for(shape, pattern, "bf16"):  # type: ignore[arg-type]
        config = device.configs(kernel, shape, pattern)[0]  # type: ignore[arg-type]
        found = layer_job.measure(job_of(shape, pattern, sparsity, kernel.name, config))
        assert found.status is Status.OK, (kernel.name, config, found.message)
        assert found.median_us is not None and 0.5 < found.median_us < 10_000
        assert "MHz" in found.message


def test_samples_scatter_little() -> None:
    layer = random_layer(LINEAR, DENSE, 0.0, "bf16")
    with kind_of("cuda").build(layer, "bf16_dense__cuda_cublas", 1, copies=8) as built:
        samples = built.runner(layer.inputs)(30)
    spread = np.subtract(*np.quantile(samples, [0.75, 0.25])) / np.median(samples)
    assert spread < 0.02


def test_time_is_what_many_runs_take() -> None:
    layer = random_layer(dataclasses.replace(LINEAR, in_height=4096), DENSE, 0.0, "bf16")
    device = torch.device("cuda", torch.cuda.current_device())
    with kind_of("cuda").build(layer, "bf16_dense__cuda_cublas", 1, copies=8) as built:
        assert isinstance(built, LayerOnGpu)
        timing = measure(built.runner(layer.inputs), LAYERS)
        calls = built._calls(layer.inputs) * 20
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begun.record()
        for call in calls:
            call()
        ended.record()
        torch.cuda.synchronize(device)
    assert timing.median_us < 1.1 * 1e3 * begun.elapsed_time(ended) / len(calls)


def test_a_kernel_with_other_parameters_is_refused_and_the_gpu_goes_on() -> None:
    layer = random_layer(LINEAR, DENSE, 0.0, "bf16")
    with pytest.raises(NoKernel), kind_of("cuda").build(
        layer, "bf16_dense__cuda_triton", 1,
        config="bk=64,bm=8192,bn=128,ctas=1,split_k=1,stages=4,warps=4",
    ) as built:  # fmt: skip
        built.run(layer.inputs, np.empty(LINEAR.output_shape, np.float32))
    assert torch.zeros(1, device="cuda").item() == 0


def test_limits_are_plausible() -> None:
    gpu = find("cuda").with_limits().gpu  # type: ignore[attr-defined]
    assert gpu.multiprocessors and gpu.l2_bytes > 1 << 20
    assert 20 < gpu.bf16_tflops < 5000 and gpu.f16_tflops > 0.5 * gpu.bf16_tflops
    assert 100 < gpu.copy_gbytes_per_s < 20_000
    assert 0.3 < gpu.node_us < 20


def test_a_layer_is_tuned_by_a_process_of_its_own(tmp_path: Path) -> None:
    device = find("cuda").with_limits()
    request = TuneRequest(
        layers=(LayerInfo(name="fc", shape=dataclasses.replace(LINEAR, in_height=4096)),),
        patterns=(parse_pattern("tw64k16"),),
        sparsities=(0.75,),
        dtype="bf16",
        policy=LAYERS.for_model(64 << 20),
    )
    with TuningDatabase(f"sqlite:///{tmp_path}/t.db") as database:
        with Worker(environment=device.environment) as worker:
            found = tune(request, device, database, worker=worker)
        assert tune(request, device, database).timed == 0
    dense, sparse = found.options["fc"]
    assert dense.choice.pattern.is_dense and sparse.choice.sparsity == 0.75
    assert not found.failed, [row.message for row in found.failed]
