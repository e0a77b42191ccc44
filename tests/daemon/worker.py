"""A job's process, as the command line is one, whose work is short steps kept in a real run folder."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import yaml

from autosparse.cli.leash import put_on
from autosparse.errors import ExitCode
from autosparse.progress import Progress
from autosparse.run_folders import RunFolder, append_jsonl, find_unfinished, read_jsonl
from autosparse.run_folders.event_log import EventLog
from autosparse.storage.for_job import job_folder, job_number

STEPS = 8
STEP_S = 0.05
LOG = "steps.jsonl"

_told = False


def main(config: Path) -> int:
    signal.signal(signal.SIGTERM, _stop)
    put_on()
    asked = yaml.safe_load(config.read_text())
    if "exit" in asked["include"]:
        return int(asked["include"][1])
    root, folder = Path(asked["out"]), job_folder()
    assert folder is not None
    found = find_unfinished(root, "same", job_number())
    run = RunFolder.resume(found) if found else _made(root, config)
    sinks = EventLog(folder / "events.jsonl"), EventLog(run.path / "logs" / "events.jsonl")
    progress = Progress(*sinks, job=f"search {run.name}", stage="steps")
    steps = asked["trials"] or STEPS
    with run, progress.step("steps", steps) as step:
        return _work(run, step, steps, endless="endless" in asked["include"])


def _made(root: Path, config: Path) -> RunFolder:
    return RunFolder.create(
        root,
        model="resnet20",
        hardware_id="0" * 12,
        config_yaml=config.read_text(),
        fingerprint="same",
        job=job_number(),
    )


def _work(run: RunFolder, step: object, steps: int, *, endless: bool) -> int:
    done = len(read_jsonl(run.path / LOG))
    for number in range(done, steps):
        time.sleep(STEP_S)
        while endless and not _told:
            time.sleep(STEP_S)
        if _told:
            run.finish("stopped", ExitCode.STOPPED, "stopped")
            return ExitCode.STOPPED
        append_jsonl(run.path / LOG, {"step": number, "pid": os.getpid()})
        step.advance()  # type: ignore[attr-defined]
    run.finish("done", ExitCode.DONE)
    return ExitCode.DONE


def _stop(number: int, frame: FrameType | None) -> None:
    global _told
    _told = True


if __name__ == "__main__":
    os._exit(main(Path(sys.argv[sys.argv.index("--config") + 1])))
