"""A study killed without warning continues: nothing is left running, nothing evaluated is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import analytic
import optuna
import pytest

from autosparse.progress import Progress
from autosparse.searching.knapsack import feasibility
from autosparse.searching.pool import SerialPool
from autosparse.searching.problem import prepare
from autosparse.searching.storage import JOURNAL, OneWriterJournal, is_live, my_lease
from autosparse.searching.study import run_study
from autosparse.searching.trials import StudyResult, StudySettings
from autosparse.storage.files import cut_torn_line

TRIALS = 26
BUDGET_US = 0.5 * feasibility(prepare(analytic.problem()).problem).dense_us

SCRIPT = f"""
import sys
sys.path.insert(0, {str(analytic.TABLE.parent)!r})
from pathlib import Path
import analytic
from autosparse.progress import Progress
from autosparse.searching.pool import SerialPool
from autosparse.searching.study import run_study
from autosparse.searching.trials import StudySettings
folder = Path(sys.argv[1])
run_study(
    analytic.problem({BUDGET_US!r}),
    StudySettings(trials={TRIALS}, seed=3),
    analytic.Analytic(seconds=0.05, log=folder / "calls"),
    pool=SerialPool(), folder=folder, progress=Progress(),
)
"""


def study(folder: Path) -> StudyResult:
    settings = StudySettings(trials=TRIALS, seed=3)
    evaluate = analytic.Analytic(log=folder / "calls")
    problem = analytic.problem(BUDGET_US)
    with SerialPool() as pool:
        return run_study(problem, settings, evaluate, pool=pool, folder=folder, progress=Progress())


def evaluations(folder: Path) -> list[str]:
    path = folder / "evaluations.jsonl"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def kill_after(folder: Path, count: int) -> None:
    """Starts the study in a process of its own and kills it once so many evaluations are written."""
    folder.mkdir(exist_ok=True)
    before = len(evaluations(folder))
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)])
    try:
        deadline = time.monotonic() + 60
        while len(evaluations(folder)) < before + count and time.monotonic() < deadline:
            assert process.poll() is None, "the study ended before it could be killed"
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_killed_twice_it_continues(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    kill_after(folder, 3)
    kill_after(folder, 7)
    known = {json.loads(line)["plan"] for line in evaluations(folder)}
    result = study(folder)
    journal = optuna.storages.JournalStorage(OneWriterJournal(str(folder / JOURNAL)))
    states = [t.state.name for t in optuna.load_study(study_name="autosparse", storage=journal).trials]
    assert "RUNNING" not in states
    assert len(result.plans) == TRIALS
    assert known <= set(result.plans)
    killed = [t for t in result.trials if t.state == "FAIL"]
    assert killed and all("process ended" in t.reason for t in killed)
    retried = {t.retry_of for t in result.trials}
    assert all(t.number in retried or t.plan_id in result.plans for t in killed)
    # What was evaluated and written down is not evaluated again.
    calls = (folder / "calls").read_text().split()
    assert all(calls.count(plan) == 1 for plan in known)

    # No seed is lost on the way either.
    whole = tmp_path / "whole"
    whole.mkdir()
    seeds = {t.plan_id for t in study(whole).trials if t.kind in ("dense", "seed-knapsack", "uniform")}
    assert seeds <= set(result.plans)


def test_the_files_of_a_process_killed_while_writing_are_mended(tmp_path: Path) -> None:
    folder = tmp_path / "torn"
    folder.mkdir()
    first = study(folder)
    for name in (JOURNAL, "evaluations.jsonl"):
        text = (folder / name).read_bytes()
        (folder / name).write_bytes(text[:-7])
    again = study(folder)
    assert set(again.plans) == set(first.plans)
    assert all(json.loads(line) for line in evaluations(folder))


@pytest.mark.parametrize(
    ("text", "kept"), [(b"a\nb", b"a\n"), (b"a\n", b"a\n"), (b"a", b""), (b"", b"")]
)
def test_torn_lines(tmp_path: Path, text: bytes, kept: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(text)
    cut_torn_line(path)
    assert path.read_bytes() == kept
    cut_torn_line(tmp_path / "absent")


def test_a_lease_is_live_only_while_its_process_is() -> None:
    mine = my_lease()
    assert not is_live(mine)  # another owner in this process is an earlier one that failed
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        lease = mine | {"pid": other.pid, "started": mine["started"]}
        import psutil

        lease["started"] = psutil.Process(other.pid).create_time()
        assert is_live(lease)
        assert not is_live(lease | {"started": lease["started"] - 100})  # the number was used again
        other.kill()
        other.wait()
        assert not is_live(lease)


def test_a_lease_of_another_host_lasts_a_while() -> None:
    lease = my_lease() | {"host": "elsewhere", "pid": os.getpid()}
    assert is_live(lease)
    assert not is_live(lease | {"seen_at": time.time() - 3600})
