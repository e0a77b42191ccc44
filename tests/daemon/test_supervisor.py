"""What becomes of a job, however its process or its daemon ends."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from killing import request
from one_daemon import WORKER
from worker import LOG, STEPS

from autosparse.daemon import job_process
from autosparse.daemon.place import folder_of
from autosparse.daemon.supervisor import Supervisor
from autosparse.errors import ExitCode
from autosparse.jobs import daemons
from autosparse.jobs.queue import Queue
from autosparse.jobs.records import Job, JobRequest
from autosparse.jobs.roots import Roots
from autosparse.jobs.states import State
from autosparse.jobs.store import Store
from autosparse.jobs.verbs import Place
from autosparse.run_folders import RunFolder, list_runs, read_jsonl
from autosparse.run_folders.state import read_state
from autosparse.storage.locks import FileLock

LIMIT_S = 60.0


class Bench:
    """A queue, and a supervisor whose rounds the test makes itself."""

    def __init__(self, folder: Path, lease_s: float = 30.0) -> None:
        self.url = f"sqlite:///{folder / 'jobs.db'}"
        self.results = folder / "results"
        self.results.mkdir()
        self.queue = Queue(Store(self.url), lease_s=lease_s)
        self.supervisor = self.another()

    def another(self, **how: object) -> Supervisor:
        roots = Roots(folders={"results": self.results})
        made = Supervisor(
            self.queue,
            daemons.this_daemon("hw"),
            Place(results=self.results, database=self.url, roots=roots),
            **{  # type: ignore[arg-type]
                "program": (sys.executable, str(WORKER)),
                "retry_s": 0.05,
                "tick_s": 0.05,
                **how,
            },
        )
        daemons.give_word(self.queue.store, made.daemon)
        return made

    def submit(self, *include: str, **options: object) -> int:
        asked = request(0, include)
        with_options = dataclasses.replace(asked.options, **options)  # type: ignore[arg-type]
        return self.queue.submit(dataclasses.replace(asked, options=with_options))[0].id

    def until(self, holds: Callable[[], object], supervisor: Supervisor | None = None) -> None:
        """Makes rounds until something holds."""
        until_s = time.monotonic() + LIMIT_S
        while not holds():
            assert time.monotonic() < until_s, self.queue.jobs()
            (supervisor or self.supervisor).look_at_once()
            (supervisor or self.supervisor).round()
            time.sleep(0.02)

    def ended(self, number: int, supervisor: Supervisor | None = None) -> Job:
        self.until(lambda: not self.queue.get(number).is_open, supervisor)
        return self.queue.get(number)

    def begun(self, number: int) -> psutil.Process:
        """Makes rounds until a job's process works on its run; gives the process."""
        running = self.supervisor._running
        self.until(lambda: number in running and running[number].run)
        return psutil.Process(running[number].process.pid)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.supervisor.close()
    made.queue.store.close()


def test_a_job_is_done_and_its_run_is_named(bench: Bench) -> None:
    job = bench.ended(bench.submit())
    assert (job.state, job.exit_code, job.attempt, job.failures) == (State.DONE, 0, 1, 0)
    assert [row["step"] for row in read_jsonl(bench.results / job.run / LOG)] == list(range(STEPS))
    assert job.snapshot is not None and job.snapshot.stage == "steps" and job.ran_s > 0
    assert (folder_of(bench.results, job.id) / "config.yaml").exists()


def test_a_job_like_an_earlier_one_knows_how_long_it_takes(bench: Bench) -> None:
    first = bench.ended(bench.submit())
    second = bench.ended(bench.submit())
    assert first.snapshot is not None and first.snapshot.left_s is None
    assert second.snapshot is not None and second.snapshot.left_as == first.run
    assert second.snapshot.left_s is not None and second.snapshot.left_s >= 0


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (ExitCode.DONE, State.DONE),
        (ExitCode.INFEASIBLE, State.INFEASIBLE),
        (ExitCode.STOPPED, State.STOPPED),
        (ExitCode.INTERRUPTED, State.STOPPED),
        (ExitCode.USAGE, State.FAILED),
        (ExitCode.NO_CONFIGURATION, State.FAILED),
        (ExitCode.MISSING, State.FAILED),
        (ExitCode.INTERNAL, State.FAILED),
        (77, State.FAILED),
    ],
)
def test_the_exit_code_says_how_it_ended(bench: Bench, code: int, state: State) -> None:
    job = bench.ended(bench.submit("exit", str(int(code))))
    assert (job.state, job.exit_code, job.attempt) == (state, code, 1)


