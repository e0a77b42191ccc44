"""How accurate is a ResNet-20 on CIFAR-10 under each pattern and method, after equally many epochs?

    python benchmarks/accuracy/study.py --data CIFAR10_FOLDER --out results/reference/accuracy

Trains from scratch (the scale ``trained`` from weights that are given), one process per training, and
resumes whatever was interrupted: rows that `--out` holds are not trained again, unfinished trainings go
on from their last epoch. Every row says what it was trained by. `orderings.py` reads the rows.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import multiprocessing
import os
import platform
from pathlib import Path
from typing import Any

import cifar10_part
import torch
from arms import SCALES, Arm, wanted
from safetensors.torch import load_file

from autosparse import data, graph, hardware, models
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import short_hash
from autosparse.storage.files import append_jsonl, read_jsonl
from autosparse.storage.paths import home
from autosparse.train import checkpoint
from autosparse.train.job import TrainJob, claim, load_result
from autosparse.train.launch import train
from autosparse.train.methods.method import share_of
from autosparse.train.recipes import Recipe
from autosparse.train.run import open_run
from autosparse.version import __version__

MODEL = "resnet20"
DENSE = Plan(model=MODEL, note="dense")
_ENTRY = ("arm", "pattern", "method", "sparsity", "seed", "epochs", "train_images")


def plan_of(arm: Arm, sparsity: float) -> Plan:
    """Prunes every convolution but the first; the classifier stays dense."""
    if arm.pattern == "dense":
        return DENSE
    module, image = models.resolve(MODEL, classes=10).module, torch.zeros(1, 3, 32, 32)
    layers = graph.capture_layers(module, (image,))
    return Plan.uniform(MODEL, layers[1:-1], pattern=arm.pattern, sparsity=sparsity)


def recipe_of(arm: Arm, epochs: int, seed: int) -> Recipe:
    """The source's settings, at fewer epochs and in batches of 128."""
    return Recipe(
        kind="full",
        epochs=round(arm.epochs * epochs),
        method=arm.method,
        settings=arm.settings,
        seed=seed,
        **{"from_scratch": True, **arm.recipe},
    )


