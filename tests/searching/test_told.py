"""What a study tells whoever watches it: its plans as they come, and after every kind of end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import analytic
import pytest

from autosparse.errors import Stopped
from autosparse.plans.front import feasible_front
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import Accuracy
from autosparse.searching import told
from autosparse.searching.knapsack import feasibility
from autosparse.searching.pool import SerialPool
from autosparse.searching.problem import prepare
from autosparse.searching.study import run_study
from autosparse.searching.trials import StudyResult, StudySettings

BUDGET_US = 0.5 * feasibility(prepare(analytic.problem()).problem).dense_us


def run(folder: Path, evaluate: object = None, stop: object = None, **settings: object) -> StudyResult:
    with SerialPool() as pool:
        return run_study(
            analytic.problem(BUDGET_US),
            StudySettings(**({"trials": 27, "seed": 3} | settings)),  # type: ignore[arg-type]
            evaluate or analytic.Analytic(),  # type: ignore[arg-type]
            pool=pool,
            folder=folder,
            progress=Progress(should_stop=stop or (lambda: False)),  # type: ignore[arg-type]
        )


def firsts(result: StudyResult) -> list[tuple[int, float, float]]:
    return [
        (t.number, t.latency_ms, t.accuracy_value)
        for t in result.trials
        if t.state == "COMPLETE" and t.duplicate_of is None
    ]


def test_it_tells_what_the_study_found(tmp_path: Path) -> None:
    result = run(tmp_path)
    seen = told.read(tmp_path)
    assert [(t.number, t.latency_ms, t.accuracy_value) for t in seen] == firsts(result)
    assert [t.plan_id for t in feasible_front(seen)] == [plan.id for plan in result.front]
    assert [t.kind for t in seen].count("dense") == 1


def test_plans_are_told_while_it_runs(tmp_path: Path) -> None:
    counts = []

    def evaluate(plan: Plan) -> Accuracy:
        counts.append(len(told.read(tmp_path)))
        return analytic.Analytic()(plan)

    run(tmp_path, evaluate, batch_size=1)
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] >= 20


def test_a_stopped_study_goes_on_telling(tmp_path: Path) -> None:
    calls = []
    with pytest.raises(Stopped):
        run(tmp_path, stop=lambda: calls.append(1) or len(calls) > 12)
    before = told.read(tmp_path)
    result = run(tmp_path)
    after = told.read(tmp_path)
    assert after[: len(before)] == before
    assert [t.number for t in after] == [number for number, _, _ in firsts(result)]


@pytest.mark.parametrize("left", [b"", b'{"number": 0, "ki', b"no JSON\n", b'{"other": 1}\n'])
def test_what_a_kill_left_behind_is_mended_when_it_goes_on(tmp_path: Path, left: bytes) -> None:
    result = run(tmp_path)
    file = tmp_path / told.FILE
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:3]) + left)
    assert len(told.read(tmp_path)) == 3
    run(tmp_path)
    assert [t.number for t in told.read(tmp_path)] == [number for number, _, _ in firsts(result)]


def test_a_fresh_study_forgets_what_was_told(tmp_path: Path) -> None:
    run(tmp_path, trials=27)
    run(tmp_path, trials=5, fresh=True)
    assert len(told.read(tmp_path)) == 5


@pytest.mark.parametrize("text", ["", "[]\n", "\xff\n", json.dumps({"number": 1}) + "\n"])
def test_nothing_is_read_of_what_it_did_not_write(tmp_path: Path, text: str) -> None:
    assert told.read(tmp_path) == ()
    (tmp_path / told.FILE).write_text(text, encoding="latin-1")
    assert told.read(tmp_path) == ()


def test_reading_loads_no_optuna() -> None:
    code = (
        "import sys, autosparse.searching.told; "
        "print([m for m in ('optuna', 'torch', 'scipy', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
