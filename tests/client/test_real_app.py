"""The verbs against the application of a daemon itself, over a socket; its jobs are moved by hand."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from headed import headed
from standin import TOKEN

from autosparse.cli import run
from autosparse.client import records
from autosparse.client.daemon import Daemon
from autosparse.client.following import follow
from autosparse.daemon.access import Listening
from autosparse.daemon.place import LOG, RESULT
from autosparse.daemon.service import Service
from autosparse.errors import UsageError
from autosparse.jobs import states
from autosparse.jobs.records import Snapshot
from autosparse.jobs.states import State
from autosparse.jobs.store import Store
from autosparse.storage.token import token_file
from autosparse.web import shapes
from autosparse.web.app import make_app

sys.path.insert(0, str(Path(__file__).parent.parent / "web"))
from talking import await_true, served, service_of

TUNE = ["tune", "--model", "resnet20"]
RESULT_OF_TUNE = {
    "model": "resnet20",
    "database": "sqlite:///rows.db",
    "considered": 3,
    "timed": 2,
    "reused": 1,
    "skipped": {},
    "table": [],
    "notes": [],
}
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("empty") / "jobs.db"
    with Store(f"sqlite:///{file}") as store, store.writing():
        pass
    return file


@pytest.fixture
def service(
    empty_database: Path, tmp_path: Path, token: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """What answers at the address that the environment names."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "jobs.db")
    with Store(f"sqlite:///{tmp_path / 'jobs.db'}") as store:
        service = service_of(store, tmp_path / "results")
        with served(make_app(service, Listening(), TOKEN)) as address:
            monkeypatch.setenv("AUTOSPARSE_SERVER", address)
            yield service


