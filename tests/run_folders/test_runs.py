from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from autosparse import run_folders as runs
from autosparse.errors import BudgetInfeasible, RunError, Stopped

NOON = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)


def make(
    root: Path, *, model: str = "resnet18", fingerprint: str = "f1", minute: int = 0
) -> runs.RunFolder:
    return runs.RunFolder.create(
        root,
        model=model,
        hardware_id="0123456789abcdef",
        config_yaml="model: resnet18\n",
        fingerprint=fingerprint,
        budget_ms=5.0,
        at=NOON + timedelta(minutes=minute),
    )


def finished(root: Path, **options: object) -> Path:
    with make(root, **options) as run:  # type: ignore[arg-type]
        pass
    return run.path


HOLD = """
import sys, time
from pathlib import Path
from autosparse.run_folders import RunFolder
names = dict(model="held", hardware_id="cafecafecafe", config_yaml="", fingerprint="h")
run = RunFolder.create(Path(sys.argv[1]), **names)
run.enter("tune")
print(run.path, flush=True)
time.sleep(60)
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process at work on a run."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.smoke
def test_create_makes_a_named_folder_with_state_config_and_latest(tmp_path: Path) -> None:
    with make(tmp_path / "deep" / "results") as run:
        assert run.name == "20260304T120000Z-resnet18-01234567"
        assert (run.path / "config.yaml").read_text() == "model: resnet18\n"
        assert json.loads((run.path / "state.json").read_text())["status"] == "running"
        assert os.readlink(run.path.parent / "latest") == run.name
    state = json.loads((run.path / "state.json").read_text())
    assert (state["status"], state["exit_code"], state["pid"]) == ("done", 0, os.getpid())
    assert not [p for p in run.path.parent.iterdir() if p.name.startswith(".")]


def test_names_do_not_collide_and_latest_is_the_newest(tmp_path: Path) -> None:
    paths = [finished(tmp_path) for _ in range(12)]
    assert len({p.name for p in paths}) == 12
    assert runs.find_run(tmp_path, "latest") == paths[-1].resolve()
    assert [s.path for s in runs.list_runs(tmp_path)] == paths[::-1]


@pytest.mark.parametrize(
    ("model", "slug"),
    [
        ("resnet18", "resnet18"),
        ("torchvision:resnet18", "torchvision-resnet18"),
        ("some/dir/My Net.py:build", "my-net-build"),
        ("../../etc/passwd", "passwd"),
        ("hf:org/name", "hf-org-name"),
        ("///", "model"),
        ("x" * 300, "x" * 40),
    ],
)
def test_model_names_become_safe_folder_names(tmp_path: Path, model: str, slug: str) -> None:
    path = finished(tmp_path, model=model)
    assert path.parent == tmp_path
    assert path.name == f"20260304T120000Z-{slug}-01234567"


def test_outcomes_are_recorded(tmp_path: Path) -> None:
    cases: list[tuple[BaseException, str, int]] = [
        (Stopped("later"), "stopped", 6),
        (BudgetInfeasible("too tight", 4.2), "infeasible", 3),
        (KeyboardInterrupt(), "stopped", 130),
        (RunError("bad"), "failed", 2),
        (ZeroDivisionError("oops"), "failed", 1),
    ]
    for error, status, code in cases:
        with pytest.raises(type(error)), make(tmp_path) as run:
            raise error
        state = runs.show(run.path)["status"]
        assert (state["status"], state["exit_code"]) == (status, code)


def test_an_explicit_outcome_stays(tmp_path: Path) -> None:
    with make(tmp_path) as run:
        run.enter("search")
        run.finish("infeasible", 3, "smallest feasible budget: 4.2 ms")
    summary = runs.list_runs(tmp_path)[0]
    assert (summary.state, summary.stage, summary.budget_ms) == ("infeasible", "search", 5.0)
    assert summary.verdict == "smallest feasible budget: 4.2 ms"
    assert json.dumps(summary.to_json())


@pytest.mark.smoke
def test_two_processes_never_work_on_one_run(held: tuple[subprocess.Popen[str], Path]) -> None:
    process, path = held
    with pytest.raises(RunError, match=f"process {process.pid} does"):
        runs.RunFolder.resume(path)
    with pytest.raises(RunError, match=str(process.pid)):
        runs.remove_run(path)
    assert path.is_dir()
    assert runs.summarize(path).state == "running"


def test_kill_leaves_an_interrupted_run_that_resumes(held: tuple[subprocess.Popen[str], Path]) -> None:
    process, path = held
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert runs.summarize(path).state == "interrupted"
    assert runs.find_unfinished(path.parent, "h") == path
    with runs.RunFolder.resume(path) as run:
        assert run.state.stage == "tune"
        assert runs.summarize(path).state == "running"
    assert runs.summarize(path).state == "done"
    assert runs.find_unfinished(path.parent, "h") is None


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    run = make(tmp_path)
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
    child.start()
    try:
        run.close()
        runs.RunFolder.resume(run.path).close()
    finally:
        child.kill()
        child.join()


def test_a_forked_child_does_not_free_the_lock(tmp_path: Path) -> None:
    run = make(tmp_path)
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    child.join()
    with pytest.raises(RunError, match="one process at a time"):
        runs.RunFolder.resume(run.path)
    run.close()


def test_looking_never_disturbs_a_claim(tmp_path: Path) -> None:
    """The probe behind `runs list` takes the lock for an instant; a claim must outlast it."""
    run = make(tmp_path)
    run.close()
    look = (
        "import sys; from pathlib import Path; from autosparse.storage.locks import holder\n"
        "print('go', flush=True)\nwhile True: holder(Path(sys.argv[1]))"
    )
    looker = subprocess.Popen(
        [sys.executable, "-c", look, str(run.path / "lock")], stdout=subprocess.PIPE, text=True
    )
    assert looker.stdout is not None
    try:
        looker.stdout.readline()
        for _ in range(50):
            runs.RunFolder.resume(run.path).close()
    finally:
        looker.kill()
        looker.wait()
        looker.stdout.close()


AMEND = """
import sys, time
from pathlib import Path
from autosparse.run_folders import RunFolder
run = RunFolder.amend(Path(sys.argv[1]))
print("amending", flush=True)
time.sleep(60)
"""


def test_a_kill_while_amending_leaves_the_run_finished(tmp_path: Path) -> None:
    path = finished(tmp_path, fingerprint="h")
    before = (path / "state.json").read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-c", AMEND, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "amending\n"
        for claim in (runs.RunFolder.amend, runs.RunFolder.resume):
            with pytest.raises(RunError, match=f"process {process.pid} does"):
                claim(path)
        process.kill()
        process.wait()
    assert (path / "state.json").read_bytes() == before
    assert runs.find_unfinished(tmp_path, "h") is None
    with pytest.raises(Stopped), runs.RunFolder.amend(path):
        raise Stopped("later")
    assert (path / "state.json").read_bytes() == before


def test_an_unfinished_run_is_not_amended(tmp_path: Path) -> None:
    with pytest.raises(Stopped), make(tmp_path) as run:
        raise Stopped("later")
    with pytest.raises(RunError, match=r"must be finished to be amended, but .* is stopped"):
        runs.RunFolder.amend(run.path)
    runs.RunFolder.resume(run.path).close()  # and it is free again


def test_find_unfinished_takes_the_newest_of_the_same_fingerprint(tmp_path: Path) -> None:
    finished(tmp_path, fingerprint="a", minute=3)
    for minute, fingerprint in ((0, "a"), (1, "a"), (2, "b")):
        with pytest.raises(Stopped), make(tmp_path, fingerprint=fingerprint, minute=minute):
            raise Stopped("stop")
    found = runs.find_unfinished(tmp_path, "a")
    assert found is not None and found.name.startswith("20260304T120100Z")
    assert runs.find_unfinished(tmp_path, "c") is None
    assert runs.find_unfinished(tmp_path / "none", "a") is None


def test_find_run_by_name_path_prefix_and_refusals(tmp_path: Path) -> None:
    one = finished(tmp_path)
    two = finished(tmp_path, minute=1)
    assert runs.find_run(tmp_path, one.name) == one.resolve()
    assert runs.find_run(tmp_path / "elsewhere", str(two)) == two.resolve()
    assert runs.find_run(tmp_path, "20260304T1201") == two.resolve()
    with pytest.raises(RunError, match=r"uniquely.*begins 2 names"):
        runs.find_run(tmp_path, "2026")
    with pytest.raises(RunError, match="did you mean"):
        runs.find_run(tmp_path, one.name.replace("resnet", "rasnet"))
    with pytest.raises(RunError, match="there is no run in"):
        runs.find_run(tmp_path / "elsewhere", "x")
    with pytest.raises(RunError):
        runs.find_run(tmp_path, "")


def stopped(root: Path, minute: int) -> Path:
    with pytest.raises(Stopped), make(root, minute=minute) as run:
        raise Stopped("stop")
    return run.path


def test_where_a_finished_run_is_needed_latest_is_the_newest_that_is(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there must be a run"):
        runs.find_finished(tmp_path, "latest")
    old = stopped(tmp_path, minute=0)
    with pytest.raises(RunError, match=rf"of 1 in .* none is: {old.name} is stopped \(stop\)"):
        runs.find_finished(tmp_path, "latest")
    finished(tmp_path, minute=1)
    done = finished(tmp_path, minute=2)
    assert runs.find_finished(tmp_path, "latest") == (done.resolve(), "")
    middle, newest = stopped(tmp_path, minute=3), stopped(tmp_path, minute=4)
    found, note = runs.find_finished(tmp_path, "latest")
    assert found == done.resolve()
    assert done.name in note and f"{newest.name} and 1 more, newer, is stopped" in note
    (newest / "state.json").write_text("{")
    assert runs.find_finished(tmp_path, "latest")[0] == done.resolve()
    assert runs.find_finished(tmp_path, middle.name) == (middle.resolve(), "")  # named: as it is
    assert runs.find_run(tmp_path, "latest") == newest.resolve()


def test_latest_survives_removal_and_broken_links(tmp_path: Path) -> None:
    one = finished(tmp_path)
    two = finished(tmp_path, minute=1)
    runs.remove_run(two)
    assert runs.find_run(tmp_path, "latest") == one.resolve()
    (tmp_path / "latest").unlink()
    assert runs.find_run(tmp_path, "latest") == one.resolve()
    (tmp_path / "latest").symlink_to("gone")
    assert runs.find_run(tmp_path, "latest") == one.resolve()
    runs.remove_run(one)
    with pytest.raises(RunError, match="latest"):
        runs.find_run(tmp_path, "latest")
    assert [p.name for p in tmp_path.iterdir()] == ["latest"]


def test_removal_touches_only_runs(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    run = finished(tmp_path)
    (run / "link").symlink_to(precious)
    for wrong in (precious, tmp_path, tmp_path / "absent", tmp_path / "latest"):
        with pytest.raises(RunError):
            runs.remove_run(wrong)
    runs.remove_run(run)
    assert (precious / "thesis.txt").exists()
    assert runs.list_runs(tmp_path) == ()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"schema": 99}', '{"schema": 1, "colour": 3}', "\xff"]
)
def test_a_damaged_state_is_named_and_never_removed(tmp_path: Path, content: str) -> None:
    whole = finished(tmp_path)
    broken = finished(tmp_path, minute=1)
    (broken / "state.json").write_bytes(content.encode("latin-1"))
    assert [s.state for s in runs.list_runs(tmp_path)] == ["damaged", "done"]
    for call in (runs.show, runs.remove_run, runs.RunFolder.resume):
        with pytest.raises(RunError, match=r"state\.json"):
            call(broken)
    assert broken.is_dir() and whole.is_dir()


def test_list_and_show_read_the_verdict(tmp_path: Path) -> None:
    path = finished(tmp_path)
    (path / "pareto.json").write_text('{"verdict": {"id": null, "text": "twice as fast"}}')
    (path / "logs").mkdir()
    (path / "logs" / "a.log").write_text("hello")
    assert runs.list_runs(tmp_path)[0].verdict == "twice as fast"
    shown = runs.show(path)
    assert shown["files"]["logs/a.log"] == 5
    assert shown["pareto"]["verdict"]["text"] == "twice as fast"
    (path / "pareto.json").write_text('{"verdict"')
    assert runs.list_runs(tmp_path)[0].verdict == ""
    with pytest.raises(RunError, match=r"pareto\.json"):
        runs.show(path)


def test_other_things_in_the_folder_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "reference").mkdir()
    (tmp_path / ".new-abc").mkdir()
    (tmp_path / ".new-abc" / "state.json").write_text("{}")
    assert runs.list_runs(tmp_path) == ()
    assert runs.list_runs(tmp_path / "absent") == ()


def test_unwritable_folders_and_an_occupied_latest_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="writable"):
        make(tmp_path / "file" / "results")
    (tmp_path / "latest").mkdir()
    with pytest.raises(RunError, match="latest must be a link"):
        make(tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".new")]


def test_folders_inside_a_run(tmp_path: Path) -> None:
    with make(tmp_path) as run:
        assert run.folder("train", "abc") == run.path / "train" / "abc"
        assert (run.path / "train" / "abc").is_dir()


def test_runs_needs_neither_torch_nor_ray_nor_optuna() -> None:
    code = (
        "import sys, autosparse.run_folders; "
        "print([m for m in ('torch','ray','optuna','plotly','pandas') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
