"""Writes table.json: a small table with the shape of a measured one, made by formula.

Ten layers of a small residual network. Latencies follow a fixed cost plus kept work, block sizes differ
in efficiency, small blocks lose to dense at low sparsity; losses rise steeply with sparsity and block
size and carry noise, some of it below zero. To remake the file: python tests/golden/make_table.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from autosparse.records import LatencyOption, LayerChoice, onexn
from autosparse.searching.problem import Problem

# name, output pixels, channels in, channels out, taps, how much the layer minds being pruned
LAYERS = (
    ("conv1", 1024, 3, 16, 9, 1.0),
    ("layer1.0.conv1", 1024, 16, 16, 9, 0.8),
    ("layer1.0.conv2", 1024, 16, 16, 9, 0.5),
    ("layer2.0.conv1", 256, 16, 32, 9, 0.9),
    ("layer2.0.conv2", 256, 32, 32, 9, 0.4),
    ("layer2.1.conv1", 256, 32, 32, 9, 0.25),
    ("layer3.0.conv1", 64, 32, 64, 9, 0.6),
    ("layer3.0.conv2", 64, 64, 64, 9, 0.2),
    ("layer3.1.conv1", 64, 64, 64, 9, 0.1),
    ("fc", 1, 64, 10, 1, 0.3),
)
GRID = (0.5, 0.625, 0.75, 0.875)
EFFICIENCY = {4: 0.42, 8: 0.62, 16: 0.8, 32: 0.88}


def option(choice: LayerChoice, median_us: float, flops: int) -> LatencyOption:
    return LatencyOption(
        choice=choice,
        median_us=round(median_us, 3),
        ci_low_us=round(median_us * 0.99, 3),
        ci_high_us=round(median_us * 1.01, 3),
        flops_kept=flops,
    )


def make() -> Problem:
    random = np.random.default_rng(7)
    options, losses = {}, {}
    for name, pixels, inputs, outputs, taps, frailty in LAYERS:
        flops = 2 * pixels * inputs * outputs * taps
        options[name] = [option(LayerChoice(kernel="made_dense"), 1.5 + flops / 40e3, flops)]
        losses[name] = {}
        for block_n, efficiency in EFFICIENCY.items():
            if name == "conv1" or block_n > outputs:
                continue
            for sparsity in GRID:
                kept = flops * (1 - sparsity)
                noise = random.normal(1, 0.02)
                median_us = (2.0 + kept / 40e3 / efficiency) * noise
                choice = LayerChoice(
                    pattern=onexn(block_n), sparsity=sparsity, kernel=f"made_onexn{block_n}"
                )
                options[name].append(option(choice, median_us, int(kept)))
                loss = frailty * 0.12 * sparsity**4 * (1 + 0.1 * np.log2(block_n))
                losses[name][choice.label] = round(float(loss + random.normal(0, 0.002)), 6)
    return Problem(
        model="made-resnet",
        layers=tuple(name for name, *_ in LAYERS),
        options={name: tuple(found) for name, found in options.items()},
        losses=losses,
        overhead_us=12.0,
        correction=1.04,
        dense_accuracy=0.92,
        extents={name: pixels for name, pixels, *_ in LAYERS},
    )


if __name__ == "__main__":
    Path(__file__).with_name("table.json").write_text(json.dumps(make().to_json(), indent=1) + "\n")
