"""How many cache lines processors fetch from each other in one inference, per model and operator.

    python benchmarks/moved_lines.py [--model resnet18 ...] [--dtype f32 ...] [--sparsity 0 0.75]
        [--block-n 16] [--threads 2] [--operators 5]

Computed from what the operators' tasks read and write, nothing is measured: random uniform 1xN masks on
every layer but the first and the last, and the kernels that are picked where nothing was measured.
Lines of 64 bytes of activations: first those fetched to be read, which a processor waits for, then
those fetched to be written over, as memory is used again. With --operators also the operators that
fetch the most.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from autosparse import compile
from autosparse.compare.own import sparse_layers
from autosparse.compare.records import Subject, Zeros
from autosparse.compare.task import Task, capture, input_shape
from autosparse.database import TuningDatabase
from autosparse.engine import CompiledModel
from autosparse.kernels import spec
from autosparse.kernels.binding import MovedLines
from autosparse.plans.plan import Plan
from autosparse.records import LayerChoice, onexn

MODELS = ("resnet18", "resnet50", "mobilenet_v1", "mobilenet_v2", "vgg16_bn", "resnet20")


def compiled(
    model: str, dtype: str, sparsity: float, block_n: int, threads: int, database: Path
) -> CompiledModel:
    """Compiles a model of the zoo with random masks."""
    subject = Subject(model=model)
    shape = input_shape(subject)
    sparse = sparse_layers(capture(subject, shape), ()) if sparsity else ()
    choice = LayerChoice(pattern=onexn(block_n), sparsity=sparsity)
    plan = Plan(model=model, layers={layer.name: choice for layer in sparse})
    zeros = Zeros(name="masks", plan=plan, random=True)
    task = Task(subject=subject, shape=shape, threads=threads, folder=database.parent, zeros=zeros)
    return compile(
        task.module(),
        (task.tensor(),),
        dtype=dtype,
        threads=threads,
        database=str(database),
        use_zeros=sparsity > 0,
    )


def rows(options: argparse.Namespace, database: Path) -> Iterator[tuple[str, dict[str, MovedLines]]]:
    """Gives every model's title and its lines by operator."""
    for model in options.model:
        for dtype in options.dtype:
            for sparsity in options.sparsity:
                with compiled(
                    model, dtype, sparsity, options.block_n, options.threads, database
                ) as made:
                    title = f"{model} {dtype} {sparsity:.0%}"
                    yield title, made.moved_lines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument(
        "--dtype", nargs="+", default=sorted({kernel.dtype for kernel in spec.all_kernels()})[::-1]
    )
    parser.add_argument("--sparsity", nargs="+", type=float, default=(0.0, 0.75), help="0 is dense")
    parser.add_argument("--block-n", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--operators", type=int, default=0, help="list this many of each model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "empty.db"
        TuningDatabase(str(database)).close()
        for title, moved in rows(options, database):
            read = sum(lines.read for lines in moved.values())
            written = sum(lines.written for lines in moved.values())
            print(f"{title:44}{read:10,}{written:10,}", flush=True)
            most = sorted(moved.items(), key=lambda item: -item[1].read)[: options.operators]
            for name, lines in most:
                print(f"    {name:40}{lines.read:10,}{lines.written:10,}")


if __name__ == "__main__":
    main()
