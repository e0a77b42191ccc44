"""A folder of runs to read: a finished one with training logs, and one that has just begun."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autosparse.run_folders import RunFolder
from autosparse.storage.files import append_jsonl

sys.path.insert(0, str(Path(__file__).parent.parent / "report"))
from made_up_run import write_run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs; `latest` is the finished one."""
    root = tmp_path_factory.mktemp("results")
    for hour, finished in ((9, False), (10, True)):
        with RunFolder.create(
            root,
            model="resnet18",
            hardware_id="9f3ab2c4d5e6",
            config_yaml="model: resnet18\n",
            fingerprint=f"{hour}",
            budget_ms=14.0 if finished else None,
            at=datetime(2026, 3, 4, hour, tzinfo=UTC),
        ) as run:
            if finished:
                _fill(run, write_run(root.parent / f"{root.name}-made", configs=6, trials=20))
                run.finish("done", 0)
            else:
                run.finish("stopped", 6, "stopped while tuning")
    return root


def _fill(run: RunFolder, made: Path) -> None:
    for source in made.rglob("*"):
        if source.is_file():
            target = run.path / source.relative_to(made)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    for epoch in range(3):
        append_jsonl(
            run.folder("train", "abc") / "metrics.jsonl",
            {"epoch": epoch, "status": "ok", "loss": 1.0 / (epoch + 1), "validation_accuracy": 0.9},
        )
