"""How far is the tuner's choice from the best kernel there is, and how much of the space did it time?

Tunes a few real layers into an empty database, then times every kernel on every structure, several
rounds over, and compares. The regret of a structure is the time of the kernel that the tuner chose over
the time of the fastest one, minus one, both taken from the exhaustive rounds: the tuner's own figures
decide what it chose and nothing else.

    python benchmarks/tuner_regret.py [--threads N] [--rounds N] [--layers NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autosparse.database import TuningDatabase
from autosparse.devices import AUTO
from autosparse.devices.device import Device, find
from autosparse.measuring import limits
from autosparse.measuring.stopwatch import LAYERS
from autosparse.progress import Progress
from autosparse.records import DENSE, LayerInfo, LayerShape, Pattern, onexn
from autosparse.tuning.autotune import TuneRequest, TuneResult, tune
from autosparse.tuning.layer_job import LayerJob, Outcome
from autosparse.tuning.narrowing import steps
from autosparse.workers.worker import Worker

MODEL_BYTES = 46_800_000  # ResNet-18's dense weights: how cold weights are


def conv(channels: int, outputs: int, size: int, kernel: int = 3, stride: int = 1) -> LayerShape:
    return LayerShape(
        op="conv2d",
        batch_size=1,
        in_channels=channels,
        out_channels=outputs,
        in_height=size,
        in_width=size,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(kernel // 2, kernel // 2),
        activation="relu",
    )


SHAPES = {
    "resnet18.layer1": conv(64, 64, 56),
    "resnet18.layer2": conv(128, 128, 28),
    "resnet18.layer3": conv(256, 256, 14),
    "resnet18.layer4": conv(512, 512, 7),
    "resnet18.layer3.down": conv(128, 256, 28, 3, 2),
    "mobilenet.pointwise": conv(512, 512, 14, 1),
    "resnet20.layer2": conv(32, 32, 16),
    "resnet18.fc": LayerShape(op="linear", batch_size=1, in_channels=512, out_channels=1000),
}


@dataclass(frozen=True)
class Structure:
    """One thing to run, whatever the kernel."""

    layer: str
    pattern: Pattern
    kept: int
    sparsity: float

    @property
    def label(self) -> str:
        return "dense" if self.pattern.is_dense else f"{self.pattern.name}@{self.sparsity:g}"


def structures(request: TuneRequest) -> list[Structure]:
    found = []
    for layer in request.layers:
        assert layer.shape is not None
        found.append(Structure(layer.name, DENSE, -1, 0.0))
        for pattern in request.patterns:
            for step in steps(layer.shape, pattern, request.sparsities):
                if step.kept < layer.shape.in_channels:
                    found.append(Structure(layer.name, pattern, step.kept, step.sparsities[0]))
    return found


def time_everything(
    request: TuneRequest, device: Device, rounds: int
) -> dict[Structure, dict[str, float]]:
    """Gives structure to kernel to its least median over the rounds, microseconds."""
    catalogue = request.catalogue(device)
    shapes = {layer.name: layer.shape for layer in request.layers if layer.shape}
    times: dict[Structure, dict[str, float]] = {}
    with Worker() as worker:
        for _ in range(rounds):
            for structure in structures(request):
                for kernel in catalogue.kernels(shapes[structure.layer], structure.pattern):
                    job = LayerJob(
                        shape=shapes[structure.layer],
                        pattern=structure.pattern,
                        sparsity=structure.sparsity,
                        kernel=kernel.name,
                        dtype=request.dtype,
                        threads=request.threads,
                        policy=request.effective_policy,
                        cache_bytes=device.cache_bytes,
                    )
                    answer = worker.call(job.to_json(), job.policy.timeout_s)
                    if answer.outcome is None:
                        continue
                    outcome = Outcome.from_json(answer.outcome)
                    if outcome.median_us is not None:
                        row = times.setdefault(structure, {})
                        row[kernel.name] = min(outcome.median_us, row.get(kernel.name, float("inf")))
    return times


def compare(
    result: TuneResult, times: dict[Structure, dict[str, float]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Gives a row per structure that the tuner offers, and one per useful one that it does not."""
    chosen = {
        (name, option.choice.label): option.choice.kernel
        for name, options in result.options.items()
        for option in options
    }
    rows, missed = [], []
    for structure, kernels in times.items():
        best = min(kernels, key=lambda name: kernels[name])
        pick = chosen.get((structure.layer, structure.label))
        entry = {"layer": structure.layer, "structure": structure.label, "best": best}
        if pick is None:
            dense = min(times[Structure(structure.layer, DENSE, -1, 0.0)].values())
            if kernels[best] < dense:
                missed.append({**entry, "best_us": kernels[best], "dense_us": dense})
            continue
        regret = kernels[pick] / kernels[best] - 1
        rows.append({**entry, "pick": pick, "best_us": kernels[best], "regret": regret})
    return rows, missed


