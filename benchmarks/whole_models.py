"""The whole-model comparisons that the README quotes, each into a folder of its own.

    python benchmarks/whole_models.py [--only resnet18] [--out results/reference] [--seconds 4]

Random uniform 1xN masks on every convolution but the stem (and the shortcuts of ResNet-18), the fastest
N per layer, against every installed engine, once per thread count and, where kernels compute in bf16,
in both types; ResNet-18 once more without the kernels that expand weights. `autosparse bench` makes one
such comparison; this runs the set.
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from autosparse import hardware
from autosparse.cli.bars import progress_sink
from autosparse.compare import Asked, compare, picture, table
from autosparse.compare.records import DTYPES, Comparison, Subject
from autosparse.kernels import spec
from autosparse.measuring.stopwatch import WHOLE
from autosparse.progress import Progress
from autosparse.records import onexn
from autosparse.storage.files import write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One comparison.

    Attributes:
        model: of the zoo.
        sparsities: of the layers that are sparse.
        exclude: layers that published results leave dense.
        compact: leaves out kernels that expand weights, of which bf16 has none.
    """

    model: str
    sparsities: tuple[float, ...] = (0.75,)
    exclude: tuple[str, ...] = ()
    compact: bool = False


SHORTCUTS = ("*downsample*",)
SET = {
    "resnet18": Case(model="resnet18", sparsities=(0.5, 0.75, 0.875), exclude=SHORTCUTS),
    "resnet18-compact": Case(model="resnet18", exclude=SHORTCUTS, compact=True),
    "resnet50": Case(model="resnet50"),
    "mobilenet_v1": Case(model="mobilenet_v1"),
}


def asked(case: Case, seconds: float) -> Asked:
    computed = {"f32"} if case.compact else {kernel.dtype for kernel in spec.all_kernels()}
    return Asked(
        subject=Subject(model=case.model),
        sparsities=case.sparsities,
        patterns=tuple(map(onexn, (8, 16, 32, 64))),
        exclude=case.exclude,
        dtypes=tuple(dtype for dtype in DTYPES if dtype in computed),
        compact_weights=case.compact,
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
        for name in options.only or SET:
            found = compare(asked(SET[name], options.seconds), Progress(sink))
            folder = options.out / f"bench-{name}"
            write_json(folder / "bench.json", found.to_json())
            picture.write(found, folder)
            show(found)


if __name__ == "__main__":
    main()
