"""The folder of all runs: names, order, and the ``latest`` link."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from autosparse.errors import RunError
from autosparse.run_folders.state import STATE_FILE

LATEST = "latest"


def slug(model: str) -> str:
    """Gives a model's name as part of a folder name: lower case, at most 40 characters."""
    source, _, factory = model.partition(":")
    if "/" in source or source.endswith(".py"):
        source = Path(source).stem
    text = re.sub(r"[^a-z0-9_.]+", "-", f"{source} {factory}".lower()).strip("-.")
    return text[:40].rstrip("-.") or "model"


def settle(nursery: Path, root: Path, name: str) -> Path:
    """Renames a complete folder to `name`, or to `name` with a number if that is taken.

    Raises:
        RunError: the folder of runs cannot be written.
    """
    for attempt in range(1, 1000):
        path = root / (name if attempt == 1 else f"{name}-{attempt}")
        if os.path.lexists(path):
            continue
        try:
            nursery.rename(path)
        except FileExistsError:
            continue
        except OSError as error:
            if os.path.exists(path):  # another process was faster: the folder is no longer empty
                continue
            raise RunError(f"{path} must be writable, but: {error.strerror}; name another") from None
        return path
    raise RunError(f"{root} must have room for a run named {name}, but it has 999; name another folder")


def run_folders(root: Path) -> Iterator[Path]:
    """Gives the folders under `root` that are runs, newest first."""
    if not os.path.isdir(root):
        return
    entries = sorted(root.iterdir(), key=lambda p: age(p.name), reverse=True)
    for path in entries:
        hidden = path.name.startswith(".")
        if not hidden and not path.is_symlink() and os.path.isfile(path / STATE_FILE):
            yield path


def age(name: str) -> tuple[str, int, str]:
    """Gives a key that orders names by their time stamp, then by the number that a collision added."""
    stamp, _, rest = name.partition("-")
    number = re.search(r"-(\d{1,3})$", rest)
    return stamp, int(number[1]) if number else 1, rest


def latest_run(root: Path) -> Path:
    """Gives the run that ``latest`` names, or the newest if the link is missing or broken.

    Raises:
        RunError: there is no run.
    """
    link = root / LATEST
    if os.path.isfile(link / STATE_FILE):
        return link.resolve()
    newest = next(run_folders(root), None)
    if newest is None:
        raise RunError(f"there must be a run to be the latest, but {root} has none; start a search")
    return newest.resolve()


def check_latest(root: Path) -> None:
    """Refuses a folder in which ``latest`` is something other than a link.

    Raises:
        RunError: it is a file or a folder.
    """
    link = root / LATEST
    if os.path.exists(link) and not link.is_symlink():
        raise RunError(
            f"{link} must be a link that autosparse keeps, but it is a file or folder; move it"
        )


def point_latest(root: Path, name: str) -> None:
    """Points ``latest`` at a run, at once: no reader ever finds the link missing."""
    fresh = root / f".latest-{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(name, target_is_directory=True)
    os.replace(fresh, root / LATEST)


def mend_latest(root: Path, gone: str) -> None:
    """Moves ``latest`` to the newest run left if it pointed at `gone`."""
    link = root / LATEST
    if not link.is_symlink() or os.readlink(link) != gone:
        return
    newest = next(run_folders(root), None)
    if newest is None:
        link.unlink()
    else:
        point_latest(root, newest.name)
