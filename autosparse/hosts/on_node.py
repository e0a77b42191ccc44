"""A node of a joined Ray cluster as a host, reached through an actor that is pinned to it.

The actor is a `Desk`; it ends with the process that made it, and what measures there ends with it. A
node that leaves the cluster gives its work back: rows that it handed over are kept, and another node of
the same hardware goes on.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from autosparse.database.table import TuningDatabase
from autosparse.devices.device import Device
from autosparse.errors import AutosparseError, ConfigError, MissingDependency, Stopped, retold
from autosparse.hosts.desk import Desk, Ended, What
from autosparse.hosts.host import Host, Offer
from autosparse.hosts.nodes import ClusterHost, candidates, check_known, pinned_to
from autosparse.local_ray import ready
from autosparse.node_labels import MEASURE, RESOURCE
from autosparse.progress import STOPPED, Progress, ProgressEvent
from autosparse.records import HardwareProfile, Measurement
from autosparse.searching.cluster import HARDWARE
from autosparse.searching.joining import join, leave
from autosparse.storage.sending import check_size, identified, named_paths, pieces
from autosparse.tuning.request import TuneForecast, TuneRequest, TuneResult

_START_S = 60.0
_HEAR_S = 0.2  # a request to stop waits so long at most
_LEAVE_S = 1.0  # for the actor to say that the job has ended, before it is left to itself
_ANOTHER_S = 60.0  # for another node of the same hardware, before the work is given up
_LOOK_S = 1.0  # between two looks for one
_TELL_S = 2.0  # of waiting, before it is told
# A job that ends its node without one row more than before may well be why it ends.
_MOST_LOSSES = 3

_Take = Callable[[Measurement], object]


class _Gone(Exception):
    """The actor, or the node that it was on, is no more."""


class NodeHost(Host):
    """A node of a cluster.

    Args:
        name: the node's address, ``node:HOSTNAME``, or ``hardware:ID`` for any that has it, an idle one
            where there is one.
        address: the cluster, joined unless this process is part of one.

    Raises:
        ConfigError: the cluster has no such node; names those it has. Or a name is that of several
            nodes with different hardware.
        MissingDependency: no cluster answers, or no node of that name measures.
    """

    def __init__(self, name: str, address: str | None) -> None:
        self.name = name
        self._desk: Any = None
        self._profile: HardwareProfile | None = None
        self._id = ""  # of the hardware, once it is known: rows of no other may come
        self._is_joined = not ray.is_initialized()
        if self._is_joined:
            join(address)
        try:
            self._node = self._chosen()
            self._desk = self._desk_on(self._node)
        except BaseException:
            self._leave()
            raise

    @property
    def node(self) -> ClusterHost:
        """The node that measures now."""
        return self._node

    def profile(self, *, keep: bool = True, progress: Progress | None = None) -> HardwareProfile:
        """Measures the limits there."""
        found = HardwareProfile.from_json(self._call("profile", lambda: {"keep": keep}, progress))
        self._profile = found
        return found

    def catalogue(self) -> tuple[Offer, ...]:
        """Asks every kind of device there."""
        return tuple(map(Offer.from_json, self._call("catalogue", dict, None)))

    def measure(
        self,
        request: TuneRequest,
        device: Device,
        database: TuningDatabase,
        *,
        progress: Progress | None = None,
    ) -> TuneResult:
        """Measures there; rows known here are sent along, new ones come back as they are taken."""
        result: TuneResult = self._call(
            "measure",
            lambda: _tuning(request, device, database),
            progress,
            take=lambda row: database.put(row, replace=True),
        )
        return result

    def count(self, request: TuneRequest, device: Device, database: TuningDatabase) -> TuneForecast:
        """Plays it through there, where it is known which kernels there are."""
        profile = self._profile or self.profile(keep=False)

        def asked() -> Mapping[str, Any]:
            return {**_tuning(request, device, database), "profile": profile.to_json()}

        result: TuneForecast = self._call("count", asked, None)
        return result

    def time_whole(
        self, runner: str, request: Mapping[str, Any], *, step: str, limit_s: float, progress: Progress
    ) -> Mapping[str, Any]:
        """Runs the session there, with the rows that are known here."""

        def asked() -> Mapping[str, Any]:
            rows: list[Measurement] = []
            if "database" in request:
                with TuningDatabase(request["database"]) as database:
                    rows = database.rows(hardware_id=self._node.hardware_id)
            return {
                "runner": runner,
                "request": request,
                "files": self._sent(request, progress),
                "step": step,
                "limit_s": limit_s,
                "rows": rows,
            }

        found: Mapping[str, Any] = self._call("time_whole", asked, progress)
        return found

    def close(self) -> None:
        """Ends the actor and what it runs, and leaves the cluster that was joined for it."""
        if self._desk is not None:
            self._dismiss()
            self._leave()

    def _leave(self) -> None:
        if self._is_joined:
            leave()

    # -------------------------------------------------------------------------------------- the node

    def _chosen(self) -> ClusterHost:
        """Gives a node of the name; an idle one, if there is one."""
        named = candidates(self.name)
        found = [host for host in named if not host.why_not]
        ids = sorted({host.hardware_id for host in found})
        if len(ids) > 1:
            raise ConfigError(
                f"host must name nodes of one hardware, but {self.name} is the name of several: "
                f"{', '.join(ids)}; write {HARDWARE}{ids[0]} or another of them"
            )
        if not found:
            check_known(self.name)
            reasons = "; ".join(f"{host.hostname}: {host.why_not}" for host in named)
            raise MissingDependency(
                f"the host {self.name} must be in the cluster, there for measuring, and have this "
                f"autosparse, but {reasons or 'no such node is'}; see the nodes' labels, and what is "
                "installed there"
            )
        self._id = found[0].hardware_id
        return found[0]

    def _desk_on(self, node: ClusterHost) -> Any:
        actor = ray.remote(_PinnedDesk).options(
            num_cpus=0, max_concurrency=8, scheduling_strategy=pinned_to(node.node_id)
        )
        return actor.remote(sys.path)

    def _dismiss(self) -> None:
        with suppress(RayError):
            ray.kill(self._desk)
        self._desk = None

    def _move(self, gone: _Gone, progress: Progress) -> None:
        """Goes on on another node of the same name and hardware; waits for one.

        Raises:
            MissingDependency: none came.
            Stopped: a stop was requested.
        """
        progress.log(f"{gone}; looking for another node of hardware {self._id}")
        with suppress(RayError):  # one that is cut off would go on measuring
            ray.kill(self._desk)
        until_s = time.monotonic() + _ANOTHER_S
        while True:
            for host in candidates(self.name):
                if not host.why_not and host.hardware_id == self._id:
                    self._node, self._desk = host, self._desk_on(host)
                    progress.log(f"going on on the node {host.hostname} ({host.address})")
                    return
            progress.check()
            if time.monotonic() > until_s:
                raise MissingDependency(
                    f"a node of hardware {self._id} must measure, but {gone}, and no other came "
                    f"within {_ANOTHER_S:g} s; what was measured is kept: start one, and give the same "
                    "command again"
                )
            time.sleep(_LOOK_S)

    @contextmanager
    def _alone(self, progress: Progress) -> Iterator[None]:
        """Takes all of a node that is reserved for measuring, so that Ray starts nothing else there.

        Elsewhere work makes way by itself, and others are kept out by the host's measuring lock.
        """
        if self._node.roles != (MEASURE,):
            yield
            return
        taken = {name: self._node.resources.get(name, 0.0) for name in ("CPU", RESOURCE)}
        holder = _Holder.options(  # type: ignore[attr-defined]
            num_cpus=taken.pop("CPU"),
            resources={name: amount for name, amount in taken.items() if amount},
            scheduling_strategy=pinned_to(self._node.node_id),
        ).remote()
        try:
            reference, told_at_s = holder.hold.remote(), time.monotonic() + _TELL_S
            while not ready([reference], 1, _HEAR_S):
                if time.monotonic() > told_at_s:
                    progress.log(f"waiting for the node {self._node.hostname} to be idle")
                    told_at_s = math.inf
                progress.check()
            self._got(reference)
            yield
        finally:
            with suppress(RayError):
                ray.kill(holder)

    # -------------------------------------------------------------------------------------- its work

    def _call(
        self,
        what: What,
        ask: Callable[[], Mapping[str, Any]],
        progress: Progress | None,
        take: _Take = lambda row: None,
    ) -> Any:
        """Has a job done, if need be on one node after the other, and passes on what is told of it.

        Raises:
            AutosparseError: it failed.
            MissingDependency: the node is gone, and no other of its hardware came.
            Stopped: a stop was requested.
        """
        progress = progress or Progress()
        losses = 0

        def taken(row: Measurement) -> None:
            nonlocal losses
            losses = 0
            take(row)

        while True:
            try:
                if what not in ("measure", "time_whole"):
                    return self._done(what, ask(), progress, taken)
                with self._alone(progress):
                    return self._done(what, ask(), progress, taken)
            except _Gone as gone:
                losses += 1
                if losses == _MOST_LOSSES:
                    raise AutosparseError(
                        f"a node must survive what it measures, but {losses} were lost in a row over "
                        f"the same work: {gone}; see the memory of hardware {self._id}"
                    ) from None
                self._move(gone, progress)

    def _done(self, what: What, asked: Mapping[str, Any], progress: Progress, take: _Take) -> Any:
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
        raise retold(ended.words, f"the node {self._node.hostname} must be able to measure")

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
                raise _Gone(f"the node {self._node.hostname} was silent for {limit_s:g} s")
        return self._got(reference)

    def _got(self, reference: Any) -> Any:
        try:
            return ray.get(reference)
        except RayTaskError as error:  # what it runs is ours
            raise retold(
                f"{type(error.cause).__name__}: {error.cause}",
                f"the node {self._node.hostname} must be able to measure",
            ) from None
        except RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise _Gone(f"the node {self._node.hostname} has left the cluster ({lines[0]})") from None

    def _sent(self, request: Mapping[str, Any], progress: Progress) -> dict[str, str]:
        """Sends the files that the node lacks; gives file to where it is there.

        Raises:
            DataError: one of them is too large to be sent.
        """
        where: dict[str, str] = {}
        for file in map(identified, filter(os.path.isfile, sorted(named_paths(request)))):
            found = self._get(self._desk.find.remote(file), _START_S, progress)
            if found is None:
                check_size(file.path, file.size_bytes, self._node.hostname)
                offset = 0
                with progress.step(f"send {file.path}", max(1, file.size_bytes)) as step:
                    for piece in pieces(file):
                        self._get(self._desk.receive.remote(file, piece, offset), _START_S, progress)
                        offset += len(piece)
                        step.advance(len(piece))
                found = self._get(self._desk.find.remote(file), _START_S, progress)
            where[file.path] = found
        return where


def _tuning(request: TuneRequest, device: Device, database: TuningDatabase) -> dict[str, Any]:
    """Gives what a desk is asked for a tuning: the rows of the device among it, as they are by now."""
    rows = database.rows(hardware_id=device.id)
    return {"request": request.to_json(), "device": device.named, "rows": rows}


class _PinnedDesk(Desk):
    """A desk that finds modules where the process finds them that made it."""

    def __init__(self, search_path: list[str]) -> None:
        sys.path += [folder for folder in search_path if folder not in sys.path]
        super().__init__()


@ray.remote(max_restarts=0)
class _Holder:
    """Has what it was given of a node, and does nothing."""

    def hold(self) -> None:
        """Answers once it has it."""
