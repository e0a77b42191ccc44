from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autosparse.errors import AutosparseError
from autosparse.workers.worker import Worker

FOLDER = Path(__file__).parent
RUNNER = "fake_runners:scripted"


@pytest.fixture
def worker():
    with Worker(RUNNER, import_path=[FOLDER]) as worker:
        yield worker


@pytest.mark.smoke
def test_one_process_serves_many_jobs(worker: Worker) -> None:
    answers = [worker.call({"do": "echo", "value": n}, 10) for n in range(50)]
    assert [answer.outcome["value"] for answer in answers] == list(range(50))
    assert {answer.ending for answer in answers} == {"done"}
    assert worker.starts == 1
    assert answers[0].outcome["pid"] != os.getpid()


def test_a_large_message_passes(worker: Worker) -> None:
    value = "x" * 1_000_000
    assert worker.call({"do": "echo", "value": value}, 10).outcome["value"] == value


def test_what_libraries_print_does_not_disturb(worker: Worker) -> None:
    assert worker.call({"do": "print"}, 10).ending == "done"
    assert worker.call({"do": "echo", "value": 1}, 10).outcome["value"] == 1


def test_an_error_is_an_answer_and_the_process_lives_on(worker: Worker) -> None:
    answer = worker.call({"do": "raise"}, 10)
    assert (answer.ending, answer.message) == ("error", "ValueError: no such tile")
    assert worker.call({"do": "echo", "value": 1}, 10).ending == "done"
    assert worker.starts == 1


@pytest.mark.parametrize("how", ["hang", "hang in native code"])
def test_a_hung_job_is_killed_and_the_next_one_served(worker: Worker, how: str) -> None:
    pid = worker.call({"do": "echo", "value": 0}, 10).outcome["pid"]
    begun = time.monotonic()
    answer = worker.call({"do": how}, 0.3)
    assert (answer.ending, answer.message) == ("timeout", "killed after 0.3 s")
    assert time.monotonic() - begun < 2
    assert not psutil.pid_exists(pid)
    assert worker.call({"do": "echo", "value": 5}, 10).outcome["value"] == 5
    assert worker.starts == 2


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("crash", "SIGSEGV: about to crash"),
        ("exit", "exit code 3"),
        ("lose the device", "exit code 1: the GPU answers nothing more"),
    ],
)
def test_a_crash_is_an_answer_and_the_next_job_is_served(worker: Worker, how: str, told: str) -> None:
    answer = worker.call({"do": how}, 10)
    assert answer.ending == "crashed"
    assert answer.message.startswith("the process ended with")
    assert told.split(":")[0] in answer.message
    assert told.split(": ")[-1] in answer.message
    assert worker.call({"do": "echo", "value": 5}, 10).outcome["value"] == 5


def test_a_process_killed_between_jobs_is_replaced(worker: Worker) -> None:
    pid = worker.call({"do": "echo", "value": 0}, 10).outcome["pid"]
    os.kill(pid, signal.SIGKILL)
    for number in range(2):
        answer = worker.call({"do": "echo", "value": number}, 10)
        if answer.ending == "done":
            break
    assert answer.outcome["pid"] != pid


def test_an_interrupt_of_the_parent_kills_the_job(worker: Worker) -> None:
    pid = worker.call({"do": "echo", "value": 0}, 10).outcome["pid"]
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            worker.call({"do": "hang"}, 30)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert not psutil.pid_exists(pid)
    assert worker.call({"do": "echo", "value": 7}, 10).outcome["value"] == 7


def test_the_child_is_pinned_and_its_libraries_have_one_thread() -> None:
    processor = max(os.sched_getaffinity(0))
    with Worker(RUNNER, import_path=[FOLDER], processors=[processor]) as worker:
        outcome = worker.call({"do": "affinity"}, 10).outcome
    assert outcome == {"processors": [processor], "blas": "1"}


def test_the_child_has_the_variables_that_it_is_given() -> None:
    with Worker(RUNNER, import_path=[FOLDER], environment={"CUDA_VISIBLE_DEVICES": "GPU-7"}) as worker:
        outcome = worker.call({"do": "environment", "value": "CUDA_VISIBLE_DEVICES"}, 10).outcome
    assert outcome == {"value": "GPU-7"}


@pytest.mark.parametrize("runner", ["fake_runners:nothing", "no_such_module:run"])
def test_a_runner_that_does_not_exist(runner: str) -> None:
    name = runner.split(":")[1] if "nothing" in runner else "no_such_module"
    with Worker(runner, import_path=[FOLDER]) as worker, pytest.raises(AutosparseError, match=name):
        worker.call({}, 10)


@pytest.mark.parametrize("job", ["hang", "hang in native code"])
def test_the_child_ends_with_a_killed_parent(job: str) -> None:
    code = f"""
from pathlib import Path
from autosparse.workers.worker import Worker
worker = Worker({RUNNER!r}, import_path=[Path({str(FOLDER)!r})])
print(worker.call({{"do": "echo", "value": 0}}, 10).outcome["pid"], flush=True)
worker.call({{"do": {job!r}}}, 600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    psutil.Process(child).kill()
    pytest.fail("the measuring process outlived its parent")


def test_no_process_is_left_behind() -> None:
    with Worker(RUNNER, import_path=[FOLDER]) as worker:
        pid = worker.call({"do": "echo", "value": 0}, 10).outcome["pid"]
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)
    worker.close()
