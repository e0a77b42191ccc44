"""A node of a joined Ray cluster as a host, reached through an actor that is pinned to it.

The actor is a `Desk`; it ends with the process that made it, and what measures there ends with it. What
a request names by its path (a file of a model, weights) has to be on the node too.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from autosparse.database.table import TuningDatabase
from autosparse.devices.device import Device
from autosparse.errors import AutosparseError, ConfigError, DataError, Stopped, retold
from autosparse.hosts.desk import Desk, Ended, What
from autosparse.hosts.host import Host, Offer
from autosparse.local_ray import ready
from autosparse.progress import STOPPED, Progress, ProgressEvent
from autosparse.records import HardwareProfile, Measurement
from autosparse.searching.joining import join, leave
from autosparse.tuning.request import TuneRequest, TuneResult

_START_S = 60.0
_HEAR_S = 0.2  # a request to stop waits so long at most
_LEAVE_S = 1.0  # for the actor to say that the job has ended, before it is left to itself

_Take = Callable[[Measurement], object]


class NodeHost(Host):
    """A node of a cluster.

    Args:
        name: the node's address, or ``node:HOSTNAME``.
        address: the cluster, joined unless this process is part of one.

    Raises:
        ConfigError: the cluster has no such node; names those it has.
        MissingDependency: no cluster answers.
    """

    def __init__(self, name: str, address: str | None) -> None:
        self.name = name
        self._is_joined = not ray.is_initialized()
        if self._is_joined:
            join(address)
        try:
            pinned = NodeAffinitySchedulingStrategy(_node_id(name), soft=False)
            actor = ray.remote(_PinnedDesk).options(
                num_cpus=0, max_concurrency=8, scheduling_strategy=pinned
            )
            self._desk: Any = actor.remote(sys.path)
        except BaseException:
            self._leave()
            raise
        self._id = ""

    def profile(self, *, keep: bool = True, progress: Progress | None = None) -> HardwareProfile:
        """Measures the limits there."""
        found = HardwareProfile.from_json(self._call("profile", {"keep": keep}, progress))
        self._id = found.hardware_id
        return found

    def catalogue(self) -> tuple[Offer, ...]:
        """Asks every kind of device there."""
        return tuple(map(Offer.from_json, self._call("catalogue", {}, None)))

    def measure(
        self,
        request: TuneRequest,
        device: Device,
        database: TuningDatabase,
        *,
        progress: Progress | None = None,
    ) -> TuneResult:
        """Measures there; rows known here are sent along, new ones come back as they are taken."""
        asked = {
            "request": request.to_json(),
            "device": device.kind,
            "rows": database.rows(hardware_id=device.id),
        }
        result: TuneResult = self._call(
            "measure", asked, progress, take=lambda row: database.put(row, replace=True)
        )
        return result

    def time_whole(
        self, runner: str, request: Mapping[str, Any], *, step: str, limit_s: float, progress: Progress
    ) -> Mapping[str, Any]:
        """Runs the session there, with the rows that are known here."""
        self._check_files(request, progress)
        rows: list[Measurement] = []
        if "database" in request:
            with TuningDatabase(request["database"]) as database:
                rows = database.rows(
                    hardware_id=self._id or self.profile(progress=progress).hardware_id
                )
        asked = {"runner": runner, "request": request, "step": step, "limit_s": limit_s, "rows": rows}
        found: Mapping[str, Any] = self._call("time_whole", asked, progress)
        return found

    def close(self) -> None:
        """Ends the actor and what it runs, and leaves the cluster that was joined for it."""
        if self._desk is not None:
            with suppress(RayError):
                ray.kill(self._desk)
            self._desk = None
            self._leave()

    def _leave(self) -> None:
        if self._is_joined:
            leave()

    def _call(
        self,
        what: What,
        asked: Mapping[str, Any],
        progress: Progress | None,
        take: _Take = lambda row: None,
    ) -> Any:
        """Has a job done, and passes on what is told of it.

        Raises:
            AutosparseError: it failed, or the node is gone.
            Stopped: a stop was requested.
        """
        progress = progress or Progress()
        number = self._get(self._desk.begin.remote(what, asked), _START_S, progress)
        try:
            ended = self._hear(number, progress, take)
        except BaseException:
            self._desk.stop.remote(number)
            raise
        if ended.ending == "done":
            return ended.value
        if ended.ending == "stopped":
            raise Stopped(STOPPED)
        raise retold(ended.words, f"the node {self.name} must be able to measure")

    def _hear(self, number: int, progress: Progress, take: _Take) -> Ended:
        left_at_s: float | None = None
        while True:
            if left_at_s is None and progress.stop_requested():
                self._desk.stop.remote(number)
                left_at_s = time.monotonic() + _LEAVE_S
            if left_at_s is not None and time.monotonic() >= left_at_s:
                raise Stopped(STOPPED)
            heard = self._get(self._desk.hear.remote(number, _HEAR_S), _START_S)
            told, ended = heard
            for each in told:
                if isinstance(each, ProgressEvent):
                    progress.relay(each)
                else:
                    take(each)
            if ended is not None:
                return ended  # type: ignore[no-any-return]

    def _get(self, reference: Any, limit_s: float, progress: Progress | None = None) -> Any:
        """Waits for an answer of the actor, which is at hand unless the node is not."""
        until = time.monotonic() + limit_s
        while not ready([reference], 1, _HEAR_S):
            if progress is not None:
                progress.check()
            if time.monotonic() > until:
                raise AutosparseError(
                    f"the node {self.name} must answer, but was silent for {limit_s:g} s; see `ray "
                    "status`"
                )
        try:
            return ray.get(reference)
        except RayError as error:
            words = str(error).splitlines()[0]
            raise AutosparseError(
                f"the node {self.name} must stay in the cluster, but its process is gone: {words}"
            ) from None

    def _check_files(self, request: Mapping[str, Any], progress: Progress) -> None:
        """Refuses a session whose files the node lacks, before anything runs there."""
        files = {name: os.path.getsize(name) for name in sorted(_files(request))}
        lacking = self._get(self._desk.missing.remote(files), _START_S, progress)
        if lacking:
            raise DataError(
                f"files that are measured must be on the node {self.name} too, under the same paths, "
                f"but it lacks {', '.join(lacking)}, or has others there; copy them, or share their "
                "folder"
            )


class _PinnedDesk(Desk):
    """A desk that finds modules where the process finds them that made it."""

    def __init__(self, search_path: list[str]) -> None:
        sys.path += [folder for folder in search_path if folder not in sys.path]
        super().__init__()


def _node_id(name: str) -> str:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    known: dict[str, str] = {}
    for node in nodes:
        if node["Alive"]:
            known[node["NodeManagerAddress"]] = node["NodeID"]
            known[f"node:{node['NodeManagerHostname']}"] = node["NodeID"]
    if name not in known:
        raise ConfigError(
            f"host must be here or a node of the cluster, but got {name!r}; its nodes: "
            f"{', '.join(known)}"
        )
    return known[name]


def _files(value: Any, key: str = "") -> set[str]:
    """Gives the files of this machine that plain values name, a database aside."""
    if isinstance(value, Mapping):
        return {file for name, each in value.items() for file in _files(each, str(name))}
    if isinstance(value, list | tuple):
        return {file for each in value for file in _files(each, key)}
    if not isinstance(value, str) or key == "database":
        return set()
    file = value.rpartition(":")[0] if ".py:" in value else value
    return {file} if Path(file).is_absolute() and os.path.isfile(file) else set()
