"""What the study found: accuracies with their deviations, and the sign of every expected ordering.

    python benchmarks/accuracy/orderings.py results/reference/accuracy

Differences are paired by seed, since two arms of one seed share data order and initial weights. Their
95 % interval is Student's, and there is none where only one seed was trained.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from arms import BASE, FINETUNED, SHORT, TUNING
from scipy.stats import t as student

from autosparse.storage.files import read_jsonl, write_json

Key = tuple[str, float]
# What the papers, or arithmetic, let expect: the first is at least as accurate as the second.
EXPECTED: tuple[tuple[str, str, str], ...] = (
    ("subp 1x16", "onexn 1x16", "soft masks from scratch beat one shot at equal budget"),
    ("subp 1x16", "onexn 1x16, full rate", "so they do, if it is fine-tuned at the whole rate"),
    ("subp 1x16, early ramp", "onexn 1x16, full rate", "and with the ramp of the recipe `full`"),
    ("subp 1x16", "hard 1x16", "soft masks beat hard ones"),
    ("subp 1x16", "subp 1x16, L1", "BPAR is no worse than L1"),
    ("subp 1x16", "subp filter", "blocks beat whole filters"),
    ("subp unstructured", "subp 1x4", "finer is better"),
    ("subp 1x4", "subp 1x8", "finer is better"),
    ("subp 1x8", "subp 1x16", "finer is better"),
    ("subp 1x16 layer-wide", "subp 1x16", "uniformity has a price"),
    ("subp 1x16", "subp 1x16, random regrowth", "regrowth by importance is no worse than at random"),
    ("subp 1x16", "gmp 1x16", "regrowth beats gradual pruning"),
    ("subp 1x16, early ramp", "gmp 1x16", "and so it does along the same ramp"),
    ("subp 1x16, early ramp", "subp 1x16, early ramp, hard", "soft masks beat hard ones there"),
    ("subp 1x16, early ramp", "subp 1x16, early ramp, random regrowth", "importance helps there"),
    ("subp 1x16", "tw16", "SUBP beats tiles in stages"),
    ("tvw16", "tw16", "2:4 inside keeps more than tiles alone"),
    ("srste 1:4", "subp 1x4", "N:M beats blocks of as many weights"),
    ("subp unstructured", "srste 1:4", "equally many zeros in every run have a price"),
    ("subp unstructured", "srste 2:4", "equally many zeros in every run have a price"),
    ("onexn 1x16", "onexn filter", "blocks beat whole filters, by one shot too"),
    (f"{FINETUNED}, filters by norm", FINETUNED, "similar filters in a group lose less"),
    (f"{FINETUNED}, filters by what is kept", FINETUNED, "similar filters in a group lose less"),
    (f"{SHORT}, reconstructed", SHORT, "second-order reconstruction is the better start"),
    (SHORT, f"{SHORT}, BPAR", "L1 is no worse than BPAR on trained weights"),
)


def by_arm(rows: Sequence[Mapping[str, Any]]) -> dict[Key, dict[int, float]]:
    """Gives test accuracies by arm and sparsity, and by seed."""
    found: dict[Key, dict[int, float]] = defaultdict(dict)
    for row in rows:
        found[row["arm"], row["sparsity"]][row["seed"]] = row["test_accuracy"]
    return dict(found)


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Gives mean and standard deviation; None of one value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> dict[str, Any] | None:
    """Gives the difference of two arms over the seeds that both have."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    differences = [first[seed] - second[seed] for seed in seeds]
    mean, deviation = spread(differences)
    half = None
    if deviation is not None:
        half = float(student.ppf(0.975, len(seeds) - 1)) * deviation / math.sqrt(len(seeds))
    return {"seeds": seeds, "mean": mean, "half_interval": half}


def orderings(arms: Mapping[Key, Mapping[int, float]]) -> list[dict[str, Any]]:
    """Compares every expected pair at every sparsity that both arms have."""
    rows = []
    for first, second, why in EXPECTED:
        for sparsity in sorted({s for name, s in arms if name == first}):
            if (second, sparsity) not in arms:
                continue
            found = paired(arms[first, sparsity], arms[second, sparsity])
            if found is not None:
                rows.append(
                    {"first": first, "second": second, "why": why, "sparsity": sparsity, **found}
                )
    return rows


def tuning(arms: Mapping[Key, Mapping[int, float]]) -> list[dict[str, Any]]:
    """Compares every arm of the tuning with the base."""
    rows = []
    for arm in TUNING[1:]:
        for sparsity in arm.sparsities:
            found = paired(arms.get((arm.name, sparsity), {}), arms.get((BASE, sparsity), {}))
            if found is not None:
                rows.append(
                    {
                        "first": arm.name,
                        "second": BASE,
                        "why": "tuned at equal cost",
                        "sparsity": sparsity,
                        **found,
                    }
                )
    return rows


def verdict(row: Mapping[str, Any]) -> str:
    """Says whether an ordering was found."""
    half = row["half_interval"]
    if half is None:
        return "sign as expected, one seed" if row["mean"] >= 0 else "sign against it, one seed"
    if abs(row["mean"]) <= half:
        return "open"
    return "as expected" if row["mean"] > 0 else "against it"


def table(arms: Mapping[Key, Mapping[int, float]], rows: Sequence[Mapping[str, Any]]) -> str:
    """Writes both tables as Markdown."""
    lines = ["| arm | sparsity | test accuracy, % | deviation | seeds |", "|---|---|---|---|---|"]
    for (arm, sparsity), values in sorted(arms.items(), key=lambda item: (item[0][1], -_mean(item[1]))):
        mean, deviation = spread(list(values.values()))
        told = "" if deviation is None else f"{100 * deviation:.2f}"
        lines.append(f"| {arm} | {sparsity:g} | {100 * mean:.2f} | {told} | {len(values)} |")
    lines += [
        "",
        "| expected | sparsity | difference, points | seeds | found |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        half = row["half_interval"]
        told = f"{100 * row['mean']:+.2f}" + ("" if half is None else f" ± {100 * half:.2f}")
        pair = f"{row['first']} ≥ {row['second']}: {row['why']}"
        lines.append(
            f"| {pair} | {row['sparsity']:g} | {told} | {len(row['seeds'])} | {verdict(row)} |"
        )
    return "\n".join(lines) + "\n"


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that study.py wrote its rows to")
    folder: Path = parser.parse_args().folder
    trained = read_jsonl(folder / "runs.jsonl")
    arms = by_arm(trained)
    rows = [{**row, "found": verdict(row)} for row in [*orderings(arms), *tuning(arms)]]
    budgets = {(row["epochs"], row["train_images"] or 45_000) for row in trained}
    told = " and ".join(f"{epochs} epochs of {images:,} training images" for epochs, images in budgets)
    if len(budgets) > 1:
        raise SystemExit(f"accuracies must be of one budget to be compared, but those are of {told}")
    head = f"ResNet-20, CIFAR-10, {told}, 10,000 test images.\n\n"
    text = head + table(arms, rows)
    (folder / "table.md").write_text(text, encoding="utf-8")
    write_json(folder / "orderings.json", json.loads(json.dumps(rows)))
    print(text)


if __name__ == "__main__":
    main()
