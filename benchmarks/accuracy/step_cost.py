"""What does a step of a pruning method cost over a dense one, and a choice of masks over an epoch?

    python benchmarks/accuracy/step_cost.py

ResNet-18 at 32x32 in batches of 128, every convolution but the first in the method's pattern at 75 %.
Dense and sparse steps run in turn, so that both see the same host; ratios are of steps beside each
other.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import numpy as np
import torch

from autosparse import graph, hardware, models
from autosparse.plans.plan import Plan
from autosparse.statistics import median_ci
from autosparse.train import loop
from autosparse.train.job import TrainJob
from autosparse.train.objective import Mixed
from autosparse.train.recipes import Recipe
from autosparse.train.run import Run, open_run

MODEL = "resnet18"
IMAGES_PER_EPOCH = 45_000
ARMS = {"subp": "1x16", "srste": "2:4", "gmp": "1x16", "tw": "tw64", "tvw": "tvw64"}


def run_of(method: str, pattern: str, options: argparse.Namespace) -> Run:
    """Opens a training whose masks are as sparse as they get."""
    module = models.resolve(MODEL, classes=10).module
    layers = graph.capture_layers(module, (torch.zeros(1, 3, 32, 32),))
    sparsity = 0.5 if pattern == "2:4" else 0.75
    plan = (
        Plan(model=MODEL)
        if method == "dense"
        else Plan.uniform(MODEL, layers[1:-1], pattern=pattern, sparsity=sparsity)
    )
    job = TrainJob(
        model=MODEL,
        weights=None,
        data="digits",
        resolution=32,
        plan=plan,
        recipe=Recipe(kind="full", epochs=100, method=method, batch_size=options.batch_size),
        folder=tempfile.mkdtemp(),
        device=options.device,
    )
    run = open_run(job)
    run.method.start_epoch(run.job.recipe.first_final_epoch, _no_probe)
    run.module.train()
    return run


def _no_probe(batches: int) -> dict[str, np.ndarray]:
    raise AssertionError("nothing here looks at gradients")


def batch_of(run: Run) -> Mixed:
    images = torch.randn(run.job.recipe.batch_size, 3, 32, 32, device=run.device)
    labels = torch.randint(10, (len(images),), device=run.device)
    return Mixed(images.contiguous(memory_format=run.order), labels)


def timed(run: Run, batch: Mixed) -> float:
    started = time.perf_counter()
    loop._step(run, batch, lambda: None)
    if run.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="of each, in turn")
    parser.add_argument("--threads", type=int, default=hardware.usable_cores())
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", nargs="+", default=["subp"], choices=list(ARMS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    where = torch.cuda.get_device_name() if options.device != "cpu" else hardware.detect().cpu.model
    print(f"{MODEL} 32x32, batch {options.batch_size}, {options.threads} threads of {where}, f32")
    dense = run_of("dense", "dense", options)
    for method in options.methods:
        compare(dense, method, options)


def compare(dense: Run, method: str, options: argparse.Namespace) -> None:
    sparse = run_of(method, ARMS[method], options)
    batch = batch_of(dense)
    for run in (dense, sparse):
        timed(run, batch)
    pairs = [(timed(dense, batch), timed(sparse, batch)) for _ in range(options.steps)]
    ratios = np.array([b / a for a, b in pairs])
    ratio, low, high = median_ci(ratios)
    step_s = float(np.median([a for a, _ in pairs]))
    epoch_s = step_s * IMAGES_PER_EPOCH / options.batch_size
    update_s = float(np.median([update(sparse) for _ in range(5)]))
    print(
        f"{method} {ARMS[method]}: dense step {1e3 * step_s:.0f} ms, sparse over dense "
        f"{ratio:.3f} ({low:.3f}-{high:.3f}, {options.steps} pairs); masks chosen in "
        f"{1e3 * update_s:.0f} ms, {update_s / epoch_s:.2%} of an epoch of {IMAGES_PER_EPOCH} images",
        flush=True,
    )


def update(run: Run) -> float:
    """Times a choice of all masks, the first after the ramp, which every method makes in full."""
    started = time.perf_counter()
    run.method.start_epoch(run.job.recipe.first_final_epoch, _no_probe)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
