"""A PostgreSQL server of the tests' own, from Debian's packages: it ends with the session."""

from __future__ import annotations

import functools
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_USER = "postgres"  # a server refuses to run as root


def why_none() -> str:
    """Says why no server can be started here; empty if one can."""
    if programs() is None:
        return "PostgreSQL is not installed here (on Debian: apt install postgresql)"
    if os.geteuid() == 0 and _account() is None:
        return f"a PostgreSQL server does not run as root, and there is no user {_USER}"
    return ""


@functools.cache
def programs() -> Path | None:
    """Gives the folder of the newest server's programs; None where none is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    path = shutil.which("postgres")
    return None if path is None else Path(path).parent


def _account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(_USER)
    except KeyError:
        return None


@contextmanager
def server() -> Iterator[str]:
    """Runs a server; gives the URL of its database ``postgres``."""
    folder = Path(tempfile.mkdtemp(prefix="asr-pg-"))  # a socket's path must be short
    who = _USER if os.geteuid() == 0 else None
    if who:
        shutil.chown(folder, who)
    bin_ = programs()
    assert bin_ is not None
    where = str(folder / "data")
    subprocess.run(
        [str(bin_ / "initdb"), "-D", where, "-A", "trust", "-U", "tester", "--no-sync", "-E", "UTF8"],
        user=who,
        check=True,
        capture_output=True,
        cwd=folder,
    )
    port = _free_port()
    process = subprocess.Popen(
        [
            *(str(bin_ / "postgres"), "-D", where, "-k", str(folder), "-p", str(port)),
            *("-h", "127.0.0.1", "-c", "fsync=off", "-c", "max_connections=200"),
        ],
        user=who,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )
    try:
        url = f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"
        _await(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def new_database(url: str) -> str:
    """Makes an empty database on a server; gives its URL."""
    import psycopg

    name = f"t{secrets.token_hex(6)}"
    with psycopg.connect(_plain(url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload,unused-ignore]
    return f"{url.rpartition('/')[0]}/{name}"


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg", "postgresql")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    import psycopg

    until_s = time.monotonic() + 60
    while time.monotonic() < until_s and process.poll() is None:
        try:
            psycopg.connect(_plain(url), connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise AssertionError("the server did not answer within a minute")
