"""What GPU kernels should take, by the analytic model, before anybody has run them.

    python benchmarks/gpu_forecast.py [--sparsity 0.75] [--product NAME] [--launches 2] [--out FILE]

Kernels are compiled here for each chip, and their registers and shared memory read from the machine
code; the model (`autosparse.kernels.gpu.forecast`) does the rest. Nothing is measured. Launches come as
the model orders them with resources that it assumes, so only the first few are worth compiling.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from gpu_shapes import Case, convolutions, linears

from autosparse.errors import AutosparseError
from autosparse.kernels.gpu import method as methods
from autosparse.kernels.gpu.forecast import (
    ASSUMED,
    PRODUCTS,
    Forecast,
    Product,
    TileWork,
    forecast,
    library_forecast,
    work_of,
)
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.method import GpuKernel
from autosparse.patterns import family_of, parse_pattern
from autosparse.patterns.tile_structure import TileStructure
from autosparse.records import LayerShape, Pattern
from autosparse.storage.files import write_json
from autosparse.version import __version__

PATTERNS = (
    *("tw64k16", "tw128k16", "tw128k32", "tw256k32"),
    *("tvw64k16", "tvw128k16"),
)
OURS = ("triton", "sparse_mma")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sparsity", type=float, default=0.75)
    parser.add_argument("--product", action="append", choices=PRODUCTS, default=None)
    parser.add_argument("--launches", type=int, default=2, help="compiled of each kernel and layer")
    parser.add_argument("--pattern", action="append", default=None)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    cases = {"linears": linears(), "convolutions": convolutions()}
    names = given.product or ["A100-SXM4-80GB", "H100-SXM5-80GB"]
    wanted = Wanted(given.sparsity, tuple(given.pattern or PATTERNS), given.launches)
    found = [
        row
        for name in names
        for group, some in cases.items()
        for case in some
        for row in rows(PRODUCTS[name], group, case, wanted)
    ]
    show(found)
    if given.out:
        write_json(
            given.out,
            {
                "what": "predicted, not measured",
                "version": __version__,
                "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "sparsity": given.sparsity,
                "launches_compiled": given.launches,
                "assumed": ASSUMED.to_json(),
                "products": [PRODUCTS[name].to_json() for name in names],
                "rows": found,
            },
        )


@dataclass(frozen=True)
class Wanted:
    """What is forecast.

    Attributes:
        sparsity: of every layer.
        patterns: their names.
        launches: compiled of each kernel and layer, the best of which counts.
    """

    sparsity: float
    patterns: tuple[str, ...]
    launches: int


def rows(product: Product, group: str, case: Case, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Predicts the dense library, and the best launch of every kernel and pattern, of one layer."""
    dense = library_forecast(case.shape, product)
    common = {"product": product.name, "group": group, "layer": case.name, "count": case.count}
    yield {**common, "kernel": "library", "pattern": "dense", **told(dense), "over_dense": 1.0}
    half = library_forecast(case.shape, product, sparse=True)
    yield {
        **common,
        "kernel": "library",
        "pattern": "2:4",
        **told(half),
        "over_dense": dense.us / half.us,
    }
    for name in wanted.patterns:
        pattern = parse_pattern(name)
        if family_of(pattern).why_not(pattern, case.shape.weight_shape):
            continue
        for kernel in kernels(case.shape, pattern, product):
            best = best_launch(kernel, case.shape, pattern, wanted, product)
            if best is not None:
                launch, one = best
                yield {
                    **common, "kernel": kernel.name, "pattern": name, "launch": launch, **told(one),
                    "over_dense": dense.us / one.us,
                }  # fmt: skip


def told(one: Forecast) -> dict[str, Any]:
    return {
        "us": round(one.us, 2), "bound_by": one.bound_by, "blocks": one.blocks,
        "share_of_dense_peak": round(one.flops_share, 3), "waves": round(one.waves, 2),
    }  # fmt: skip


def kernels(shape: LayerShape, pattern: Pattern, product: Product) -> list[GpuKernel]:
    return [
        kernel
        for kernel in methods.all_kernels()
        if kernel.dtype == "bf16"
        and kernel.method in OURS
        and not methods.why_not(kernel, shape, pattern, product.chip)
    ]


def best_launch(
    kernel: GpuKernel, shape: LayerShape, pattern: Pattern, wanted: Wanted, product: Product
) -> tuple[str, Forecast] | None:
    work = drawn(shape, pattern, wanted.sparsity)
    method, found = methods.method_of(kernel), []
    for launch in method.launches(kernel, shape, pattern, product.chip)[: wanted.launches]:
        taken = resources(kernel, shape, pattern, launch, product)
        if taken is not None:
            one = forecast(work, Launch.parse(launch), product, registers=taken[0], smem_bytes=taken[1])
            found += [] if one is None else [(launch, one)]
    return min(found, key=lambda pair: pair[1].us, default=None)


@functools.cache
def resources(
    kernel: GpuKernel, shape: LayerShape, pattern: Pattern, launch: str, product: Product
) -> tuple[int, int] | None:
    """Registers and shared memory of a launch; None where it does not compile, or spills."""
    try:
        found = methods.method_of(kernel).compiled(kernel, shape, pattern, launch, product.chip)
    except AutosparseError as error:
        print(f"{kernel.name}[{launch}] on {shape.key}: {error}")
        return None
    return None if found is None or found.spilled_bytes else (found.registers, found.smem_bytes)


@functools.lru_cache(maxsize=8)
def drawn(shape: LayerShape, pattern: Pattern, sparsity: float) -> TileWork:
    """The work of a layer with a random mask."""
    generator = np.random.default_rng(0)
    mask = family_of(pattern).random(pattern, shape.weight_shape, sparsity, generator)
    return work_of(shape, TileStructure.from_weight(mask, pattern), sparse=pattern.nm is not None)


def show(found: Sequence[dict[str, Any]]) -> None:
    for row in found:
        print(
            f"{row['product']:16} {row['layer']:24} {row['pattern']:10} {row['us']:9.1f} us "
            f"{row['over_dense']:5.2f}x dense  {row['bound_by']:14} {row['kernel']} "
            f"{row.get('launch', '')}"
        )
    print()
    by_group = itertools.groupby(found, key=lambda row: (row["product"], row["group"]))
    for (product, group), some in by_group:
        listed = list(some)
        # Geometric means of each layer's best.
        for family in ("tw", "tvw", "2:4"):
            best: dict[str, float] = {}
            for row in listed:
                if row["pattern"].startswith(family):
                    best[row["layer"]] = max(best.get(row["layer"], 0.0), row["over_dense"])
            if best:
                mean = math.exp(sum(map(math.log, best.values())) / len(best))
                print(f"{product} {group}: {family} {mean:.2f}x dense, mean of {len(best)} layers")


if __name__ == "__main__":
    main()
