"""A file that a process looks at stays its own: no other one folds away the log that it writes to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from autosparse.config import SearchConfig, validate
from autosparse.database.schema import check_file, parse_url
from autosparse.errors import ConfigError
from autosparse.jobs.queue import Queue
from autosparse.jobs.records import JobRequest
from autosparse.jobs.store import Store

REQUEST = JobRequest(verb="tune", settings={"model": "resnet20"})
# What the process of a job does with the database when it ends: it closes its last connection.
OTHER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM jobs").fetchone()[0])
print(connection.execute("PRAGMA integrity_check").fetchone()[0])
connection.close()
"""


def seen_by_another(file: Path) -> list[str]:
    command = [sys.executable, "-c", OTHER, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("link", [False, True])
def test_to_check_a_file_gives_up_no_lock_on_it(tmp_path: Path, link: bool) -> None:
    file = tmp_path / "jobs.db"
    named = tmp_path / "link.db" if link else file
    with Store(f"sqlite:///{file}") as store:
        queue = Queue(store)
        if link:
            named.symlink_to(file)
        log = file.with_name("jobs.db-wal")
        for number in range(1, 5):
            queue.submit(REQUEST)
            before = log.stat().st_ino
            check_file(parse_url(str(named)), "database")
            config = SearchConfig(model="resnet20", database=str(named), out=tmp_path / "results")
            validate(config, writing=False)
            assert seen_by_another(file) == [str(number), "ok"]
            assert log.stat().st_ino == before  # it was not taken away
    assert seen_by_another(file) == ["4", "ok"]


def test_a_file_that_nobody_holds_is_looked_into(tmp_path: Path) -> None:
    file = tmp_path / "no.db"
    file.write_text("this is none")
    with pytest.raises(ConfigError, match="something else"):
        check_file(parse_url(str(file)), "database")
