"""The host that a setting names: the one place where hosts are made."""

from __future__ import annotations

from pathlib import Path

from autosparse.hosts.here import LocalHost
from autosparse.hosts.host import Host
from autosparse.hosts.recorded import RecordedHost
from autosparse.searching.cluster import HERE, RECORDED


def open_host(name: str = HERE, address: str | None = None) -> Host:
    """Gives the host that is measured on; close it when the work has ended.

    Args:
        name: `HERE`; or a node of the cluster, by its address, as ``node:HOSTNAME``, or any of one
            hardware as ``hardware:ID``; or one that is not there, by the file of its profile, as
            ``recorded:FILE``.
        address: the cluster, as for a pool.

    Raises:
        ConfigError: the cluster has no such node; names those it has. Or the file is no profile.
        MissingDependency: no cluster answers.
    """
    if name == HERE:
        return LocalHost()
    if name.startswith(RECORDED):
        return RecordedHost(Path(name.removeprefix(RECORDED)))
    from autosparse.hosts.on_node import NodeHost  # brings Ray

    return NodeHost(name, address)
