"""Locks on files: one holder, named; freed by whatever ends it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autosparse.errors import RunError, Stopped
from autosparse.progress import Progress
from autosparse.storage.locks import FileLock, Held, exclusive, holder


@pytest.mark.smoke
def test_a_lock_is_held_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder(path) is None
    with FileLock(path) as lock:
        assert holder(path) == str(os.getpid()) == path.read_text()
        with pytest.raises(Held, match=f"process {os.getpid()} does"):
            FileLock(path)
    lock.close()  # twice is fine
    assert holder(path) is None
    FileLock(path).close()


def test_a_killed_holder_frees_it_for_whoever_waits(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from autosparse.storage.locks import FileLock\n"
        "lock = FileLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert holder(path) == str(other.pid)
        said: list[str] = []
        waiting = Progress(lambda event: said.append(event.message), should_stop=lambda: bool(said))
        with pytest.raises(Stopped), exclusive(path, waiting):
            pytest.fail("another process holds it")
        assert said == [f"waiting for another process to finish with {tmp_path}"]
        other.kill()
        with exclusive(path, Progress()):
            assert holder(path) == str(os.getpid())
    assert holder(path) is None


def test_a_pipe_is_no_lock_and_nobody_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    os.mkfifo(path)
    with pytest.raises(RunError, match="lock must be a regular file"):
        FileLock(path)
    assert holder(path) is None


def test_a_file_system_without_locks_and_a_missing_folder_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match="must be writable"):
        FileLock(tmp_path / "absent" / "lock")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunError, match="must allow file locks, but: No locks available") as caught:
        FileLock(tmp_path / "lock")
    assert not isinstance(caught.value, Held)
