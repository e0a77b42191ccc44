"""Pools: the one in this process, and Ray."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import analytic
import psutil
import pytest

from autosparse.errors import AutosparseError, MissingDependency
from autosparse.progress import Progress
from autosparse.searching.pool import AbstractPool, Handle, SerialPool, threads
from autosparse.searching.study import run_study
from autosparse.searching.trials import StudySettings

if TYPE_CHECKING:
    from autosparse.searching.parallel import Pool


def finish(pool: AbstractPool, handles: list[Handle], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while handles and time.monotonic() < deadline:
        _, handles = pool.wait(handles, 5.0)
    assert not handles


# ------------------------------------------------------------------------------------ in this process


def test_serial_work_runs_in_order_when_waited_for() -> None:
    with SerialPool() as pool:
        handles = [pool.submit(math.sqrt, value) for value in (4.0, 9.0)]
        assert handles[0].outcome is None
        done, left = pool.wait(handles)
        assert done == handles[:1] and left == handles[1:]
        finish(pool, handles)
    assert [h.outcome.value for h in handles if h.outcome] == [2.0, 3.0]


@pytest.mark.smoke
def test_serial_failures_are_values() -> None:
    with SerialPool() as pool:
        handle = pool.submit(math.sqrt, -1.0)
        finish(pool, [handle])
    assert handle.outcome is not None
    assert handle.outcome.status == "error"
    assert handle.outcome.reason.startswith("ValueError: ")
    assert "Traceback" in handle.outcome.trace


def test_what_a_closed_serial_pool_did_not_run_is_cancelled() -> None:
    pool = SerialPool()
    handle = pool.submit(math.sqrt, 1.0)
    pool.close()
    assert handle.outcome is not None and handle.outcome.status == "cancelled"


def test_threads_are_set_for_the_work_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with SerialPool() as pool:
        handle = pool.submit(os.getenv, "OMP_NUM_THREADS", cores=3)
        finish(pool, [handle])
    assert handle.outcome is not None and handle.outcome.value == "3"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    with threads(2):
        assert os.environ["MKL_NUM_THREADS"] == "2"
    assert "MKL_NUM_THREADS" not in os.environ


# --------------------------------------------------------------------------------------------- on Ray


@pytest.fixture(scope="module")
def ray_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    from autosparse.searching.parallel import Pool

    before = {child.pid for child in psutil.Process().children(recursive=True)}
    logs = tmp_path_factory.mktemp("logs")
    with pytest.MonkeyPatch.context() as patch:  # the pool's own cluster starts whatever it says
        patch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
        pool = Pool(cores=2, log_folder=logs)
        finish(pool, [pool.submit(math.sqrt, 1.0)])
    with pool:
        yield pool
    left = [c for c in psutil.Process().children(recursive=True) if c.pid not in before]
    _, alive = psutil.wait_procs(left, timeout=5)
    assert not alive, "the pool left processes behind"
    assert any(logs.iterdir()), "the workers' logs were not kept"


def test_ray_runs_work_and_reports_every_kind_of_end(ray_pool: Pool) -> None:
    ends = {
        "ok": ray_pool.submit(math.sqrt, 4.0),
        "error": ray_pool.submit(math.sqrt, -1.0),
        "died": ray_pool.submit(os._exit, 3),
        "timeout": ray_pool.submit(time.sleep, 60, timeout_s=1.0),
    }
    finish(ray_pool, list(ends.values()))
    outcomes = {name: handle.outcome for name, handle in ends.items()}
    assert {name: o.status for name, o in outcomes.items() if o} == {name: name for name in ends}
    assert outcomes["ok"] is not None and outcomes["ok"].value == 2.0
    assert outcomes["error"] is not None and "ValueError" in outcomes["error"].reason
    assert outcomes["timeout"] is not None and "limit of 1 s" in outcomes["timeout"].reason


def test_ray_wait_gives_up_when_the_time_is_up(ray_pool: Pool) -> None:
    handle = ray_pool.submit(time.sleep, 1.5)
    started = time.monotonic()
    done, left = ray_pool.wait([handle], 0.2)
    assert (done, left) == ([], [handle])
    assert time.monotonic() - started < 1.4
    finish(ray_pool, left)


def test_a_measurement_shares_its_machine_with_nothing(ray_pool: Pool) -> None:
    """Each piece of work says when it started and how long it ran; on one host the clocks agree."""
    kinds = ("train", "train", "measure", "train", "measure")
    handles = [ray_pool.submit(_span, 0.3, kind=kind) for kind in kinds]
    finish(ray_pool, handles)
    spans = [handle.outcome.value for handle in handles if handle.outcome]
    for index, (start, end) in enumerate(spans):
        if kinds[index] == "measure":
            others = spans[:index] + spans[index + 1 :]
            assert all(e <= start or s >= end for s, e in others)


_span = analytic.span


def test_exclusive_waits_for_what_runs(ray_pool: Pool) -> None:
    handle = ray_pool.submit(_span, 0.5)
    with ray_pool.exclusive():
        entered = time.time()
        alive = [child.name() for child in psutil.Process().children(recursive=True)]
    assert not [name for name in alive if "ray" in name or "gcs" in name], "Ray's own processes wake up"
    finish(ray_pool, [handle])
    assert handle.outcome is not None
    assert handle.outcome.value[1] <= entered
    again = ray_pool.submit(math.sqrt, 4.0)
    finish(ray_pool, [again])
    assert again.outcome is not None and again.outcome.value == 2.0


@pytest.mark.parametrize("exclusive", [False, True])
def test_what_a_signal_handler_raises_while_ray_waits_comes_through(
    ray_pool: Pool, exclusive: bool
) -> None:
    class StopHere(KeyboardInterrupt):
        """Ray knows no exception of this kind."""

    def stop(*_: object) -> None:
        raise StopHere

    handle = ray_pool.submit(time.sleep, 2.0)
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.4)
    try:
        with pytest.raises(StopHere):
            if exclusive:
                with ray_pool.exclusive():
                    pass
            else:
                ray_pool.wait([handle], 30.0)
    finally:
        signal.signal(signal.SIGALRM, before)
    finish(ray_pool, [handle])


def test_ray_workers_have_their_thread_counts(ray_pool: Pool) -> None:
    handle = ray_pool.submit(os.getenv, "OMP_NUM_THREADS", cores=2)
    finish(ray_pool, [handle])
    assert handle.outcome is not None and handle.outcome.value == "2"


def test_a_study_on_ray_equals_one_in_this_process(ray_pool: Pool, tmp_path: Path) -> None:
    bad = frozenset({analytic.problem().dense_plan().id})
    settings = StudySettings(trials=8, seed=5, retries=1)
    results = [
        run_study(
            analytic.problem(),
            settings,
            analytic.Analytic(failing=bad, die=pool is ray_pool),
            pool=pool,
            folder=tmp_path / name,
            progress=Progress(),
        )
        for name, pool in (("ray", ray_pool), ("here", SerialPool()))
    ]
    on_ray, here = results
    assert [(t.plan_id, t.state, t.accuracy) for t in on_ray.trials] == [
        (t.plan_id, t.state, t.accuracy) for t in here.trials
    ]
    failed = [t.reason for t in on_ray.trials if t.state == "FAIL"]
    assert failed and all(reason == "died: its process died" for reason in failed)


def test_no_cluster_at_an_address_is_a_missing_dependency() -> None:
    """In a process of its own: this one may have a cluster already."""
    code = (
        "from autosparse.searching.parallel import Pool\n"
        "from autosparse.errors import MissingDependency\n"
        "try:\n    Pool(cores=1, address='127.0.0.1:9')\n"
        "except MissingDependency as error:\n    print('refused:', str(error)[:40])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "refused: address must name a Ray cluster that ans" in done.stdout
    assert issubclass(MissingDependency, AutosparseError)


INTERRUPTED = textwrap.dedent(
    """
    import math, signal, sys, time
    from autosparse.searching.parallel import Pool
    stopped = []
    signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
    with Pool(cores=1) as pool:
        handle = pool.submit(time.sleep, 2.0)
        print(pool._own.folder, flush=True)
        while handle.outcome is None:
            pool.wait([handle], 0.2)
        print("STOPPED" if stopped else "UNASKED", handle.outcome.status, flush=True)
        handle = pool.submit(time.sleep, 60)
        print("AGAIN", flush=True)
        pool.wait([handle], 60)
    """
)


def test_an_interrupt_spares_the_workers_and_a_terminate_leaves_no_process(tmp_path: Path) -> None:
    """Ctrl-C reaches the whole process group: work in flight must survive it."""
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},  # too long a name for Ray: /tmp is taken
    )
    try:
        assert process.stdout is not None
        temporary = Path(process.stdout.readline().strip())
        assert temporary.is_dir() and temporary.parent == Path("/tmp")
        started = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.7)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "STOPPED ok\n"
        assert process.stdout.readline() == "AGAIN\n"
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
        _, alive = psutil.wait_procs(started, timeout=10)
        assert not alive
        assert not temporary.exists()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
