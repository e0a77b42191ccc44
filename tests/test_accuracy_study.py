"""The accuracy study's tables: what is trained, and what is read from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "accuracy"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives its modules `arms` and `orderings`, which are a script's and no part of the package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import arms
    import orderings

    yield arms, orderings
    for name in ("arms", "orderings"):
        sys.modules.pop(name)


def row(arm: str, seed: int, accuracy: float, **more: Any) -> dict[str, Any]:
    return {
        "arm": arm,
        "sparsity": 0.75,
        "seed": seed,
        "epochs": 12,
        "train_images": None,
        "test_accuracy": accuracy,
        **more,
    }


def test_every_scale_trains_each_entry_once_and_the_decisive_ones_first(study: Any) -> None:
    arms, _ = study
    for scale in arms.SCALES:
        entries = [(arm.name, *rest) for arm, *rest in arms.wanted(scale, 3)]
        assert entries and len(entries) == len(set(entries))
    small = arms.wanted("small", 3)
    decisive = [arm.decisive and sparsity == 0.75 for arm, sparsity, _ in small]
    assert decisive == sorted(decisive, reverse=True)
    assert {seed for (*_, seed), first in zip(small, decisive, strict=True) if not first} == {0}
    full = arms.wanted("full", 3)
    assert len(full) == 3 * sum(len(arm.sparsities) for arm in arms.ARMS)


def test_every_expected_pair_is_trained_at_a_common_sparsity(study: Any) -> None:
    arms, orderings = study
    known = {arm.name: set(arm.sparsities) for arm in (*arms.ARMS, *arms.TUNING, *arms.TRAINED)}
    for first, second, _ in orderings.EXPECTED:
        assert known[first] & known[second], (first, second)


def test_differences_are_paired_by_seed(study: Any) -> None:
    _, orderings = study
    found = orderings.paired({0: 0.6, 1: 0.7, 2: 0.8, 7: 0.1}, {2: 0.74, 0: 0.57, 1: 0.67, 5: 0.9})
    assert found["seeds"] == [0, 1, 2]
    assert found["mean"] == pytest.approx(0.04)
    # Differences 0.03, 0.03, 0.06: deviation 0.01732, and Student's 97.5 % of two degrees is 4.3027.
    assert found["half_interval"] == pytest.approx(4.3027 * 0.0173205 / 3**0.5, rel=1e-4)
    assert orderings.paired({0: 0.6}, {1: 0.5}) is None
    assert orderings.paired({0: 0.6}, {0: 0.5})["half_interval"] is None


@pytest.mark.parametrize(
    ("mean", "half", "told"),
    [
        (0.02, 0.01, "as expected"),
        (-0.02, 0.01, "against it"),
        (0.01, 0.02, "open"),
        (-0.01, 0.02, "open"),
        (0.0, None, "sign as expected, one seed"),
        (-0.01, None, "sign against it, one seed"),
    ],
)
def test_what_an_interval_covers_is_open(study: Any, mean: float, half: float, told: str) -> None:
    assert study[1].verdict({"mean": mean, "half_interval": half}) == told


def test_tables_are_written_and_two_budgets_are_refused(tmp_path: Path) -> None:
    def read() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(FOLDER / "orderings.py"), str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True)

    rows = [row("subp 1x16", 0, 0.61), row("onexn 1x16", 0, 0.58)]
    file = tmp_path / "runs.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    assert read().returncode == 0
    table = (tmp_path / "table.md").read_text()
    assert "12 epochs of 45,000 training images" in table
    assert "| +3.00 | 1 | sign as expected, one seed |" in table
    (found,) = json.loads((tmp_path / "orderings.json").read_text())
    assert (found["first"], found["second"]) == ("subp 1x16", "onexn 1x16")
    file.write_text(file.read_text() + json.dumps(row("dense", 0, 0.7, epochs=100)) + "\n")
    refused = read()
    assert refused.returncode != 0 and "of one budget" in refused.stderr
