"""Writes run folders as a search leaves them: made-up but consistent numbers from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from autosparse.plans.plan import Plan
from autosparse.records import (
    Accuracy,
    CpuProfile,
    HardwareProfile,
    LayerChoice,
    LayerShape,
    WholeLatency,
    onexn,
)
from autosparse.storage.files import write_json, write_rows_csv, write_text

RunWriter = Callable[..., Path]
"""Writes a run folder under a folder; see `write_run`."""

SPARSITIES = (0.5, 0.625, 0.75, 0.8125, 0.875, 0.9375)


def resnet18_layers() -> list[tuple[str, LayerShape]]:
    """The 21 weight-bearing layers of a ResNet-18 at 224x224."""

    def conv(cin: int, cout: int, size: int, k: int = 3, stride: int = 1, **more: Any) -> LayerShape:
        return LayerShape(
            op="conv2d",
            batch_size=1,
            in_channels=cin,
            out_channels=cout,
            in_height=size,
            in_width=size,
            kernel=(k, k),
            stride=(stride, stride),
            padding=(k // 2, k // 2),
            **more,
        )

    layers = [("conv1", conv(3, 64, 224, 7, 2, activation="relu"))]
    cin, size = 64, 56
    for stage, cout in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            stride = 2 if stage > 1 and block == 0 else 1
            prefix = f"layer{stage}.{block}"
            layers.append((f"{prefix}.conv1", conv(cin, cout, size, 3, stride, activation="relu")))
            if stride == 2:
                layers.append((f"{prefix}.downsample.0", conv(cin, cout, size, 1, 2)))
            size //= stride
            layers.append((f"{prefix}.conv2", conv(cout, cout, size, activation="relu", residual=True)))
            cin = cout
    linear = LayerShape(op="linear", batch_size=1, in_channels=512, out_channels=1000)
    return [*layers, ("fc", linear)]


class FakeSearch:
    """Numbers of one made-up search; every figure follows from the seed."""

    def __init__(self, *, configs: int, trials: int, budget_ms: float | None, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.layers = resnet18_layers()
        self.budget_ms = budget_ms
        self.dense_us = {
            name: max(6.0, shape.flops / 105e3 * self.rng.uniform(0.9, 1.25))
            for name, shape in self.layers
        }
        self.overhead_us = 310.0
        self.dense_ms = (sum(self.dense_us.values()) + self.overhead_us) / 1e3
        self.configs = [self.config(i / max(1, configs - 1)) for i in range(configs)]
        self.trials = [self.trial(i) for i in range(trials)]

    def accuracy(self, latency_ms: float) -> float:
        return 0.972 - 0.10 * max(0.0, 1 - latency_ms / self.dense_ms) ** 3.2

    def layer(self, name: str, level: float) -> dict[str, Any]:
        dense = self.dense_us[name]
        stays = name in ("conv1", "fc") or ("downsample" in name and level < 0.4)
        index = int(np.clip(round(level * 5 + self.rng.uniform(-1, 1)), 0, 5))
        sparsity = SPARSITIES[index]
        block_n = int(self.rng.choice([4, 8, 16, 32], p=[0.1, 0.3, 0.4, 0.2]))
        ratio = 1.0 if stays else (1 - sparsity) * 1.5 + 0.06
        predicted = dense * ratio
        return {
            "name": name,
            "label": "dense" if stays else f"1x{block_n}@{sparsity:g}",
            "kernel": "f32_gemm_dense__avx512_6x64"
            if stays
            else f"f32_spmm_onexn{block_n}__avx512_6x64",
            "predicted_us": predicted,
            "measured_us": predicted * float(self.rng.normal(1.03, 0.015)),
            "dense_us": dense,
            "sparsity": 0.0 if stays else sparsity,
            **({"why_dense": "the first layer has 3 input channels"} if name == "conv1" else {}),
        }

    def config(self, level: float) -> dict[str, Any]:
        layers = [self.layer(name, level) for name, _ in self.layers]
        choices = {
            layer["name"]: LayerChoice(
                pattern=onexn(int(layer["label"].split("@")[0][2:])), sparsity=layer["sparsity"]
            )
            for layer in layers
            if layer["label"] != "dense"
        }
        plan = Plan(model="resnet18", layers=choices)
        weights = dict((name, shape.weights) for name, shape in self.layers)
        predicted = (sum(layer["predicted_us"] for layer in layers) + self.overhead_us) / 1e3
        measured = (sum(layer["measured_us"] for layer in layers) + self.overhead_us * 1.1) / 1e3
        half = measured * float(self.rng.uniform(0.003, 0.012))
        value = self.accuracy(measured) + float(self.rng.normal(0, 0.0015))
        zeros = sum(layer["sparsity"] * weights[layer["name"]] for layer in layers)
        return {
            "id": plan.id,
            "predicted_latency_ms": predicted,
            "measured_latency_ms": measured,
            "latency_ci_ms": [measured - half * 0.8, measured + half],
            "accuracy": value,
            "accuracy_kind": "short",
            "accuracy_split": "test",
            "accuracy_samples": 360,
            "validation_accuracy": value + 0.0041,
            "validation_samples": 143,
            "epochs": 4,
            "one_shot_accuracy": value - 0.05 * (0.3 + level),
            "sparsity": zeros / sum(weights.values()),
            "feasible": self.budget_ms is None or measured <= self.budget_ms,
            "plan": f"configs/{plan.id}.yaml",
            "dtype": "f32",
            "layers": layers,
            "_plan": plan,
        }

    def trial(self, number: int) -> dict[str, Any]:
        failed = number % 23 == 22
        latency = float(self.rng.uniform(0.22, 0.95)) * self.dense_ms
        loss = float(self.rng.gamma(1.6, 0.03)) + 0.03
        return {
            "number": number,
            "state": "FAIL" if failed else "COMPLETE",
            "kind": "knapsack" if number < 12 else "tpe",
            "latency_ms": None if failed else latency,
            "accuracy": None if failed else max(0.1, self.accuracy(latency) - loss),
            "feasible": self.budget_ms is None or latency <= self.budget_ms,
            "accuracy_kind": "" if failed else "one-shot",
            "reason": "the evaluation ran out of memory" if failed else "",
            "params": {"slack": round(float(self.rng.uniform()), 3)},
        }

    def baseline(self, block_n: int, sparsity: float, measured: bool) -> dict[str, Any]:
        latency = self.dense_ms * ((1 - sparsity) * 1.55 + 0.13)
        return {
            "name": f"uniform 1x{block_n}@{sparsity:g}",
            "predicted_latency_ms": latency,
            "measured_latency_ms": latency * 1.03 if measured else None,
            "latency_ci_ms": [latency * 1.024, latency * 1.037] if measured else None,
            "accuracy": self.accuracy(latency) - 0.03 - 0.1 * max(0.0, sparsity - 0.6),
            "accuracy_kind": "one-shot",
        }

    def whole(self, median: float, engine: str) -> dict[str, Any]:
        return WholeLatency(
            median_ms=median,
            ci_low_ms=median * 0.995,
            ci_high_ms=median * 1.006,
            repeats=240,
            threads=2,
            batch_size=1,
            dtype="f32",
            engine=engine,
        ).to_json()

    def document(self) -> dict[str, Any]:
        feasible = [c for c in self.configs if c["feasible"]]
        best = max(feasible, key=lambda c: c["accuracy"]) if feasible else None
        if self.budget_ms is None and self.configs:
            best = self.configs[len(self.configs) // 2]
        smallest = min((c["predicted_latency_ms"] for c in self.configs), default=6.13) * 0.97
        dense = Accuracy(value=0.9722, kind="dense", split="test", samples=360)
        dense_validation = Accuracy(value=0.9790, kind="dense", split="validation", samples=143)
        longer = Accuracy(value=0.9806, kind="short", split="test", samples=360)
        longer_validation = Accuracy(value=0.9860, kind="short", split="validation", samples=143)
        return {
            "schema": 1,
            "model": "resnet18",
            "hardware_id": "9f3ab2c4d5e6f708",
            "threads": 2,
            "batch_size": 1,
            "dtypes": ["f32"],
            "budget_ms": self.budget_ms,
            "input_shape": [3, 224, 224],
            "data": "digits",
            "given_weights": False,
            "data_resolution": 32,
            "seed": 0,
            "command": "autosparse search --model resnet18 --latency-budget 12ms --threads 2 --seed 0",
            "version": "0.1.0",
            "created_at": "2026-03-04T12:00:00+00:00",
            "dense": {
                "latency": self.whole(self.dense_ms, "autosparse"),
                "accuracy": dense.to_json(),
                "validation": {"f32": dense_validation.to_json()},
                "trained": [
                    {
                        "kind": "short",
                        "epochs": 4,
                        "accuracy": longer.to_json(),
                        "validation": longer_validation.to_json(),
                        "weights": "train/dense-short-4/weights.safetensors",
                    }
                ],
                "peers": {"torch": self.whole(self.dense_ms * 1.31, "torch")},
            },
            "baselines": [
                self.baseline(16, s, measured)
                for s, measured in ((0.5, True), (0.75, True), (0.875, False))
            ],
            "configs": [{k: v for k, v in c.items() if k != "_plan"} for c in self.configs],
            "predicted_front": [
                {"latency_ms": x, "accuracy": self.accuracy(x) - 0.004}
                for x in np.linspace(0.2 * self.dense_ms, self.dense_ms, 30).tolist()
            ],
            "calibration": self.calibration(),
            **self.extras(smallest),
            "verdict": {"id": best["id"] if best else None, "text": ""},
        }

    def extras(self, smallest: float) -> dict[str, Any]:
        return {
            "hypervolume": [
                {"trial": t["number"], "value": 0.71 * (1 - math.exp(-0.09 * (i // 3 * 3 + 4)))}
                for i, t in enumerate(self.trials)
            ],
            "tuning": {
                "considered": 1460,
                "timed": 412,
                "reused": 96,
                "skipped": [
                    {
                        "reason": "the roofline bound is above the best option already timed",
                        "count": 871,
                    },
                    {"reason": "block size above the layer's output channels", "count": 81},
                ],
            },
            "skipped": [
                {"what": "torch.compile as a peer", "why": "no C++ compiler at run time"},
                {"what": "bf16", "why": "asked for f32 only"},
            ],
            "policy": {
                "id": "p-3fa291",
                "warmup_us": 200000,
                "target_ci": 0.01,
                "min_repeats": 20,
                "max_repeats": 2000,
                "weights": "evicted between runs",
                "pinned": True,
            },
            "versions": {"python": "3.11.9", "torch": "2.13.0", "optuna": "5.0.0"},
            "feasibility": {
                "fastest_ms": smallest,
                "dense_ms": self.dense_ms,
                "slowest_ms": 1.8 * self.dense_ms,
                "smallest_feasible_ms": smallest,
            },
        }

    def calibration(self) -> dict[str, Any]:
        points = [
            {
                "id": c["id"],
                "predicted_ms": c["predicted_latency_ms"],
                "measured_ms": c["measured_latency_ms"],
            }
            for c in self.configs
        ]
        return {"factor": 1.034, "mape": 0.033, "spearman": 0.988, "points": points}

    def latency_table(self) -> list[dict[str, Any]]:
        rows = []
        for name, shape in self.layers:
            options = [("dense", 1.0)]
            if name != "conv1":
                options += [
                    (f"1x{n}@{s:g}", (1 - s) * (1.5 + 2 / n) + 0.06)
                    for n in (8, 16)
                    for s in SPARSITIES
                ]
            for label, ratio in options:
                median = self.dense_us[name] * ratio
                rows.append(
                    {
                        "layer": name,
                        "shape": shape.key,
                        "label": label,
                        "kernel": f"kernel_{label}",
                        "dtype": "f32",
                        "threads": 2,
                        "median_us": median,
                        "ci_low_us": median * 0.99,
                        "ci_high_us": median * 1.01,
                        "flops_kept": int(shape.flops * ratio),
                    }
                )
        return rows


def hardware() -> HardwareProfile:
    return HardwareProfile(
        hardware_id="9f3ab2c4d5e6f708",
        cpu=CpuProfile(
            model="AMD EPYC 9B45 64-Core Processor",
            vendor="AuthenticAMD",
            architecture="x86_64",
            isa_cpu=("amx_tile", "avx", "avx2", "avx512_bf16", "avx512bw", "avx512f", "fma", "sse2"),
            isa_usable=("avx", "avx2", "avx512_bf16", "avx512bw", "avx512f", "fma", "sse2"),
            simd_width_bits=512,
            cores_physical=64,
            cores_logical=128,
            cores_usable=2,
            affinity=(0, 1),
            quota_cores=2.0,
            l1d_bytes=48 << 10,
            l2_bytes=1 << 20,
            l3_bytes=32 << 20,
            f32_gflops_core=118.4,
            f32_gflops_all=231.0,
            bf16_gflops_core=236.1,
            bf16_gflops_all=470.2,
            read_gbytes_per_s={"l1": 410.0, "l2": 190.0, "l3": 61.0, "dram": 24.3},
        ),
        gpu_note="no NVIDIA driver",
    )


def write_run(
    folder: Path,
    *,
    configs: int = 8,
    trials: int = 60,
    budget_ms: float | None = 14.0,
    seed: int = 0,
    edit: Callable[[dict[str, Any]], None] = lambda document: None,
    without: tuple[str, ...] = (),
) -> Path:
    """Writes a run folder; `edit` changes pareto.json before it is written."""
    fake = FakeSearch(configs=configs, trials=trials, budget_ms=budget_ms, seed=seed)
    run = folder / "20260304T120000Z-resnet18-9f3ab2c4"
    document = fake.document()
    edit(document)
    write_json(run / "pareto.json", document)
    write_text(run / "config.yaml", "model: resnet18\nlatency_budget: 12ms\nthreads: 2\nseed: 0\n")
    write_json(run / "hardware.json", hardware().to_json())
    table = fake.latency_table()
    write_rows_csv(run / "latency_table.csv", table, list(table[0]))
    columns = ["number", "state", "kind", "latency_ms", "accuracy", "accuracy_kind"]
    columns += ["feasible", "reason", "params"]
    write_rows_csv(run / "trials.csv", fake.trials, columns)
    (run / "configs").mkdir()
    for config in fake.configs:
        config["_plan"].save(run / config["plan"])
    for name in without:
        (run / name).unlink()
    return run
