"""The nodes of a Ray cluster as hosts: which hardware each is, what it is for, and whether it is idle.

A node says which hardware it is by a label that it was started with. One without is asked, by a task
that is pinned to it, and what it says is remembered as long as this process lives.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from autosparse import hardware
from autosparse.errors import ConfigError
from autosparse.local_ray import ready
from autosparse.measuring.lock import who_measures
from autosparse.node_labels import HARDWARE_LABEL, MEASURE, roles_of
from autosparse.searching.cluster import HARDWARE, NODE
from autosparse.searching.joining import join, leave
from autosparse.storage.serial import Record
from autosparse.version import __version__

_ANSWER_S = 30.0  # a node's first task starts a process there


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterHost(Record):
    """A node of a cluster.

    Attributes:
        node_id: Ray's own name of it; another one each time it is started.
        address: its address in the network.
        hostname: its name.
        hardware_id: as `autosparse profile` tells there; empty where it is not known.
        cpu: the vendor's name of its processor; empty where it is not known.
        cores: that measurements may use there; 0 where they are not known.
        gpus: names of its GPUs.
        labels: that it was started with, Ray's own among them.
        resources: that Ray gives out there, name to amount.
        is_alive: whether it is in the cluster.
        is_busy: whether somebody measures there just now.
        busy_with: who, in words.
        roles: what it is for: ``measure``, ``train``, or both.
        version: of autosparse there; empty where it is not known.
        why_unknown: why it did not say what it is; empty if it did.
    """

    node_id: str
    address: str
    hostname: str
    hardware_id: str = ""
    cpu: str = ""
    cores: int = 0
    gpus: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    is_alive: bool = True
    is_busy: bool = False
    busy_with: str = ""
    roles: tuple[str, ...] = ()
    version: str = ""
    why_unknown: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What a setting may call it by."""
        by_hardware = (f"{HARDWARE}{self.hardware_id}",) if self.hardware_id else ()
        return (self.address, f"{NODE}{self.hostname}", *by_hardware)

    @property
    def measures(self) -> bool:
        """Whether it is there for measuring."""
        return self.is_alive and MEASURE in self.roles

    @property
    def why_not(self) -> str:
        """Why this version of autosparse cannot measure there; empty if it can."""
        if self.why_unknown or self.version == __version__:
            return self.why_unknown
        return f"it has autosparse {self.version}, and here is {__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said(Record):
    """What a node says of itself."""

    hardware_id: str
    cpu: str
    cores: int
    gpus: tuple[str, ...]
    busy_with: str
    version: str


# Node id to what it said, for when it is silent or dead: hardware does not change under a running node.
_known: dict[str, Said] = {}


def cluster_hosts(address: str | None) -> tuple[ClusterHost, ...]:
    """Gives the nodes of a cluster, dead ones that it remembers among them.

    Args:
        address: the cluster, joined for the question unless this process is part of one.

    Raises:
        ConfigError: the address is none of a cluster, it asks for another token, or a node has an
            unknown role.
        MissingDependency: no cluster answers.
    """
    is_joined = not ray.is_initialized()
    if is_joined:
        join(address)
    try:
        return asked(told_hosts())
    finally:
        if is_joined:
            leave()


def told_hosts() -> tuple[ClusterHost, ...]:
    """Gives the nodes of the cluster that this process is part of, by what is known of them."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return tuple(_of(node) for node in nodes)


def asked(hosts: Iterable[ClusterHost]) -> tuple[ClusterHost, ...]:
    """Asks every living node what it is and who measures there, all at once."""
    hosts = tuple(hosts)
    questions = {
        host.node_id: _describe.options(scheduling_strategy=pinned_to(host.node_id)).remote(sys.path)
        for host in hosts
        if host.is_alive
    }
    ready(list(questions.values()), len(questions), _ANSWER_S)
    return tuple(
        _with_answer(host, questions[host.node_id]) if host.node_id in questions else host
        for host in hosts
    )


def candidates(name: str) -> tuple[ClusterHost, ...]:
    """Gives the living nodes that a setting may mean, asked; those that are idle first.

    Args:
        name: a node's address, ``node:HOSTNAME``, or ``hardware:ID`` of nodes that measure.

    Raises:
        ConfigError: the cluster has no such node; names those it has.
    """
    hosts = [host for host in told_hosts() if host.is_alive]
    if not name.startswith(HARDWARE):
        found = asked(host for host in hosts if name in host.names)
    else:
        hardware_id = name.removeprefix(HARDWARE)
        hosts = list(asked(host for host in hosts if host.hardware_id in ("", hardware_id)))
        found = tuple(host for host in hosts if host.measures and host.hardware_id == hardware_id)
    return tuple(sorted(found, key=lambda host: (host.is_busy, host.node_id)))


def check_known(name: str) -> None:
    """Refuses a name that no node of the cluster has, with those there are.

    Raises:
        ConfigError: there is none of that name, living or dead.
    """
    hosts = asked(told_hosts())
    known = dict.fromkeys(each for host in hosts for each in host.names)
    if name in known:
        return
    silent = [f"{host.hostname}: {host.why_unknown}" for host in hosts if host.why_unknown]
    raise ConfigError(
        f"host must be here or a node of the cluster, but got {name!r}; its nodes: {', '.join(known)}"
        + (f"; of unknown hardware: {'; '.join(silent)}" if silent else "")
    )


def pinned_to(node_id: str) -> NodeAffinitySchedulingStrategy:
    """Gives what keeps a task or an actor on one node."""
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _of(node: Mapping[str, Any]) -> ClusterHost:
    labels = dict(node.get("Labels", {}))
    host = ClusterHost(
        node_id=node["NodeID"],
        address=node["NodeManagerAddress"],
        hostname=node["NodeManagerHostname"],
        hardware_id=labels.get(HARDWARE_LABEL, ""),
        labels=labels,
        resources=dict(node.get("Resources", {})),
        is_alive=node["Alive"],
        roles=roles_of(node) if node["Alive"] else (),
    )
    said = _known.get(host.node_id)
    return host if said is None else _taking(host, said)


def _taking(host: ClusterHost, said: Said) -> ClusterHost:
    """Adds what a node said of itself; that goes before its label, which somebody may have mistyped."""
    return replace(
        host,
        hardware_id=said.hardware_id,
        cpu=said.cpu,
        cores=said.cores,
        gpus=tuple(said.gpus),
        version=said.version,
    )


def _with_answer(host: ClusterHost, reference: Any) -> ClusterHost:
    if not ready([reference], 1, 0.0):
        ray.cancel(reference, force=True)
        return replace(host, why_unknown=f"it was silent for {_ANSWER_S:g} s")
    try:
        said = Said.from_json(ray.get(reference))
    except RayError as error:
        lines = str(getattr(error, "cause", None) or error).strip().splitlines()
        return replace(host, why_unknown=lines[-1] if lines else type(error).__name__)
    _known[host.node_id] = said
    return replace(_taking(host, said), is_busy=bool(said.busy_with), busy_with=said.busy_with)


@ray.remote(num_cpus=0, max_retries=0)
def _describe(search_path: list[str]) -> dict[str, Any]:
    """Says what the node is that this runs on."""
    sys.path += [folder for folder in search_path if folder not in sys.path]
    found, holder = hardware.describe(), who_measures()
    return Said(
        hardware_id=found.hardware_id,
        cpu=found.cpu.model,
        cores=found.cpu.cores_usable,
        gpus=tuple(gpu.name for gpu in found.gpus),
        busy_with="" if holder is None else str(holder),
        version=__version__,
    ).to_json()
