"""`--dry-run` does nothing but count and estimate."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from autosparse.database import TuningDatabase


def dry_run(shop: Any, home: Path, *extra: str) -> dict[str, Any]:
    done = dataclasses.replace(shop, folder=home.parent, home=home).search(
        "--model", f"{shop.folder}/net.py:build", "--data", "digits",
        "--space", str(shop.folder / "space.yaml"), "--latency-budget", "50ms", "--dry-run", "--json",
        *extra,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_it_writes_nothing_anywhere(shop: Any, tmp_path: Path) -> None:
    before = sorted(shop.folder.rglob("*"))
    forecast = dry_run(shop, tmp_path / "home")
    assert list(tmp_path.iterdir()) == [], "neither the home folder nor a folder of runs"
    assert sorted(shop.folder.rglob("*")) == before
    assert forecast["to_time"] > 0 and forecast["reused"] == 0
    assert forecast["basis"] == "roofline" and forecast["fastest_ms"] > 0


def test_a_database_that_exists_is_read_and_none_is_made(shop: Any, tmp_path: Path) -> None:
    named = tmp_path / "named.db"
    dry_run(shop, tmp_path / "home", "--database", str(named))
    assert list(tmp_path.iterdir()) == []
    TuningDatabase(str(named)).close()
    before = named.read_bytes()
    dry_run(shop, tmp_path / "home", "--database", str(named))
    assert named.read_bytes() == before
    assert not (tmp_path / "home").exists()