def summarise(
    result: TuneResult, rows: list[dict[str, Any]], missed: list[dict[str, Any]], seconds: float
) -> dict[str, Any]:
    regrets = sorted(row["regret"] for row in rows)
    return {
        "considered": result.considered,
        "timed": result.timed,
        "share_timed": result.timed / result.considered,
        "beaten_early": result.beaten,
        "skipped": [skip.to_json() for skip in result.skipped],
        "tuning_s": result.seconds,
        "exhaustive_s": seconds,
        "structures": len(rows),
        "exact": sum(regret == 0 for regret in regrets),
        "regret_mean": statistics.mean(regrets),
        "regret_median": statistics.median(regrets),
        "regret_p95": regrets[int(0.95 * (len(regrets) - 1))],
        "regret_max": regrets[-1],
        "missed": missed,
    }


def text(summary: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    lines = [f"{'layer':22} {'structures':>10} {'exact':>6} {'mean':>7} {'max':>7}   worst"]
    for layer in dict.fromkeys(row["layer"] for row in rows):
        own = [row for row in rows if row["layer"] == layer]
        worst = max(own, key=lambda row: row["regret"])
        lines.append(
            f"{layer:22} {len(own):10d} {sum(row['regret'] == 0 for row in own):6d} "
            f"{100 * statistics.mean(row['regret'] for row in own):6.2f}% "
            f"{100 * worst['regret']:6.2f}%   {worst['structure']}: {worst['pick']} for {worst['best']}"
        )
    lines += [
        "",
        f"timed {summary['timed']} of {summary['considered']} ({100 * summary['share_timed']:.0f} %) "
        f"in {summary['tuning_s']:.0f} s; every kernel, all rounds: {summary['exhaustive_s']:.0f} s",
        *(f"  not timed: {skip['count']:5d} {skip['reason']}" for skip in summary["skipped"]),
        "regret: "
        + ", ".join(
            f"{name} {100 * summary[f'regret_{name}']:.2f} %"
            for name in ("mean", "median", "p95", "max")
        ),
        f"structures faster than dense that the tuner left out: {len(summary['missed'])}",
        *(
            f"  {miss['layer']} {miss['structure']}: {miss['best_us']:.1f} us, "
            f"dense {miss['dense_us']:.1f} us"
            for miss in summary["missed"]
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="times every kernel is timed")
    parser.add_argument("--layers", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--block-n", type=int, nargs="*", default=[8, 16, 32])
    parser.add_argument("--sparsity", type=float, nargs="*", default=[0.5, 0.75, 0.875])
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    arguments = parser.parse_args()
    hardware = limits.profile()
    device = find(AUTO, hardware)
    request = TuneRequest(
        layers=tuple(LayerInfo(name=name, shape=SHAPES[name]) for name in arguments.layers),
        patterns=tuple(map(onexn, arguments.block_n)),
        sparsities=tuple(arguments.sparsity),
        threads=arguments.threads,
        policy=LAYERS.for_model(MODEL_BYTES),
    )
    with tempfile.TemporaryDirectory() as folder, TuningDatabase(f"{folder}/t.db") as database:
        result = tune(request, device, database, progress=Progress())
    begun = time.monotonic()
    times = time_everything(request, device, arguments.rounds)
    rows, missed = compare(result, times)
    summary = summarise(result, rows, missed, time.monotonic() - begun)
    print(text(summary, rows))
    if arguments.json:
        report = {
            "schema": 1,
            "hardware": hardware.to_json(),
            "threads": arguments.threads,
            "policy": request.effective_policy.to_json(),
            "rounds": arguments.rounds,
            **summary,
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
