"""Kill -9 at every stage: the same command continues, and nothing that was done is lost."""

from __future__ import annotations

import json
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from autosparse import database as tuning
from autosparse.kernels.spec import why_not_native
from autosparse.run_folders import find_unfinished

STAGES = ("reconstruct layers", "tune", "search", "measure", "train", "final measurement")
DEADLINE_S = 1200.0
DTYPES = ["f32"] if why_not_native("bf16") else ["f32", "bf16"]


@pytest.mark.long
def test_killed_at_every_stage_it_continues(shop: Any, check_reused: Any) -> None:
    flags = ("--dtype", "auto")  # two types, where this host computes in both
    url = f"sqlite:///{shop.home}/tuning.db"
    rows = known = 0
    for stage in STAGES:
        kill_in_stage(shop, stage, *flags)
        if stage not in ("reconstruct layers", "tune"):
            found = len(tuning.list_rows(url))
            assert found >= rows and found > 0
            rows = found
        scores = sum(len(file.read_text().splitlines()) for file in scores_of(shop))
        assert scores >= known
        known = scores
    assert len(list((shop.folder / "results").glob("2*"))) == 1, "it must continue the same run"
    before = {row.key: row for row in tuning.list_rows(url)}
    run = shop.search_apart(*flags, "--json")
    assert run.returncode == 0, run.stderr
    check_reused(before, url)
    assert len(list((shop.folder / "results").glob("2*"))) == 1
    document = json.loads(run.stdout)
    assert document["configs"]
    assert document["dtypes"] == DTYPES
    ended = shop.trials()
    assert TrialState.RUNNING not in {trial.state for trial in ended}
    complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    assert {trial.user_attrs["dtype"] for trial in complete} == set(DTYPES)
    lines = (shop.latest / "sessions.jsonl").read_text().splitlines()
    rows_of_plans = [row for row in map(json.loads, lines) if row["plan"] and not row["disturbed"]]
    names = [row["figure"]["name"] for row in rows_of_plans]
    assert names and len(names) == len(set(names)), "what was measured must not be measured again"


@pytest.mark.long
def test_killed_while_training_further_the_run_stays_finished(shop: Any) -> None:
    run = shop.latest
    before = json.loads((run / "pareto.json").read_text())
    fingerprint = json.loads((run / "state.json").read_text())["fingerprint"]
    command = ["train", str(run), "--pick", "fastest", "--kind", "short", "--epochs", "7", "-q"]
    for stage in ("train", "final measurement"):
        process = shop.start(command)
        wait_for_stage(shop, process, stage)
        until = time.monotonic() + DEADLINE_S
        while stage == "train" and not epochs_of(run):
            assert process.is_alive(), (shop.home / "said").read_text()
            assert time.monotonic() < until, "no epoch ended"
            time.sleep(0.05)
        kill(process)
        assert json.loads((run / "pareto.json").read_text()) == before
        assert json.loads((run / "state.json").read_text())["status"] == "done"
        assert find_unfinished(run.parent, fingerprint) is None, "a search must not resume this run"
    trained = epochs_of(run)
    ended = shop.verb(*command)
    assert ended.returncode == 0, ended.stderr
    assert epochs_of(run) == trained, "what was trained must not be trained again"
    after = json.loads((run / "pareto.json").read_text())
    assert after.keys() == before.keys()
    assert any(
        config["weights"].endswith("-short-7/weights.safetensors") for config in after["configs"]
    )


def epochs_of(run: Path) -> list[str]:
    return [
        line
        for file in run.glob("train/*-short-7/metrics.jsonl")
        for line in file.read_text().splitlines()
    ]


def kill(process: ForkServerProcess) -> None:
    process.kill()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL


def kill_in_stage(shop: Any, stage: str, *extra: str) -> None:
    # Where no measurement is killed it needs no process of its own, which would load all anew.
    process = shop.start(shop.words(*extra), one_process="measure" not in stage)
    wait_for_stage(shop, process, stage)
    time.sleep(0.5)
    kill(process)


def wait_for_stage(shop: Any, process: ForkServerProcess, stage: str) -> None:
    """Waits until the newest run's log names the stage after this process began."""
    seen = len(entries(shop, stage))
    until = time.monotonic() + DEADLINE_S
    while len(entries(shop, stage)) <= seen:
        assert process.is_alive(), f"it ended before stage {stage}: {(shop.home / 'said').read_text()}"
        assert time.monotonic() < until, f"stage {stage} never came"
        time.sleep(0.05)


def entries(shop: Any, stage: str) -> list[str]:
    logs = sorted((shop.folder / "results").glob("2*/logs/events.jsonl"))
    lines = [line for log in logs for line in log.read_text().splitlines()]
    return [line for line in lines if f'"stage: {stage}"' in line]


def scores_of(shop: Any) -> list[Path]:
    return sorted((shop.home / "sensitivity").glob("*.jsonl"))
