"""Who works on jobs, and who is gone.

A daemon that was killed left its jobs behind as running. One of the same boot of the same machine can
see that its process is gone, and takes them at once; others take them when their leases end.
"""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

import psutil
import sqlalchemy as sa

from autosparse.jobs.records import Daemon
from autosparse.jobs.schema import DAEMONS
from autosparse.jobs.store import Store

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PIDS = Path("/proc/self/ns/pid")
# Two readings of the time at which a process began differ by no more than this.
_SAME_S = 0.05


def this_daemon(hardware_id: str) -> Daemon:
    """Describes this process as a daemon, under an id that no other one has."""
    host = socket.gethostname()
    return Daemon(
        id=f"{host[:40]}-{secrets.token_hex(6)}",
        host=host,
        boot_id=_boot_id(),
        pid=os.getpid(),
        pid_started_s=psutil.Process().create_time(),
        hardware_id=hardware_id,
    )


def _boot_id() -> str:
    """Gives what daemons share that see each other's processes: a boot and a space of numbers."""
    try:
        boot, pids = _BOOT.read_text().strip(), os.readlink(_PIDS)
    except OSError:
        return ""
    return f"{boot[:36]} {pids}"[:64]


def give_word(store: Store, daemon: Daemon) -> None:
    """Notes that a daemon lives; the first time, that it begins."""
    with store.writing() as connection:
        now_s = store.now_s(connection)
        mine = sa.update(DAEMONS).where(DAEMONS.c.id == daemon.id)
        if not connection.execute(mine.values(seen_at_s=now_s)).rowcount:
            values = {**daemon.to_json(), "started_at_s": now_s, "seen_at_s": now_s}
            connection.execute(sa.insert(DAEMONS).values(values))


def leave(store: Store, daemon: Daemon) -> None:
    """Notes that a daemon has ended its work."""
    with store.writing() as connection:
        connection.execute(sa.delete(DAEMONS).where(DAEMONS.c.id == daemon.id))


def daemons(store: Store) -> list[Daemon]:
    """Gives all daemons that have not left, the oldest first."""
    with store.reading() as connection:
        query = sa.select(DAEMONS).order_by(DAEMONS.c.started_at_s, DAEMONS.c.id)
        return [Daemon(**row) for row in connection.execute(query).mappings()]


def gone(store: Store) -> list[str]:
    """Gives the ids of daemons whose process on this machine has ended without leaving."""
    boot = _boot_id()
    return [each.id for each in daemons(store) if boot and each.boot_id == boot and not _lives(each)]


def forget(store: Store, ids: list[str]) -> None:
    """Deletes daemons that are gone, once their jobs have been taken."""
    if ids:
        with store.writing() as connection:
            connection.execute(sa.delete(DAEMONS).where(DAEMONS.c.id.in_(ids)))


def _lives(daemon: Daemon) -> bool:
    try:
        process = psutil.Process(daemon.pid)
        is_it = abs(process.create_time() - daemon.pid_started_s) < _SAME_S
        return bool(is_it and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # somebody else's: its number has been given away, or it is a daemon
        return True
