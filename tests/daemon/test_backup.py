"""A copy of the database, made while others write, and what goes on from it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from killing import request
from one_daemon import WORKER
from telling import desk_at

from autosparse import cli
from autosparse.daemon.supervisor import Supervisor
from autosparse.database import TuningDatabase
from autosparse.errors import DatabaseError, RunError, UsageError
from autosparse.jobs import daemons
from autosparse.jobs.queue import Queue
from autosparse.jobs.records import JobRequest
from autosparse.jobs.roots import Roots
from autosparse.jobs.states import State
from autosparse.jobs.store import Store
from autosparse.jobs.verbs import Place
from autosparse.storage import backup
from autosparse.storage.backup import back_up


def fill(url: str, folder: Path) -> None:
    with desk_at(url, folder) as desk:
        desk.search()
        desk.watch("watched")
        desk.to_the_hour()
        for job_id in desk.service.schedules.make_due_jobs():
            desk.queue.cancel(job_id)
        desk.queue.submit(request(1))
        desk.queue.submit(request(2))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with a tuning table, two jobs, a schedule and a watch that missed its budget."""
    path = tmp_path / "live" / "tuning.db"
    assert cli.run(["db", "verify", "--database", str(path)]) == 2  # there is none yet
    fill(f"sqlite:///{path}", path.parent)
    with TuningDatabase(str(path)):
        pass
    return path


def all_rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with sqlite3.connect(path) as connection:
        names = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        tables = [name for (name,) in connection.execute(names)]
        return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


