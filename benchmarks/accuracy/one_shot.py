"""What does pruning without training leave of a trained ResNet-20, and does it rank plans rightly?

    python benchmarks/accuracy/one_shot.py --data CIFAR10_FOLDER --weights resnet20.th --out DIR

First, 1x8 and 1x16 at three sparsities on every layer but the first and last: masking alone, masking
with batch-norm recalibrated, and reconstruction, as a plan is stitched from layers reconstructed alone
(what a search does), and layer by layer (what `prune --method obs` does). Then random plans of mixed
block sizes and sparsities: Kendall's tau between each of these accuracies and the one after a short
training. Rows that `--out` holds are not computed again.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cifar10_part
import numpy as np
import torch
from scipy.stats import kendalltau
from torch import nn

from autosparse import data, graph, hardware, models
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparsify
from autosparse.progress import Progress
from autosparse.reconstruct import Alternatives, reconstruct, reconstruct_alone
from autosparse.records import LayerChoice, onexn, short_hash
from autosparse.storage.files import append_jsonl, read_jsonl, write_text
from autosparse.storage.paths import home
from autosparse.train.evaluate import recalibrate_batchnorm, score
from autosparse.train.job import TrainJob
from autosparse.train.launch import train
from autosparse.train.presets import short

BLOCKS = (8, 16)
SPARSITIES = (0.5, 0.625, 0.75)
WAYS = ("masking", "masking + batch-norm", "stitched", "layer by layer")
TRAINED = "short training"
FACTORY = f"{Path(__file__).parent / 'cifar10_part.py'}:load"


class Bench:
    """The trained model, its data, and every way to prune it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.images = data.resolve(f"cifar10:{options.data}")
        self.module = models.resolve("resnet20", classes=10, weights=options.weights).module
        self.dense = {name: value.clone() for name, value in self.module.state_dict().items()}
        layers = graph.capture_layers(self.module, (torch.zeros(1, 3, 32, 32),))
        self.layers = [layer.name for layer in layers[1:-1]]
        self._alternatives: Alternatives | None = None

    def uniform(self, block_n: int, sparsity: float) -> Plan:
        choice = LayerChoice(pattern=onexn(block_n), sparsity=sparsity)
        return Plan(model="resnet20", layers=dict.fromkeys(self.layers, choice))

    def mixed(self, seed: int) -> Plan:
        """Draws a block size and a sparsity for every layer, around a middle of the plan's own."""
        random = np.random.default_rng(seed)
        grid = (0.0, *SPARSITIES)
        middle = random.uniform(0, len(grid) - 1)
        choices = {}
        for name in self.layers:
            at = int(np.clip(round(random.normal(middle, 0.8)), 0, len(grid) - 1))
            if grid[at]:
                pattern = onexn(int(random.choice(BLOCKS)))
                choices[name] = LayerChoice(pattern=pattern, sparsity=grid[at])
        return Plan(model="resnet20", layers=choices)

    def pruned(self, plan: Plan, way: str) -> tuple[nn.Module, float]:
        """Gives the model pruned in a way, and the seconds that took."""
        self.module.load_state_dict(self.dense)
        if way == "stitched":
            self.alternatives()
        started = time.perf_counter()
        if way == "stitched":
            self.alternatives().stitch(self.module, plan)
        elif way == "layer by layer":
            reconstruct(self.module, plan, self.calibration())
        else:
            sparsify(self.module, plan)
        if way != "masking":
            recalibrate_batchnorm(self.module, self.images.train, batches=16)
        return self.module, time.perf_counter() - started

    def alternatives(self) -> Alternatives:
        if self._alternatives is None:
            choices = [LayerChoice(pattern=onexn(n), sparsity=s) for n in BLOCKS for s in SPARSITIES]
            started = time.perf_counter()
            self.module.load_state_dict(self.dense)
            self._alternatives = reconstruct_alone(
                self.module, dict.fromkeys(self.layers, choices), self.calibration()
            )
            seconds = time.perf_counter() - started
            print(
                f"{len(choices)} choices of {len(self.layers)} layers alone: {seconds:.0f} s",
                flush=True,
            )
        return self._alternatives

    def calibration(self) -> Any:
        return self.images.train.batches(128, shuffle_seed=0, limit=512)

    def accuracy(self, plan: Plan, way: str, split: str) -> dict[str, Any]:
        module, seconds = self.pruned(plan, way)
        found = score(module, getattr(self.images, split))
        return {
            "accuracy": found.accuracy,
            "cross_entropy": found.cross_entropy,
            "samples": found.samples,
            "split": split,
            "seconds": round(seconds, 2),
        }

    def trained(self, plan: Plan) -> dict[str, Any]:
        """Trains a plan shortly on a part of the images; gives its test accuracy."""
        options = self.options
        os.environ[cifar10_part.VARIABLE] = f"{options.data}:{options.images}"
        recipe = short(options.images)
        job = TrainJob(
            model="resnet20",
            weights=str(options.weights),
            data=FACTORY,
            resolution=None,
            plan=plan,
            recipe=dataclasses.replace(recipe, epochs=options.epochs),
            folder=str(home() / "one-shot-study" / f"{plan.id}-{options.images}-{options.epochs}"),
            threads=options.threads,
        )
        result = train(job, Progress())
        return {
            "accuracy": result.accuracy.value,
            "samples": result.accuracy.samples,
            "split": "test",
            "seconds": result.seconds,
            "images": options.images,
            "epochs": options.epochs,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of CIFAR-10's python pickles")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plans", type=int, default=16)
    parser.add_argument("--images", type=int, default=10_000, help="of a short training")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=hardware.usable_cores())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    bench, rows = Bench(options), options.out / "rows.jsonl"
    for block_n in BLOCKS:
        for sparsity in SPARSITIES:
            for way in WAYS:
                plan = bench.uniform(block_n, sparsity)
                keys = {"plan": plan.id, "label": f"1x{block_n}@{sparsity:g}", "way": way}
                told = once(rows, keys, lambda p=plan, w=way: bench.accuracy(p, w, "test"))
                print(keys["label"], way, f"{told['accuracy']:.2%}", told["seconds"], "s", flush=True)
    for seed in range(options.plans):
        evaluate(bench, rows, seed)
    text = table(read_jsonl(rows))
    write_text(options.out / "table.md", text)
    print(text)


