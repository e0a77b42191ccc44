"""What runs inside the measuring process: one request after another, each a line of JSON.

Started by `autosparse.workers.worker` as ``python -m autosparse.workers.child``. The first line
configures the process; then every line is a job for its *runner*, a function from plain values to plain
values that is named by its dotted path (``package.module:function``). Answers, and before them what a
runner tells of its progress, go to the descriptor that was standard output; whatever a library prints
goes to standard error instead.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from autosparse.errors import DeviceLost
from autosparse.progress import Progress, ProgressEvent

Job = dict[str, Any]
Runner = Callable[[Job, Progress], Job]


def main() -> None:
    """Serves until standard input ends."""
    answers = _private_stdout()
    lines = _lines_until_orphaned(sys.stdin)
    runner = _set_up(json.loads(next(lines)))
    _send(answers, {"ready": os.getpid()})
    for line in lines:
        request = json.loads(line)
        _send(answers, {"id": request["id"], **_answer(runner, request["job"], answers)})


def _private_stdout() -> TextIO:
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(descriptor, "w", encoding="utf-8")


def _lines_until_orphaned(stream: TextIO) -> Iterator[str]:
    """Gives lines as they come. When the parent is gone the process ends, even amid a hung kernel."""
    arrived: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            arrived.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield arrived.get()


def _set_up(settings: Job) -> Runner:
    if settings["processors"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, settings["processors"])
    sys.path[:0] = settings["import_path"]
    module, _, function = settings["runner"].partition(":")
    runner: Callable[..., Job] = getattr(importlib.import_module(module), function)
    if len(inspect.signature(runner).parameters) > 1:
        return runner
    return lambda job, progress: runner(job)


def _answer(runner: Runner, job: Job, answers: TextIO) -> Job:
    def tell(event: ProgressEvent) -> None:
        _send(answers, {"event": dataclasses.asdict(event)})

    # The border of the process: whatever goes wrong in a job is told, and becomes a row.
    try:
        return {"outcome": runner(job, Progress(tell))}
    except DeviceLost as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(1)  # further jobs would fail for this one's fault
    except Exception as error:
        where = traceback.format_exc(limit=-3)
        return {"error": f"{type(error).__name__}: {error}", "traceback": where}


def _send(answers: TextIO, message: Job) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