class TestCopy:
    def test_holds_everything(self, database: Path, tmp_path: Path) -> None:
        target = tmp_path / "new" / "copy.db"
        made = back_up(str(database), target)
        assert all_rows(target) == all_rows(database)
        assert (made.database, made.file) == (str(database), str(target))
        assert made.bytes == target.stat().st_size and made.tables["jobs"] == 4
        assert made.tables.keys() >= {"measurements", "schedules", "alerts", "webhooks"}
        assert [path.name for path in target.parent.iterdir()] == ["copy.db"]

    def test_is_read_by_whoever_may_read_the_database(self, database: Path, tmp_path: Path) -> None:
        for mode in (0o600, 0o640):
            database.chmod(mode)
            back_up(str(database), tmp_path / "copy.db", overwrite=True)
            assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == mode

    def test_is_of_one_instant_while_others_write(self, database: Path, tmp_path: Path) -> None:
        stop, written = threading.Event(), [0]

        def write() -> None:
            with Store(str(database)) as store:
                queue = Queue(store)
                while not stop.is_set():  # a job and its first transition are one transaction
                    queue.submit(JobRequest(verb="tune", settings={"fill": "x" * 5000}))
                    written[0] += 1

        writers = [threading.Thread(target=write) for _ in range(2)]
        for each in writers:
            each.start()
        try:
            counts = []
            for number in range(10):
                target = tmp_path / f"copy-{number}.db"
                back_up(str(database), target)
                before = written[0]
                until_s = time.monotonic() + 60
                while written[0] < before + 3:
                    assert time.monotonic() < until_s, "writers no longer get on"
                    time.sleep(0.001)
                rows = all_rows(target)
                jobs = {row[0] for row in rows["jobs"]}
                assert jobs == {row[1] for row in rows["job_transitions"]}
                counts.append(len(jobs))
        finally:
            stop.set()
            for each in writers:
                each.join()
        assert counts == sorted(counts) and counts[-1] > counts[0]

    def test_appears_whole_or_not_at_all(
        self, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die(connection: sqlite3.Connection, table: str) -> int:
            raise KeyboardInterrupt

        folder = tmp_path / "copies"
        monkeypatch.setattr(backup, "_rows", die)
        with pytest.raises(KeyboardInterrupt):
            back_up(str(database), folder / "copy.db")
        assert list(folder.iterdir()) == []


class TestRestored:
    def test_put_back_it_is_as_it_was_and_a_daemon_goes_on(
        self, database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        copy = tmp_path / "copy.db"
        command = ["db", "backup", str(copy), "--database", str(database), "--json"]
        assert cli.run(command) == 0
        assert json.loads(capsys.readouterr().out)["tables"]["jobs"] == 4
        with Store(str(database)) as store:  # lost, as it is after the backup
            Queue(store).submit(request(3))
        shutil.rmtree(database.parent)
        database.parent.mkdir()
        shutil.copyfile(copy, database)
        assert cli.run(["db", "verify", "--database", str(database)]) == 0
        is_as_it_was(f"sqlite:///{database}", database.parent)
        goes_on(str(database), tmp_path / "results")

    def test_a_dump_of_postgresql_put_back(self, postgresql: str, tmp_path: Path) -> None:
        """By the commands that the documentation gives, over what came after and into a new one."""
        import postgres

        source, dump = postgres.new_database(postgresql), tmp_path / "jobs.dump"
        fill(source, tmp_path / "live")
        with TuningDatabase(source):
            pass
        told = source.replace("+psycopg", "")
        subprocess.run(["pg_dump", "--format=custom", f"--file={dump}", told], check=True)
        with Store(source) as store:  # lost, as it is after the backup
            Queue(store).submit(request(3))
        for target in (source, postgres.new_database(postgresql)):
            clean = ["--clean"] if target == source else []
            into = ["--dbname", target.replace("+psycopg", ""), str(dump)]
            subprocess.run(["pg_restore", "--exit-on-error", *clean, *into], check=True)
            assert cli.run(["db", "verify", "--database", target]) == 0
            is_as_it_was(target, tmp_path / "live")
            goes_on(target, tmp_path / target.rpartition("/")[2])


def is_as_it_was(url: str, folder: Path) -> None:
    with desk_at(url, folder) as desk:
        names = [schedule.name for schedule in desk.service.schedules.all()]
        assert names == ["nightly", "watched"]
        assert [watch.artifact for watch in desk.service.watches()] == [str(desk.artifact())]
        states = [job.state for job in desk.queue.jobs()]
        assert states == [State.SUBMITTED, State.SUBMITTED, State.CANCELLED, State.CANCELLED]
        assert [len(desk.queue.transitions(number)) for number in (1, 3)] == [2, 1]


def goes_on(url: str, results: Path) -> None:
    results.mkdir()
    with Store(url) as store:
        queue = Queue(store)
        place = Place(results=results, database=store.full_url, roots=Roots())
        program = (sys.executable, str(WORKER))
        with Supervisor(
            queue, daemons.this_daemon("hw"), place, program=program, tick_s=0.05
        ) as supervisor:
            until_s = time.monotonic() + 60
            while any(queue.get(number).is_open for number in (3, 4)):
                assert time.monotonic() < until_s, queue.jobs()
                supervisor.round()
                time.sleep(0.02)
        assert {queue.get(number).state for number in (3, 4)} == {State.DONE}
        assert queue.submit(request(5))[0].id == 5


class TestRefused:
    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("postgresql+psycopg://u:word@host/jobs", "run: pg_dump --format=custom --file=FILE jobs$"),
            ("sqlite://", "in memory alone"),
            ("sqlite:///:memory:", "in memory alone"),
            ("none.db", "there is no file none.db"),
            (".", "there is no file"),
            ("what://ever", "must be a path or an SQLAlchemy URL"),
        ],
    )
    def test_what_is_no_file_of_sqlite(self, url: str, said: str, tmp_path: Path) -> None:
        with pytest.raises(DatabaseError, match=said) as caught:
            back_up(url, tmp_path / "copy.db")
        assert "word" not in str(caught.value) and not list(tmp_path.iterdir())

    def test_onto_itself(self, database: Path, tmp_path: Path) -> None:
        before = all_rows(database)
        link, hard = tmp_path / "link.db", tmp_path / "hard.db"
        link.symlink_to(database)
        os.link(database, hard)
        for target in (database, link, hard, database.parent / ".." / "live" / database.name):
            with pytest.raises(UsageError, match="must be another file than its database"):
                back_up(str(database), target, overwrite=True)
        assert all_rows(database) == before

    def test_over_another_file_unless_that_is_meant(self, database: Path, tmp_path: Path) -> None:
        target = tmp_path / "copy.db"
        target.write_text("precious")
        with pytest.raises(UsageError, match="must not exist"):
            back_up(str(database), target)
        assert target.read_text() == "precious"
        assert cli.run(["db", "backup", str(target), "--database", str(database), "--force"]) == 0
        assert all_rows(target) == all_rows(database)

    def test_into_what_is_no_folder(self, database: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="is a folder"):
            back_up(str(database), tmp_path)
        (tmp_path / "file").write_text("")
        with pytest.raises(RunError, match="must be writable"):
            back_up(str(database), tmp_path / "file" / "copy.db")

    @pytest.mark.parametrize("how", ["text", "torn", "scribbled"])
    def test_a_damaged_database(self, database: Path, tmp_path: Path, how: str) -> None:
        content = database.read_bytes()
        middle = len(content) // 2
        damaged = {
            "text": b"no database at all" * 1000,
            "torn": content[:middle],
            "scribbled": content[:4096] + os.urandom(len(content) - 8192) + content[-4096:],
        }[how]
        path = tmp_path / "damaged.db"
        path.write_bytes(damaged)
        with pytest.raises(DatabaseError, match=r"must be sound, but .*damaged\.db gave"):
            back_up(str(path), tmp_path / "copy.db")
        assert not (tmp_path / "copy.db").exists()