def row_of(arm: Arm, sparsity: float, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Trains one entry and says what it reached, and by what."""
    recipe = recipe_of(arm, options.epochs, seed)
    plan = plan_of(arm, sparsity)
    data_set = source(options)
    key = short_hash([arm.name, sparsity, recipe.to_json(), plan.id, data_set, options.images], 12)
    job = TrainJob(
        model=MODEL,
        weights=str(options.weights) if arm.needs_weights else None,
        data=data_set,
        resolution=None,
        plan=plan,
        recipe=recipe,
        folder=str(options.work / key),
        seed=seed,
        threads=options.threads,
        device=options.device,
    )
    first_s = head_start(job, options)
    result = train(job, Progress())
    where = torch.cuda.get_device_name() if options.device != "cpu" else hardware.detect().cpu.model
    return {
        **entry_of(arm, sparsity, seed, options),
        "test_accuracy": result.accuracy.value,
        "test_samples": result.accuracy.samples,
        "validation_accuracy": result.validation.value,
        "best_epoch": result.best_epoch,
        "masks": result.masks_checksum,
        "weights_pruned": _weights_pruned(result.weights, plan),
        "recipe": recipe.to_json(),
        "failures": list(result.failures),
        "train_s": round(first_s + result.seconds, 3),
        "device": where,
        "threads": options.threads,
        "torch": torch.__version__,
        "autosparse": __version__,
        "python": platform.python_version(),
    }


def head_start(job: TrainJob, options: argparse.Namespace) -> float:
    """Lets a job begin where its method prunes first; the dense epochs before are trained once a seed.

    They are the same for all arms. The job then goes on from the best of them, not from the last.

    Returns:
        Seconds that the dense epochs took; 0 where the job has none.
    """
    folder, recipe = Path(job.folder), job.recipe
    epochs = share_of(recipe.settings.get("pretrain", 0.0), recipe.epochs)
    if not epochs:
        return 0.0
    plain = dataclasses.replace(
        recipe, method="dense", settings={}, epochs=epochs, recalibrate_batches=0
    )
    name = short_hash([plain.to_json(), job.data, options.images], 12)
    dense = train(
        dataclasses.replace(job, plan=DENSE, recipe=plain, folder=str(options.work / f"dense-{name}")),
        Progress(),
    )
    if load_result(claim(job)) is None and checkpoint.load(folder) is None:
        run = open_run(job)
        run.module.load_state_dict(load_file(dense.weights))
        run.next_epoch = epochs - 1
        run.save(folder)
    return dense.seconds


def entry_of(arm: Arm, sparsity: float, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What tells one training from another."""
    return {
        "arm": arm.name,
        "pattern": arm.pattern,
        "method": arm.method,
        "sparsity": sparsity,
        "seed": seed,
        "epochs": options.epochs,
        "train_images": options.images,
    }


def source(options: argparse.Namespace) -> str:
    """Names the data set: all of CIFAR-10, or the part that the environment then names."""
    if options.images is None:
        return f"cifar10:{options.data}"
    os.environ[cifar10_part.VARIABLE] = f"{options.data}:{options.images}"
    return f"{cifar10_part.__file__}:load"


def _weights_pruned(file: str, plan: Plan) -> float:
    if not plan.layers:
        return 0.0
    weights = [w for n, w in load_file(file).items() if n.removesuffix(".weight") in plan.layers]
    return float(1 - sum(int((w != 0).sum()) for w in weights) / sum(w.numel() for w in weights))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of CIFAR-10's python pickles")
    parser.add_argument("--out", type=Path, required=True, help="folder of the rows")
    parser.add_argument("--work", type=Path, help="folder of checkpoints (default: AUTOSPARSE_HOME)")
    parser.add_argument("--scale", choices=SCALES, default="small")
    parser.add_argument("--epochs", type=int, help="default: 100 if full, else 12")
    parser.add_argument("--images", type=int, help="to train on (default: all, 45,000)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time")
    parser.add_argument("--threads", type=int, default=1, help="of one training")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", type=Path, help="dense weights, for arms that need trained ones")
    parser.add_argument("--only", action="append", help="name of an arm (repeatable; default: all)")
    options = parser.parse_args()
    options.work = options.work or home() / "accuracy-study"
    options.epochs = options.epochs or (100 if options.scale == "full" else 12)
    options.out.mkdir(parents=True, exist_ok=True)
    data.check_source(f"cifar10:{options.data}")
    run(options)


def run(options: argparse.Namespace) -> None:
    """Trains what has no row yet, some at a time, each in a process of its own."""
    rows = options.out / "runs.jsonl"
    known = [{key: row.get(key) for key in _ENTRY} for row in read_jsonl(rows)]
    todo = [
        entry
        for entry in wanted(options.scale, options.seeds)
        if (not options.only or entry[0].name in options.only)
        and entry_of(*entry, options) not in known
    ]
    needing = [arm.name for arm, *_ in todo if arm.needs_weights]
    if options.weights is None and needing:
        raise SystemExit(f"{needing[0]} needs trained dense weights; name them by --weights")
    print(f"{len(known)} trained, {len(todo)} to train", flush=True)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        options.workers, mp_context=context, max_tasks_per_child=1
    ) as pool:
        running = {pool.submit(row_of, *entry, options): entry for entry in todo}
        for done in concurrent.futures.as_completed(running):
            arm, sparsity, seed = running[done]
            if done.exception() is not None:
                print(f"{arm.name} at {sparsity:g}, seed {seed}: {done.exception()}", flush=True)
                continue
            row = done.result()
            append_jsonl(rows, row)
            print(
                f"{arm.name} at {sparsity:g}, seed {seed}: {row['test_accuracy']:.2%}, "
                f"{row['train_s'] / 60:.0f} min",
                flush=True,
            )


if __name__ == "__main__":
    main()
