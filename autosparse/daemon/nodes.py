"""Which hardware the cluster that jobs join can measure on, asked beside the daemon now and then.

To ask, a cluster is joined, which takes seconds and threads of Ray's. So a process of its own does it,
on the daemon's processors; jobs for other hardware wait until it has been seen.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autosparse.errors import AutosparseError, UsageError
from autosparse.storage.serial import Record

log = logging.getLogger(__name__)

KEPT_S = 300.0
_LONGEST_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node(Record):
    """A node, as `autosparse hosts` tells of it.

    Attributes:
        hostname: its name.
        address: its address in the network.
        hardware_id: what it is; empty where it did not say.
        cpu: the vendor's name of its processor.
        roles: what it is for.
        is_alive: whether it is in the cluster.
        is_busy: whether somebody measured there when it was asked.
    """

    hostname: str
    address: str
    hardware_id: str = ""
    cpu: str = ""
    roles: tuple[str, ...] = ()
    is_alive: bool = True
    is_busy: bool = False


class ClusterNodes:
    """The nodes of a cluster, as far as they are known; never waited for.

    Args:
        address: of the cluster; None has no nodes.
        kept_s: how long an answer counts as known.
    """

    def __init__(self, address: str | None, *, kept_s: float = KEPT_S) -> None:
        self._address = address
        self._kept_s = kept_s
        self._asked_s = float("-inf")
        self._thread: threading.Thread | None = None
        self.nodes: tuple[Node, ...] = ()
        self.problem = ""

    def look(self) -> None:
        """Has the cluster asked, if that was not done lately."""
        is_asking = self._thread is not None and self._thread.is_alive()
        if self._address is None or is_asking or time.monotonic() - self._asked_s < self._kept_s:
            return
        self._asked_s = time.monotonic()
        self._thread = threading.Thread(target=self._ask, name="cluster nodes", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Waits for an answer that is under way."""
        if self._thread is not None:
            self._thread.join()

    def hardware_ids(self) -> tuple[str, ...]:
        """Gives the hardware that jobs can be measured on there."""
        able = (node for node in self.nodes if node.is_alive and "measure" in node.roles)
        return tuple(dict.fromkeys(node.hardware_id for node in able if node.hardware_id))

    def _ask(self) -> None:
        try:
            self.nodes, self.problem = _asked(str(self._address)), ""
        except (AutosparseError, OSError, ValueError, subprocess.SubprocessError) as error:
            self.problem = str(error)
            log.warning("the nodes of the cluster are not known: %s", error)


def _asked(address: str) -> tuple[Node, ...]:
    command = [sys.executable, "-m", "autosparse", "hosts", "--address", address, "--json"]
    made = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LONGEST_S,
        check=False,
    )
    if made.returncode:
        raise AutosparseError(made.stderr.strip()[-500:] or f"exit code {made.returncode}")
    found: Sequence[dict[str, Any]] = json.loads(made.stdout)
    try:
        return tuple(Node.from_json({key: each[key] for key in _KEYS if key in each}) for each in found)
    except (UsageError, TypeError) as error:
        raise AutosparseError(f"`autosparse hosts` gave something else: {error}") from None


_KEYS = tuple(Node.__dataclass_fields__)
