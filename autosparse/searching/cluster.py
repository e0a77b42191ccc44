"""Whether a Ray cluster can be joined: told at once, without Ray, before any work is done for it.

A search starts a Ray of its own unless `--address` names a cluster. `RAY_ADDRESS`, which other programs
set for themselves, counts only for the address ``auto``.
"""

from __future__ import annotations

import os
import re
import socket

import psutil

from autosparse.errors import ConfigError, MissingDependency

VARIABLE = "RAY_ADDRESS"
HERE = "here"
NODE, HARDWARE, RECORDED = "node:", "hardware:", "recorded:"
_NAME = re.compile(r"(node:)?[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?")
_HARDWARE_ID = re.compile(r"hardware:[0-9a-f]{12}")
_PATIENCE_S = 2.0
_SERVER = "gcs_server"
_EXAMPLE = "write HOST:6379, or auto"


def check_address(address: str | None) -> None:
    """Refuses an address at which no cluster answers.

    Args:
        address: ``host:port``; ``auto`` for the cluster that `RAY_ADDRESS` names, or that runs on this
            machine; None for none.

    Raises:
        ConfigError: it is no address of a cluster.
        MissingDependency: nobody answers there, or no cluster runs here.
    """
    named = os.environ.get(VARIABLE, "") if address == "auto" else ""
    if named and named != "auto":
        _check_answers(named, VARIABLE)
    elif address == "auto":
        _check_runs_here()
    elif address is not None:
        _check_answers(address, "address")


def check_host(host: str, address: str | None) -> None:
    """Refuses a host that cannot be one; whether the cluster has such a node is told when it is joined.

    Args:
        host: ``here``; or a node of the cluster, by its address, as ``node:HOSTNAME``, or any of one
            hardware as ``hardware:ID``; or ``recorded:FILE``, the profile of one that is not there.
        address: the cluster; None for none.

    Raises:
        ConfigError: it is no name of a node, no cluster is named, or there is no such file.
    """
    if host == HERE:
        return
    if host.startswith(RECORDED):
        _check_recorded(host.removeprefix(RECORDED))
        return
    if host.startswith(HARDWARE) and not _HARDWARE_ID.fullmatch(host):
        raise ConfigError(
            f"host must be hardware: and an id of 12 hexadecimal digits, but got {host!r}; see a "
            "node's by `autosparse profile` there"
        )
    if not _NAME.fullmatch(host):
        raise ConfigError(
            f"host must be here, a node's address, node:HOSTNAME or hardware:ID, but got {host!r}; "
            "see the nodes of a cluster by `ray list nodes`"
        )
    if address is None:
        raise ConfigError(
            f"host must be here where no cluster is joined, but got {host!r}; add --address "
            "HOST:6379, or leave --host out"
        )


def _check_recorded(file: str) -> None:
    if not os.path.isfile(file):
        raise ConfigError(
            f"a recorded host must be the file of a profile, but got {file!r}, which is not there; "
            "write one on that host by `autosparse profile --json`"
        )


def _check_answers(address: str, name: str) -> None:
    host, port = _parts(address, name)
    try:
        socket.create_connection((host, port), _PATIENCE_S).close()
    except (OSError, UnicodeError) as error:  # the latter of what no host's name can be
        why = getattr(error, "strerror", None) or error
        raise MissingDependency(
            f"{name} must name a Ray cluster that answers, but got {address!r}: {why}; start "
            "one by `ray start --head`, or leave --address out"
        ) from None


def _parts(address: str, name: str) -> tuple[str, int]:
    scheme, separator, _ = address.partition("://")
    if separator:
        what = "Ray's dashboard" if scheme.startswith("http") else f"another protocol ({scheme})"
        raise ConfigError(
            f"{name} must be host:port of a Ray cluster, but got {address!r}: {what}; {_EXAMPLE}"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigError(f"{name} must be host:port of a Ray cluster, but got {address!r}; {_EXAMPLE}")
    return host.strip("[]"), int(port)


def _check_runs_here() -> None:
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == _SERVER:
            return
    raise MissingDependency(
        "address auto needs a Ray cluster that runs on this machine, but there is none and RAY_ADDRESS "
        "is not set; start one by `ray start --head`, or leave --address out"
    )
