"""Nodes of a Ray cluster of the tests' own, started as on other machines: by `ray start`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

TOKEN = "tests-own-token-0123456789abcdef0123456789abcdef"
_PATIENCE_S = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@dataclass
class Raylet:
    """One node: a process that `ray start` stays in, and all that it started."""

    process: subprocess.Popen[bytes]
    log: Path

    def everything(self) -> list[psutil.Process]:
        """Gives its processes."""
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """Ends the node as a power failure would."""
        found = self.everything()
        for process in found:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        psutil.wait_procs(found, timeout=10)
        self.process.wait()


@dataclass
class Raylets:
    """A cluster: its head, and nodes that come and go."""

    folder: Path  # its name is short: sockets lie below it
    environ: Mapping[str, str] = field(default_factory=dict)
    nodes: list[Raylet] = field(default_factory=list)
    port: int = field(default_factory=free_port)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def head(self, *flags: str, environ: Mapping[str, str]) -> Raylet:
        asked = (
            "--head",
            f"--port={self.port}",
            "--include-dashboard=false",
            f"--temp-dir={self.folder}",
        )
        return self._start((*asked, *flags), environ, ())

    def node(self, *flags: str, environ: Mapping[str, str], before: Sequence[str] = ()) -> Raylet:
        """Adds a node; `before` are words that its command begins with."""
        return self._start((f"--address={self.address}", *flags), environ, before)

    def _start(self, flags: Sequence[str], environ: Mapping[str, str], before: Sequence[str]) -> Raylet:
        for _ in range(2):  # Ray gives itself half a minute, which a busy machine may exceed
            node = self._started(flags, environ, before)
            if _is_up(node):
                return node
            node.kill()
        raise AssertionError(node.log.read_text(errors="replace"))

    def _started(
        self, flags: Sequence[str], environ: Mapping[str, str], before: Sequence[str]
    ) -> Raylet:
        ray = str(Path(sys.executable).parent / "ray")
        log = self.folder.with_name(f"{self.folder.name}-{len(self.nodes)}.log")
        usual = ("--block", "--disable-usage-stats", "--object-store-memory=100000000")
        silent = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*before, ray, "start", *usual, *flags],
                env={**os.environ, **silent, **self.environ, **environ},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.nodes.append(Raylet(process, log))
        return self.nodes[-1]

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
            node.log.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_up(node: Raylet) -> bool:
    until = time.monotonic() + _PATIENCE_S
    while node.process.poll() is None and time.monotonic() < until:
        if "Ray runtime started" in node.log.read_text(errors="replace"):
            return True
        time.sleep(0.1)
    return False
