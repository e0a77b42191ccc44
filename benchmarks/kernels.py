"""Single layers: the best kernel per sparsity, its share of the machine's peak, and torch's dense.

    python benchmarks/kernels.py --threads 1 --sparsity 0,0.5,0.75 --block-n 8,32 --json out.json

Every kernel that can run a layer is timed briefly; the fastest of each sparsity then meets torch
(oneDNN, contiguous and channels-last) in turns, A B B A. Times are of the layer alone, as inside a
model: activations already lie in each engine's own layout. Weights and activations are warm, in
whatever cache holds them. Two rates are given: arithmetic really done, and that of the dense layer in
the same time. `peak` is measured by running independent multiply-adds on as many threads; beside the
median's share of it stands the fastest turn's, which says more on a busy machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autosparse.kernels import binding, spec
from autosparse.kernels.layer import LayerProgram, random_blocks
from autosparse.kernels.spec import KernelSpec
from autosparse.measuring.stopwatch import (
    WHOLE,
    Runner,
    Timing,
    python_runner,
)
from autosparse.measuring.turns import interleave_here, paired_ratio
from autosparse.progress import Progress
from autosparse.records import DENSE, LayerShape, kept_blocks, onexn

# name: (in_channels, out_channels, extent, kernel, stride); padded to keep the extent over the stride
LAYERS = {
    "resnet18 stem": (3, 64, 224, 7, 2),
    "resnet18 64@56": (64, 64, 56, 3, 1),
    "resnet18 128@28": (128, 128, 28, 3, 1),
    "resnet18 256@14": (256, 256, 14, 3, 1),
    "resnet18 512@7": (512, 512, 7, 3, 1),
    "resnet18 128@28 /2": (64, 128, 56, 3, 2),
    "resnet18 256@14 /2": (128, 256, 28, 3, 2),
    "resnet18 512@7 /2": (256, 512, 14, 3, 2),
    "mobilenet 128@56": (64, 128, 56, 1, 1),
    "mobilenet 256@28": (256, 256, 28, 1, 1),
    "mobilenet 512@14": (512, 512, 14, 1, 1),
    "mobilenet 1024@7": (1024, 1024, 7, 1, 1),
    "classifier": (512, 1000, 1, 1, 1),
}


def shape_of(name: str, batch_size: int) -> LayerShape:
    inputs, outputs, extent, kernel, stride = LAYERS[name]
    return LayerShape(
        op="conv2d",
        batch_size=batch_size,
        in_channels=inputs,
        out_channels=outputs,
        in_height=extent,
        in_width=extent,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(kernel // 2, kernel // 2),
        activation="relu",
    )


class Layer:
    """One layer with random arrays, as anybody may run it."""

    def __init__(self, shape: LayerShape, threads: int) -> None:
        rng = np.random.default_rng(0)
        self.shape, self.threads = shape, threads
        self.x = rng.standard_normal(shape.input_shape, dtype=np.float32)
        size = (shape.out_channels, shape.in_channels, *shape.kernel)
        self.weight = rng.standard_normal(size, dtype=np.float32)

    def program(self, kernel: KernelSpec, sparsity: float) -> LayerProgram:
        blocks = (
            random_blocks(self.shape, onexn(kernel.block_n), sparsity, 0) if kernel.block_n else None
        )
        return LayerProgram(
            self.shape, weight=self.weight, structure=blocks, kernel=kernel, threads=self.threads
        )

    def runner(self, layer: LayerProgram) -> Runner:
        def run(count: int) -> NDArray[np.int64]:
            _, op_ns = layer.program.time([self.x], count, per_op=True)
            assert op_ns is not None
            return op_ns.sum(axis=1)

        return run

    def torch_runner(self, memory_format: torch.memory_format) -> Runner:
        shape = self.shape
        conv = torch.nn.Conv2d(
            shape.in_channels, shape.out_channels, shape.kernel, shape.stride, shape.padding, bias=False
        )
        conv = conv.eval().to(memory_format=memory_format)
        x = torch.from_numpy(self.x).contiguous(memory_format=memory_format)

        def call() -> None:
            with torch.inference_mode():
                torch.relu_(conv(x))

        return python_runner(call)


def fastest(
    layer: Layer, kernels: list[KernelSpec], sparsity: float
) -> tuple[KernelSpec, LayerProgram]:
    """The kernel with the least time of a few runs, tried in three rounds."""
    programs = [(kernel, layer.program(kernel, sparsity)) for kernel in kernels]
    least = np.full(len(programs), np.inf)
    for _ in range(3):
        for index, (_, program) in enumerate(programs):
            least[index] = min(least[index], layer.runner(program)(6).min())
    return programs[int(np.argmin(least))]


def candidates(shape: LayerShape, block_ns: list[int], sparsity: float) -> list[KernelSpec]:
    """Kernels that can run the layer: dense ones at sparsity 0, else those of the block sizes."""
    patterns = [DENSE] if sparsity == 0 else [onexn(n) for n in block_ns]
    return [kernel for pattern in patterns for kernel in spec.kernels_for(shape, pattern)]


def measure(name: str, options: argparse.Namespace, peak: float) -> Iterator[dict[str, Any]]:
    layer = Layer(shape_of(name, options.batch_size), options.threads)
    shape = layer.shape
    runners = {
        "torch contiguous": layer.torch_runner(torch.contiguous_format),
        "torch channels-last": layer.torch_runner(torch.channels_last),
    }
    chosen = {}
    for sparsity in options.sparsity:
        kernel, program = fastest(layer, candidates(shape, options.block_n, sparsity), sparsity)
        chosen[sparsity] = kernel
        runners[str(sparsity)] = layer.runner(program)
    found, _ = interleave_here(runners, WHOLE, Progress(), threads=options.threads)
    timings = found.timings[found.longest]
    peer = min((timing for key, timing in timings.items() if "torch" in key), key=lambda t: t.median_us)
    for sparsity, kernel in chosen.items():
        kept = kept_blocks(shape.in_channels, sparsity) / shape.in_channels
        timing = timings[str(sparsity)]
        gflops = shape.flops / timing.median_us * 1e-3
        yield row(name, shape, sparsity, kernel, timing, peer) | {
            "gflops_kept": gflops * kept,
            "gflops_dense_equivalent": gflops,
            "share_of_peak": gflops * kept / peak,
            "share_of_peak_fastest_turn": gflops
            * kept
            / peak
            * timing.median_us
            / min(timing.turns_us),
        }


def row(
    name: str, shape: LayerShape, sparsity: float, kernel: KernelSpec, timing: Timing, peer: Timing
) -> dict[str, Any]:
    ratio, low, high = paired_ratio(peer, timing)
    return {
        "layer": name,
        "shape": shape.key,
        "sparsity": sparsity,
        "kernel": kernel.name,
        "median_us": timing.median_us,
        "ci_us": [timing.ci_low_us, timing.ci_high_us],
        "torch_us": peer.median_us,
        "torch_over_ours": ratio,
        "torch_over_ours_ci": [low, high],
    }


def text(values: dict[str, Any]) -> str:
    low, high = values["torch_over_ours_ci"]
    return (
        f"{values['layer']:20s} {values['sparsity']:6.3f} {values['kernel'].partition('_conv_')[2]:30s}"
        f"{values['median_us']:9.1f} us"
        f"  {values['gflops_kept']:6.0f} {values['gflops_dense_equivalent']:7.0f}"
        f" {values['share_of_peak']:6.0%} {values['share_of_peak_fastest_turn']:6.0%}"
        f"  {values['torch_over_ours']:6.2f}x [{low:.2f}, {high:.2f}]"
    )


def numbers(kind: type) -> Any:
    return lambda values: [kind(value) for value in values.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--sparsity", type=numbers(float), default=[0.0, 0.5, 0.75, 0.875])
    parser.add_argument("--block-n", type=numbers(int), default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--layers", default="", help="only layers whose name contains this")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    peak = max(binding.probe_f32_gflops(options.threads, 0.2) for _ in range(3))
    print(f"peak {peak:.0f} GFLOP/s on {options.threads} threads, {binding.detect_isa()}")
    print(
        f"{'layer':20s} {'zeros':>6s} {'kernel':30s}{'median':>12s}  {'kept':>6s} {'dense=':>7s}"
        f" {'peak':>6s} {'best':>6s}  faster than torch dense"
    )
    rows = []
    for name in LAYERS:
        if options.layers in name:
            for values in measure(name, options, peak):
                print(text(values), flush=True)
                rows.append(values)
    if options.json:
        options.json.write_text(
            json.dumps({"peak_gflops": peak, "threads": options.threads, "rows": rows})
        )


if __name__ == "__main__":
    main()
