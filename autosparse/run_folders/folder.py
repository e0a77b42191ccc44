"""The right to work on a run, held by one process at a time."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from autosparse.errors import (
    AutosparseError,
    BudgetInfeasible,
    ExitCode,
    RunError,
    Stopped,
    StoppedMidway,
)
from autosparse.progress import STOPPED
from autosparse.run_folders.shelf import check_latest, point_latest, settle, slug
from autosparse.run_folders.state import (
    FINISHED,
    LOCK_FILE,
    STATE_FILE,
    RunState,
    RunStatus,
    read_state,
)
from autosparse.storage.files import write_json, write_text
from autosparse.storage.locks import FileLock
from autosparse.storage.paths import writable_folder

_open: set[RunFolder] = set()


class RunFolder:
    """A run this process works on. Use as a context manager: leaving records how the work ended.

    Attributes:
        path: the folder.
        state: the content of its state file.
    """

    def __init__(self, path: Path, state: RunState, lock: FileLock) -> None:
        self.path = path
        self.state = state
        self._lock = lock
        _open.add(self)

    @classmethod
    def create(
        cls,
        root: Path,
        *,
        model: str,
        hardware_id: str,
        config_yaml: str,
        fingerprint: str,
        budget_ms: float | None = None,
        job: str = "",
        at: datetime | None = None,
    ) -> Self:
        """Makes a new run, locked, and points ``latest`` at it.

        The folder appears under its name only when it is complete, so a kill leaves no half-made run.

        Args:
            root: folder of all runs, made if need be.
            model: the model as the user named it.
            hardware_id: the host.
            config_yaml: the resolved configuration.
            fingerprint: hash of everything that decides the run's results.
            budget_ms: latency budget in milliseconds.
            job: number of the daemon's job that it is for; empty if a person asked.
            at: time of creation; now by default.

        Raises:
            RunError: the folder cannot be written.
        """
        writable_folder(root, "the folder of runs")
        check_latest(root)
        moment = (at or datetime.now(UTC)).astimezone(UTC)
        stamp = moment.isoformat(timespec="seconds")
        state = RunState(
            model=model,
            hardware_id=hardware_id,
            fingerprint=fingerprint,
            created_at=stamp,
            updated_at=stamp,
            pid=os.getpid(),
            budget_ms=budget_ms,
            job=job,
        )
        nursery = Path(tempfile.mkdtemp(dir=root, prefix=".new-"))
        try:
            nursery.chmod(0o755)
            lock = FileLock(nursery / LOCK_FILE)
            write_text(nursery / "config.yaml", config_yaml)
            write_json(nursery / STATE_FILE, state.to_json())
            path = settle(nursery, root, f"{moment:%Y%m%dT%H%M%SZ}-{slug(model)}-{hardware_id[:8]}")
        except BaseException:
            shutil.rmtree(nursery, ignore_errors=True)
            raise
        point_latest(root, path.name)
        return cls(path, state, lock)

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Locks an existing run to go on with it.

        Raises:
            RunError: no run, damaged, or another process works on it (named by its pid).
        """
        read_state(path)
        lock = claim(path)
        run = cls(path, read_state(path), lock)
        run._write(status="running", exit_code=None, message="")
        return run

    @classmethod
    def amend(cls, path: Path) -> Self:
        """Locks a finished run to change what it holds; its state stays as it is, however that ends.

        Raises:
            RunError: no run, damaged, unfinished, or another process works on it (named by its pid).
        """
        read_state(path)
        lock = claim(path)
        state = read_state(path)
        if state.status not in FINISHED:
            lock.close()
            raise RunError(
                f"a run must be finished to be amended, but {path} is {state.status}; "
                "run its search again to finish it"
            )
        return cls(path, state, lock)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    def folder(self, *parts: str) -> Path:
        """Gives a folder inside the run, such as ``folder("train", id)``, and makes it."""
        return writable_folder(self.path.joinpath(*parts), "a folder of the run")

    def enter(self, stage: str) -> None:
        """Records that a stage begins."""
        self._write(stage=stage, status="running")

    def finish(self, status: RunStatus, exit_code: int, message: str = "") -> None:
        """Records how the run ended."""
        self._write(status=status, exit_code=int(exit_code), message=message)

    def close(self) -> None:
        """Lets go of the run."""
        _open.discard(self)
        self._lock.close()

    def _write(self, **changes: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.state = dataclasses.replace(self.state, updated_at=now, pid=os.getpid(), **changes)
        write_json(self.path / STATE_FILE, self.state.to_json())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.state.status == "running":
                self.finish(*_outcome(error))
        finally:
            self.close()


def _outcome(error: BaseException | None) -> tuple[RunStatus, int, str]:
    if error is None:
        return "done", ExitCode.DONE, ""
    if isinstance(error, BudgetInfeasible):
        return "infeasible", error.exit_code, str(error)
    if isinstance(error, Stopped):
        return "stopped", error.exit_code, str(error)
    if isinstance(error, StoppedMidway):
        return "stopped", ExitCode.STOPPED, STOPPED
    if isinstance(error, KeyboardInterrupt):
        return "stopped", ExitCode.INTERRUPTED, "interrupted"
    if isinstance(error, AutosparseError):
        return "failed", error.exit_code, str(error)
    return "failed", ExitCode.INTERNAL, f"{type(error).__name__}: {error}"


def record_stop() -> None:
    """Records that the runs this process works on are stopped, before it ends without leaving them."""
    for run in tuple(_open):
        if run.state.status == "running":
            run.finish("stopped", ExitCode.STOPPED, STOPPED)


def claim(path: Path) -> FileLock:
    """Locks an existing run.

    Raises:
        RunError: another process works on it, or it has just been removed.
    """
    lock = FileLock(path / LOCK_FILE)
    if not os.path.exists(path / STATE_FILE):
        lock.close()
        raise RunError(f"{path} must be a run, but it was removed just now")
    return lock
