"""Reading runs without working on them: list, find, show, remove."""

from __future__ import annotations

import difflib
import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from autosparse.errors import RunError
from autosparse.run_folders.folder import claim
from autosparse.run_folders.shelf import LATEST, age, latest_run, mend_latest, run_folders
from autosparse.run_folders.state import (
    FINISHED,
    LOCK_FILE,
    STATE_FILE,
    RunState,
    RunSummary,
    read_state,
)
from autosparse.storage.files import read_json
from autosparse.storage.locks import holder

_RESULT = "pareto.json"


def find_unfinished(root: Path, fingerprint: str, job: str = "") -> Path | None:
    """Gives the newest run of the same fingerprint that is not done, for `RunFolder.resume`.

    A run that a daemon's job made is that job's alone. Interrupted, stopped and failed runs count; one
    that another process works on counts too, and `RunFolder.resume` will then name that process.
    """
    for path in run_folders(root):
        try:
            state = read_state(path)
        except RunError:
            continue
        if (state.fingerprint, state.job) == (fingerprint, job) and state.status not in FINISHED:
            return path
    return None


def find_of_job(root: Path, job: str, since: str = "") -> Path | None:
    """Gives the newest run that a daemon's job made; None if it made none.

    Args:
        root: folder of all runs.
        job: its number.
        since: runs whose names sort before this are not looked at.
    """
    for path in run_folders(root):
        if path.name < since:
            return None
        try:
            if read_state(path).job == job:
                return path
        except RunError:
            continue
    return None


def list_runs(
    root: Path, *, before: str | None = None, limit: int | None = None
) -> tuple[RunSummary, ...]:
    """Gives the runs under a folder, newest first; none if the folder does not exist.

    Args:
        root: folder of all runs.
        before: only those older than the run of this name, which may be gone; None is all.
        limit: how many at most; None is all.
    """
    older = (path for path in run_folders(root) if before is None or age(path.name) < age(before))
    return tuple(summarize(path) for path in itertools.islice(older, limit))


def summarize(path: Path) -> RunSummary:
    """Gives the summary of one run; a damaged state becomes the summary's state."""
    try:
        state = read_state(path)
    except RunError as error:
        return RunSummary(
            name=path.name, path=path, model="?", created_at="", state="damaged", verdict=str(error)
        )
    return RunSummary(
        name=path.name,
        path=path,
        model=state.model,
        created_at=state.created_at,
        state=_live_status(path, state),
        stage=state.stage,
        budget_ms=state.budget_ms,
        verdict=_verdict(path) or state.message,
    )


def find_run(root: Path, wanted: str) -> Path:
    """Finds a run by name, path, unique beginning or end of its name, or ``latest``.

    Raises:
        RunError: nothing fits, or several do.
    """
    if wanted == LATEST:
        return latest_run(root)
    for candidate in (root / wanted, Path(wanted)):
        if os.path.isfile(candidate / STATE_FILE):
            return candidate.resolve()
    names = [path.name for path in run_folders(root)]
    fits = [name for name in names if wanted and name.startswith(wanted)]
    if len(fits) == 1:
        return (root / fits[0]).resolve()
    if fits:
        shown = ", ".join(fits[:4]) + (", …" if len(fits) > 4 else "")
        raise RunError(
            f"a run must be named uniquely, but {wanted!r} begins {len(fits)} names: {shown}"
        )
    near = difflib.get_close_matches(wanted, names, 1, 0.4) or names[:1]
    hint = f"did you mean {near[0]}?" if near else f"there is no run in {root}"
    raise RunError(
        f"a run must be a name or folder of `autosparse runs list`, but got {wanted!r}; {hint}"
    )


def find_finished(root: Path, wanted: str) -> tuple[Path, str]:
    """Finds a run for work that needs a finished one: ``latest`` is then the newest that is finished.

    A run that is named otherwise is given as `find_run` finds it, finished or not.

    Returns:
        The run, and which newer ones were passed over, in one sentence; empty if none was.

    Raises:
        RunError: nothing fits, several do, or no run is finished.
    """
    if wanted != LATEST:
        return find_run(root, wanted), ""
    newest = find_run(root, wanted)
    runs = [newest, *(path.resolve() for path in run_folders(root) if path.resolve() != newest)]
    passed: list[RunSummary] = []
    for path in runs:
        summary = summarize(path)
        if summary.state in FINISHED:
            return path, _passed_over(path, passed)
        passed.append(summary)
    first = passed[0]
    why = f" ({first.verdict})" if first.verdict else ""
    raise RunError(
        f"a finished run is needed, but of {len(passed)} in {root} none is: {first.name} is "
        f"{first.state}{why}; run its search again to finish it"
    )


def _passed_over(path: Path, passed: list[RunSummary]) -> str:
    if not passed:
        return ""
    more = f" and {len(passed) - 1} more" if passed[1:] else ""
    return (
        f"latest is {path.name}, the newest finished run; {passed[0].name}{more}, newer, is "
        f"{passed[0].state}"
    )


def remove_run(path: Path) -> None:
    """Deletes a run's folder, and moves ``latest`` if it pointed there.

    Raises:
        RunError: the folder is no run or a link to one, or a process works on it.
    """
    if path.is_symlink():
        raise RunError(f"only a run's own folder can be removed, but {path} is a link; name the run")
    read_state(path)
    lock = claim(path)
    try:
        doomed = path.with_name(f".gone-{path.name}-{os.getpid()}")
        path.rename(doomed)  # so that a kill leaves no half-deleted run under a run's name
        mend_latest(path.parent, path.name)
        shutil.rmtree(doomed)
    except OSError as error:
        raise RunError(f"{path} must be removable, but: {error.strerror}") from None
    finally:
        lock.close()


def show(path: Path) -> dict[str, Any]:
    """Gives all that is known of one run as plain values, for `autosparse runs show`.

    Returns:
        The summary's fields, ``status`` (state.json as it is), ``files`` (name to bytes) and
        ``pareto`` (content of pareto.json, or None).

    Raises:
        RunError: no run, or a damaged file.
    """
    state = read_state(path)
    pareto = path / _RESULT
    return {
        **summarize(path).to_json(),
        "status": state.to_json(),
        "files": dict(_sizes(path)),
        "pareto": read_json(pareto) if os.path.exists(pareto) else None,
    }


def _sizes(path: Path) -> Iterator[tuple[str, int]]:
    for file in sorted(path.rglob("*")):
        if file.name != LOCK_FILE and not file.name.startswith("."):
            with suppress(FileNotFoundError):  # a run at work replaces its files
                if os.path.isfile(file):
                    yield str(file.relative_to(path)), file.stat().st_size


def _live_status(path: Path, state: RunState) -> str:
    if state.status == "running" and holder(path / LOCK_FILE) is None:
        return "interrupted"
    return state.status


def _verdict(path: Path) -> str:
    try:
        text = read_json(path / _RESULT)["verdict"]["text"]
    except (RunError, KeyError, TypeError):
        return ""
    return str(text)
