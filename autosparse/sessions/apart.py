"""A session runs in a process of its own, while nothing else is measured on this host.

The process is a fresh one on this machine at normal priority, as a deployed model's would be: workers
of a pool may sit on another host, and run at a low priority at which any other process starves them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autosparse.devices import AUTO, kind_and_number
from autosparse.devices.device import find
from autosparse.errors import retold
from autosparse.measuring.lock import measuring
from autosparse.progress import Progress
from autosparse.workers.worker import Worker


def call_apart(
    runner: str, request: Mapping[str, Any], *, step: str, limit_s: float, progress: Progress
) -> Mapping[str, Any]:
    """Calls a function in a process of its own, while nobody else measures on this host.

    Args:
        runner: dotted path of the function that carries it out, ``package.module:function``.
        request: what to measure, as plain values for the function. Of several devices of the kind that
            its ``device`` names, the process sees that one alone, and is told the kind.
        step: what starting the process is called.
        limit_s: time after which the session counts as hung.
        progress: told for whom we wait and what the process tells; a stop ends it at once.

    Returns:
        The plain values that the function gave.

    Raises:
        MissingDependency: the host has no such device.
        AutosparseError: the process failed; names the last line it said.
        Stopped: a stop was requested.
    """
    progress.check()
    request, environment, lock = _on_one_device(request)
    with (
        measuring("whole models", progress, device=lock),
        Worker(runner, library_threads=None, environment=environment) as worker,
    ):
        with progress.step(step):
            worker.start()
        answer = worker.call(request, limit_s, progress)
    if answer.outcome is None:
        raise retold(answer.message, "whole models must be measurable")
    return answer.outcome


def _on_one_device(
    request: Mapping[str, Any],
) -> tuple[Mapping[str, Any], Mapping[str, str], str]:
    """Gives the request for a process that sees its device alone, its environment, the lock."""
    named = str(request.get("device", "cpu"))
    kind, _ = kind_and_number(named)
    if kind in (AUTO, "cpu"):
        return request, {}, ""
    device = find(named)
    return {**request, "device": kind}, device.environment, device.lock
