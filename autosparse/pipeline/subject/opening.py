"""The folder of a subject's run: made, or taken up where it was left; and how the run is asked for."""

from __future__ import annotations

import shlex

from autosparse.config import SearchConfig, flag
from autosparse.errors import RunError
from autosparse.pipeline.subject.survey import Survey
from autosparse.progress import Progress
from autosparse.run_folders import RunFolder, find_unfinished
from autosparse.run_folders.event_log import EventLog
from autosparse.storage.for_job import job_number


def open_run(subject: Survey, resume: bool | None) -> RunFolder:
    """Makes the run's folder, or takes up the unfinished one of the same configuration.

    Raises:
        RunError: there is nothing to resume although that was asked for, or it is in use.
    """
    config = subject.config
    fingerprint = f"{config.fingerprint()}-{subject.device.id}"
    unfinished = None if resume is False else find_unfinished(config.out, fingerprint, job_number())
    if unfinished is not None:
        return RunFolder.resume(unfinished)
    if resume:
        raise RunError(
            f"--resume needs an unfinished run of this configuration, but {config.out} has none; "
            "leave --resume out"
        )
    return RunFolder.create(
        config.out,
        model=config.model,
        hardware_id=subject.device.id,
        config_yaml=config.to_yaml(),
        fingerprint=fingerprint,
        budget_ms=None if config.latency_budget is None else config.latency_budget / 1e3,
        job=job_number(),
    )


def begin_events(run: RunFolder, verb: str, events: EventLog, progress: Progress) -> None:
    """Lets a run's folder keep the progress of a verb, that of before the run was known included."""
    job = f"{verb} {run.name}"
    events.begin(run.path / "logs" / "events.jsonl", job)
    progress.name(job)


def command(config: SearchConfig) -> str:
    """Gives the command line that makes the same run."""
    default = SearchConfig(model=config.model).to_plain()
    words = ["autosparse", "search"]
    for key, value in config.to_plain().items():
        if value == default[key] and key != "model":
            continue
        if isinstance(value, bool):  # False is the default of every switch
            words.append(flag(key))
            continue
        for item in value if isinstance(value, list) else [value]:
            words += [flag(key), str(item)]
    return shlex.join(words)