def evaluate(bench: Bench, rows: Path, seed: int) -> None:
    """Evaluates a random plan in every way, and trains it shortly."""
    plan, label = bench.mixed(seed), f"mixed {seed}"
    for way in WAYS:
        # Validation decides in a search.
        keys = {"plan": plan.id, "label": label, "way": way}
        once(rows, keys, lambda w=way: bench.accuracy(plan, w, "validation"))
    keys = {"plan": plan.id, "label": label, "way": TRAINED}
    after = once(rows, keys, lambda: bench.trained(plan))["accuracy"]
    print(f"plan {seed}: {after:.2%}", flush=True)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Writes what was found as Markdown."""
    by_label: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_label.setdefault(row["label"], {})[row["way"]] = row
    lines = [
        "ResNet-20, CIFAR-10, every layer but the first and last; accuracy, % (seconds).",
        "",
        f"| | {' | '.join(WAYS)} |",
        "|---" * (len(WAYS) + 1) + "|",
    ]
    for label, found in by_label.items():
        if not label.startswith("mixed"):
            cells = (f"{100 * found[w]['accuracy']:.2f} ({found[w]['seconds']:.1f})" for w in WAYS)
            lines.append(f"| {label} | {' | '.join(cells)} |")
    mixed = [found for found in by_label.values() if TRAINED in found]
    if len(mixed) > 1:
        after = [found[TRAINED]["accuracy"] for found in mixed]
        lines += ["", f"Kendall's tau with accuracy after a short training, {len(mixed)} plans:", ""]
        for way in WAYS:
            tau, p = kendalltau([found[way]["accuracy"] for found in mixed], after)
            lines.append(f"- {way}: {tau:.2f} (p = {p:.2g})")
    return "\n".join(lines) + "\n"


def once(rows: Path, keys: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Gives the row of these keys, computed and written down if there is none."""
    for row in read_jsonl(rows):
        if all(row.get(key) == value for key, value in keys.items()):
            return row
    host = {"host": hardware.detect().cpu.model, "threads": torch.get_num_threads()}
    row = {**keys, **compute(), **host, "torch": torch.__version__}
    row["id"] = short_hash(row)
    append_jsonl(rows, row)
    return row


if __name__ == "__main__":
    main()