class Worker:
    """Moves a job as a supervisor and its process would."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def begin(self) -> Path:
        self.service.queue.admit("me")
        found = self.service.queue.claim("me", ["any"])
        assert found is not None
        self.job = found
        self.folder = self.service.folder(found.id)
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    def end(self, state: State, code: int, result: Any = None, message: str = "") -> None:
        if result is not None:
            (self.folder / RESULT).write_text(json.dumps(result))
        self.service.queue.end(self.job, state, exit_code=code, message=message)


def submitted(capsys: Captured) -> int:
    assert run(["submit", *TUNE, "--label", "of tests", "--json"]) == 0
    return int(json.loads(capsys.readouterr().out)["id"])


def test_answers_hold_what_is_read_of_them() -> None:
    pairs: list[tuple[type, type]] = [
        (records.RemoteJob, shapes.JobShape),
        (records.HowFar, shapes.ProgressShape),
        (records.Change, shapes.TransitionShape),
        (records.RemoteSchedule, shapes.ScheduleShape),
    ]
    for ours, theirs in pairs:
        read = {each.name for each in dataclasses.fields(ours)} - {"raw"}
        assert read <= set(theirs.model_fields)  # type: ignore[attr-defined]


def test_states_are_those_of_the_daemon() -> None:
    assert set(records.OPEN) == {str(state) for state in states.OPEN}
    assert {*records.OPEN, *records.ENDED} == {str(state) for state in State}


def test_a_job_from_its_submit_to_its_end(service: Service, capsys: Captured) -> None:
    number = submitted(capsys)
    assert run(["status"]) == 0
    assert f"{number}    submitted" in capsys.readouterr().out
    worker = Worker(service)
    folder = worker.begin()
    (folder / LOG).write_bytes(b"first line\nsecond line\n")
    worker.end(State.DONE, 0, RESULT_OF_TUNE)
    assert run(["status", str(number)]) == 0
    out = capsys.readouterr().out
    assert "model=resnet20" in out
    assert "done, exit code 0" in out
    assert run(["logs", str(number), "-f"]) == 0
    assert capsys.readouterr().out == "first line\nsecond line\n"
    assert run(["cancel", str(number)]) == 2
    assert "must not have ended" in capsys.readouterr().err


def test_a_job_is_followed_while_it_is_worked_on(service: Service, capsys: Captured) -> None:
    number = submitted(capsys)
    heard: list[tuple[str, object]] = []

    class Notes:
        def job(self, job: records.RemoteJob) -> None:
            heard.append(("job", job.state))

        def how_far(self, progress: records.HowFar) -> None:
            heard.append(("far", (progress.step, progress.done, progress.total)))

        def line(self, text: str) -> None:
            heard.append(("line", text))

        def gap(self, why: str) -> None:
            heard.append(("gap", why))

    worker = Worker(service)

    def work() -> None:
        await_true(lambda: ("job", "submitted") in heard)
        folder = worker.begin()
        try:
            far = Snapshot(at_s=5.0, stage="tune", step="layers", done=3.0, total=12.0)
            service.queue.renew("me", {number: (worker.job.attempt, far)})
            (folder / LOG).write_text("a line\n")
            await_true(lambda: {"far", "line"} <= {kind for kind, _ in heard})
        finally:
            worker.end(State.INFEASIBLE, 3)

    working = threading.Thread(target=work)
    working.start()
    with Daemon() as daemon:
        ended = follow(daemon, number, Notes())
    working.join()
    assert ended.state == "infeasible"
    assert ended.exit_code == 3
    assert heard[0] == ("job", "submitted")
    assert ("job", "running") in heard
    assert ("far", ("layers", 3.0, 12.0)) in heard
    assert heard[-1] == ("job", "infeasible")
    assert [told for kind, told in heard if kind == "line"] == ["a line"]
    assert not any(kind == "gap" for kind, _ in heard)


@pytest.mark.parametrize(
    ("state", "code", "ends"),
    [(State.DONE, 0, 0), (State.FAILED, 7, 7), (State.STOPPED, 6, 6), (State.FAILED, -9, 1)],
)
def test_a_command_that_waits_ends_as_its_job(
    service: Service, state: State, code: int, ends: int, capsys: Captured
) -> None:
    worker = Worker(service)

    def work() -> None:
        await_true(lambda: bool(service.queue.jobs()))
        worker.begin()
        worker.end(state, code, RESULT_OF_TUNE if code == 0 else None, "as it was asked")

    working = threading.Thread(target=work)
    working.start()
    assert run(["submit", *TUNE, "--wait", "--json"]) == ends
    working.join()
    captured = capsys.readouterr()
    if code == 0:
        assert json.loads(captured.out) == RESULT_OF_TUNE
    else:
        assert captured.out == ""
        assert "as it was asked" in captured.err


def test_a_key_makes_one_job(service: Service) -> None:
    with Daemon() as daemon:
        ask = daemon._exchange.ask
        body = {"verb": "tune", "settings": {"model": "resnet20"}, "priority": 3}
        first, second = (ask("POST", "/jobs", body=body, key="k" * 32)[0] for _ in range(2))
    assert first["id"] == second["id"]
    assert len(service.queue.jobs()) == 1


def test_jobs_are_cancelled_and_resumed(service: Service, capsys: Captured) -> None:
    numbers = [str(submitted(capsys)) for _ in range(3)]
    assert run(["cancel", *numbers, "999"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "".join(f"job {number} is cancelled\n" for number in numbers)
    assert "999" in captured.err
    assert run(["resume", *numbers, "--json"]) == 0
    assert [each["state"] for each in json.loads(capsys.readouterr().out)] == ["waiting"] * 3
    assert run(["status", "--json"]) == 0
    assert [str(each["id"]) for each in json.loads(capsys.readouterr().out)] == numbers[::-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("submit tune --model nope", "a model must have a known name"),
        ("submit tune", "model must be given"),
        ("submit tune --model resnet20 --threads many", "threads"),
        ("submit tune --model net.py:make", "--allow-code"),
        ("submit tune --model resnet20 --priority 101", "priority"),
        ("submit tune --model resnet20 --time-limit soon", "time limit"),
        ("submit train nothing", "run"),
        ("submit check", "artifact"),
        ("schedule add @never tune --model resnet20", "cron expression"),
        ("schedule add @daily --timezone Berlin tune --model resnet20", "Europe/Berlin"),
        ("schedule add @daily --timezone UTC --jitter 30d tune --model resnet20", "jitter"),
        ("schedule add @daily --timezone UTC --name 5 tune --model resnet20", "name"),
        ("schedule add @daily --timezone UTC --catch-up twice tune --model resnet20", "catch_up"),
        ("status 2147483648", "2147483647"),
    ],
)
def test_what_breaks_a_rule_is_the_daemons_to_refuse(
    service: Service, words: str, said: str, capsys: Captured
) -> None:
    assert run(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert not service.queue.jobs()


def test_another_token_is_refused(service: Service, token: Path) -> None:
    token.write_text("another-token-of-some-length")
    with Daemon() as daemon, pytest.raises(UsageError, match="AUTOSPARSE_TOKEN_FILE"):
        daemon.jobs(limit=1)
    assert token_file() == token


def test_schedules(service: Service, capsys: Captured) -> None:
    words = ["schedule", "add", "30 2 * * *", "--timezone", "Europe/Berlin", "--name", "at night"]
    assert run([*words, *TUNE, "--priority", "3", "--jitter", "10m", "--catch-up", "skip"]) == 0
    assert "At 02:30 every day in Europe/Berlin\nnext: " in capsys.readouterr().out
    (made,) = service.schedules.all()
    assert made.request.settings == {"model": "resnet20"}
    assert made.request.options.priority == 3
    assert (made.cron, made.jitter_s, made.catch_up) == ("30 2 * * *", 600.0, "skip")
    for verb, said in [
        ("list", "at night"),
        ("show", "10 min"),
        ("next", " 02:30 +0"),
        ("pause", "is paused"),
        ("next", "is paused"),
        ("resume", "is due next"),
        ("remove", "is removed"),
    ]:
        named = [] if verb == "list" else ["at night"]
        assert run(["schedule", verb, *named]) == 0, verb
        assert said in capsys.readouterr().out, verb
    assert not service.schedules.all()
    assert run(["schedule", "show", "at night"]) == 2


def test_watches(service: Service, tmp_path: Path, capsys: Captured) -> None:
    headed(service.place.results / "a.autosparse")
    words = ["watch", "add", "results/a.autosparse", "-b", "5ms"]
    assert run([*words, "--timezone", "UTC", "--cron", "0 * * * *", "--name", "mine"]) == 0
    assert "a.autosparse, 5 ms\nfirst check: " in capsys.readouterr().out
    (made,) = service.watches()
    assert (made.budget_ms, made.schedule.name, made.schedule.cron) == (5.0, "mine", "0 * * * *")
    assert run(["watch", "list"]) == 0
    assert "unknown" in capsys.readouterr().out
    assert run(["watch", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["verdict"] == "unknown"
    assert run(["watch", "remove", "other"]) == 2
    assert run(["watch", "remove", "mine"]) == 0 and not service.watches()
    capsys.readouterr()
    for verb in (["watch", "list"], ["alerts"]):
        assert run(verb) == 0 and capsys.readouterr().out.startswith("no ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("watch add results/none -b 5ms", "must be a file"),
        ("watch add /etc/passwd -b 5ms", "folder that jobs may read"),
        ("watch add results -b soon", "latency"),
    ],
)
def test_what_cannot_be_watched(
    service: Service, words: str, said: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    assert run(words.split()) == 2
    assert said in capsys.readouterr().err and not service.watches()
