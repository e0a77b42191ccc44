"""The whole-model comparisons that the README quotes, each into a folder of its own.

    python benchmarks/whole_models.py [--only resnet18] [--out results/reference] [--seconds 4]

Random uniform 1xN masks on every convolution but the stem (and the shortcuts of ResNet-18), the fastest
N per layer, against every installed engine, once per thread count and, where kernels compute in bf16,
in both types. `autosparse bench` makes one such comparison; this runs the set.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from autosparse import hardware
from autosparse.cli.bars import progress_sink
from autosparse.compare import Asked, compare, picture, table
from autosparse.compare.records import DTYPES, Comparison, Subject
from autosparse.files import write_json
from autosparse.kernels import spec
from autosparse.progress import Progress
from autosparse.tuning.stopwatch import WHOLE

# Model to the sparsities, and the layers that published results leave dense.
SET: dict[str, tuple[tuple[float, ...], tuple[str, ...]]] = {
    "resnet18": ((0.5, 0.75, 0.875), ("*downsample*",)),
    "resnet50": ((0.75,), ()),
    "mobilenet_v1": ((0.75,), ()),
}


def asked(model: str, seconds: float) -> Asked:
    sparsities, exclude = SET[model]
    computed = {kernel.dtype for kernel in spec.all_kernels()}
    return Asked(
        subject=Subject(model=model),
        sparsities=sparsities,
        block_ns=(8, 16, 32, 64),
        exclude=exclude,
        dtypes=tuple(dtype for dtype in DTYPES if dtype in computed),
        threads=tuple(sorted({1, hardware.usable_cores()})),
        policy=dataclasses.replace(WHOLE, time_cap_us=seconds * 1e6),
    )


def show(found: Comparison) -> None:
    for session in found.sessions:
        print(table.title(found, session))
        print(*("  ".join(map(str, row)) for row in table.rows(session)), sep="\n")
        print(*table.remarks(session), sep="\n")
    print(*table.scaling(found), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=SET, help="one of the set; repeatable")
    parser.add_argument("--out", type=Path, default=Path("results/reference"))
    parser.add_argument("--seconds", type=float, default=4.0, help="running time of each contestant")
    options = parser.parse_args()
    with progress_sink(quiet=False) as sink:
        for model in options.only or SET:
            found = compare(asked(model, options.seconds), Progress(sink))
            folder = options.out / f"bench-{model}"
            write_json(folder / "bench.json", found.to_json())
            picture.write(found, folder)
            show(found)


if __name__ == "__main__":
    main()