def test_a_job_that_waits_for_nothing_but_others_begins_when_they_end(bench: Bench) -> None:
    numbers = [bench.submit() for _ in range(5)]
    most = 0

    def all_ended() -> bool:
        nonlocal most
        most = max(most, len(bench.supervisor.running))
        return not any(bench.queue.get(number).is_open for number in numbers)

    bench.until(all_ended)
    assert most == 2 and {bench.queue.get(n).state for n in numbers} == {State.DONE}
    assert len(list_runs(bench.results)) == 5


class TestKilled:
    def test_goes_on_from_its_run(self, bench: Bench) -> None:
        number = bench.submit()
        bench.begun(number).kill()
        job = bench.ended(number)
        assert (job.state, job.attempt, job.failures) == (State.DONE, 2, 1)
        assert len(list_runs(bench.results)) == 1
        assert "signal 9" in [row.reason for row in bench.queue.transitions(number)][3]

    def test_fails_when_its_retries_are_used_up(self, bench: Bench) -> None:
        number = bench.submit("endless", retries=1)
        for _ in range(2):
            bench.begun(number).kill()
            bench.until(lambda: number not in bench.supervisor.running)
        job = bench.ended(number)
        assert (job.state, job.attempt, job.failures) == (State.FAILED, 2, 1)
        assert "signal 9" in job.message and "1 retries" in job.message

    def test_takes_what_it_began_with_it(self, bench: Bench) -> None:
        number = bench.submit("endless")
        process = bench.begun(number)
        assert os.getsid(process.pid) == process.pid
        bench.supervisor.close()
        assert not psutil.pid_exists(process.pid) or process.status() == psutil.STATUS_ZOMBIE


class TestAskedToStop:
    def test_cancelled_while_it_runs(self, bench: Bench) -> None:
        number = bench.submit("endless")
        bench.begun(number)
        bench.queue.cancel(number)
        job = bench.ended(number)
        assert (job.state, job.exit_code) == (State.CANCELLED, ExitCode.STOPPED)
        assert read_state(bench.results / job.run).status == "stopped"
        bench.queue.resume(number)
        bench.until(lambda: number in bench.supervisor.running)

    def test_stopped_after_its_time_and_resumed(self, bench: Bench) -> None:
        number = bench.submit("endless", time_limit_s=3.0)
        bench.begun(number)
        job = bench.ended(number)
        assert (job.state, job.exit_code) == (State.STOPPED, ExitCode.STOPPED)
        assert "time limit of 3 s" in job.message and job.ran_s >= 3.0
        assert bench.queue.resume(number).ran_s == 0.0  # it has its time anew
        bench.begun(number)
        assert bench.queue.get(number).run == job.run and len(list_runs(bench.results)) == 1

    def test_a_process_that_does_not_stop_is_killed(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(job_process, "GRACE_S", 0.2)
        number = bench.submit("endless")
        process = bench.begun(number)
        process.send_signal(signal.SIGSTOP)
        bench.queue.cancel(number)
        assert bench.ended(number).state == State.CANCELLED

    def test_a_daemon_that_stops_puts_its_jobs_in_line_and_the_next_goes_on(self, bench: Bench) -> None:
        number = bench.submit()
        bench.begun(number)
        stop = threading.Event()
        stop.set()
        bench.supervisor.run(stop)
        job = bench.queue.get(number)
        assert (job.state, job.failures, job.message) == (State.WAITING, 0, "its daemon stopped")
        with bench.another() as next_one:
            done = bench.ended(number, next_one)
        assert (done.state, done.attempt, done.run) == (State.DONE, 2, job.run)


class TestTakenUp:
    def claimed(self, bench: Bench, request: JobRequest, owner: str) -> Job:
        """A job as a daemon left it that is gone."""
        number = bench.queue.submit(request)[0].id
        bench.queue.admit(owner)
        job = bench.queue.claim(owner, [])
        assert job is not None and job.id == number
        return job

    def gone(self, bench: Bench) -> str:
        daemon = dataclasses.replace(daemons.this_daemon("hw"), pid_started_s=1.0)
        daemons.give_word(bench.queue.store, daemon)
        return daemon.id

    def test_one_whose_run_is_finished_is_not_run_again(self, bench: Bench) -> None:
        job = self.claimed(bench, request(0), self.gone(bench))
        with RunFolder.create(
            bench.results,
            model="m",
            hardware_id="0" * 12,
            config_yaml="",
            fingerprint="same",
            job=str(job.id),
        ) as run:
            run.finish("infeasible", ExitCode.INFEASIBLE, "no such budget")
        found = bench.ended(job.id)
        assert (found.state, found.exit_code, found.run) == (State.INFEASIBLE, 3, run.name)
        assert found.message == "no such budget" and len(list_runs(bench.results)) == 1

    def test_one_of_another_job_of_the_same_settings_is_left_alone(self, bench: Bench) -> None:
        with RunFolder.create(
            bench.results,
            model="m",
            hardware_id="0" * 12,
            config_yaml="",
            fingerprint="same",
            job="77",
        ) as run:
            run.finish("stopped", ExitCode.STOPPED)
        job = bench.ended(bench.submit())
        assert job.run != run.name and len(list_runs(bench.results)) == 2

    def test_not_before_the_process_of_the_former_attempt_has_ended(self, bench: Bench) -> None:
        job = self.claimed(bench, request(0), self.gone(bench))
        folder = folder_of(bench.results, job.id)
        folder.mkdir(parents=True)
        with FileLock(folder / "lock"):
            bench.until(lambda: bench.queue.get(job.id).message == "its former process is ending")
            assert not bench.supervisor.running
        assert bench.ended(job.id).state == State.DONE

    def test_a_daemon_that_lost_a_job_ends_its_process(self, bench: Bench) -> None:
        number = bench.submit("endless")
        process = bench.begun(number)
        bench.queue.take_from([bench.supervisor.daemon.id], "other")
        taken = bench.queue.claim("other", [])
        assert taken is not None and taken.id == number
        bench.until(lambda: number not in bench.supervisor.running)
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        assert bench.queue.get(number).owner == "other"


def test_settings_in_the_daemons_environment_are_not_its_jobs(tmp_path: Path) -> None:
    ours = {"AUTOSPARSE_THREADS": "9", "AUTOSPARSE_DATASET": "x", "AUTOSPARSE_HOME": "/h", "PATH": "/p"}
    made = job_process._environment(ours, tmp_path, 5, 20.0)
    assert not {"AUTOSPARSE_THREADS", "AUTOSPARSE_DATASET"} & set(made)
    assert (made["AUTOSPARSE_HOME"], made["PATH"]) == ("/h", "/p")
    assert made["AUTOSPARSE_JOB_FOLDER"] == str(tmp_path)


class TestLeash:
    def test_a_process_whose_daemon_died_stops_by_itself(self, bench: Bench) -> None:
        number = bench.submit("endless")
        process = bench.begun(number)
        os.close(bench.supervisor._running[number].process._leash)
        bench.supervisor._running[number].process._leash = os.open(os.devnull, os.O_WRONLY)
        process.wait(LIMIT_S)
        assert read_state(bench.results / bench.queue.get(number).run).status == "stopped"

    def test_a_process_that_hears_nothing_stops_before_its_lease_ends(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, lease_s=1.5)
        with bench.supervisor:
            number = bench.submit("endless")
            process = bench.begun(number)
            process.wait(LIMIT_S)  # no rounds are made, so that nothing is said
            assert read_state(bench.results / bench.queue.get(number).run).status == "stopped"


def test_a_job_that_can_no_longer_be_meant_fails_before_it_begins(bench: Bench, tmp_path: Path) -> None:
    inside = bench.results / "w.pth"
    inside.symlink_to(tmp_path / "elsewhere.pth")
    asked = request(0)
    settings = {**asked.settings, "weights": str(inside)}
    number = bench.queue.submit(dataclasses.replace(asked, settings=settings))[0].id
    job = bench.ended(number)
    assert (job.state, job.exit_code) == (State.FAILED, ExitCode.USAGE)
    assert "weights must lie in a folder that jobs may read" in job.message
    assert not list_runs(bench.results)


def test_what_one_job_holds_does_not_end_the_work_on_others(bench: Bench) -> None:
    odd = bench.queue.submit(JobRequest(verb="check", settings={}))[0].id
    unknown = bench.queue.submit(JobRequest(verb="no longer a verb", settings={}))[0].id
    sound = bench.submit()
    assert bench.ended(sound).state == State.DONE
    found = bench.queue.get(odd)
    assert (found.state, found.exit_code) == (State.FAILED, ExitCode.INTERNAL)
    assert "internal error: KeyError" in found.message
    assert (bench.queue.get(unknown).state, bench.queue.get(unknown).exit_code) == (State.FAILED, 2)
