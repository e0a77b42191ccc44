"""A Ray of this process's own on this machine: started, waited for, and stopped without a trace.

It answers only to a secret that lives as long as it does, and ends with this process in any case.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

# Read by Ray while it is imported and started: no usage reports, and no word on idle accelerators.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import psutil
import ray
import ray._private.worker as ray_worker
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from autosparse.closing import Closing
from autosparse.errors import MissingDependency, RunError
from autosparse.storage.locks import FileLock

_LOG = logging.getLogger(__name__)
_OBJECT_STORE_BYTES = 256 * 2**20
_LOG_LIMIT_BYTES = 2**20
_PREFIX = "asr-"
_ALIVE = "alive.lock"
_SLICE_S = 0.5  # a request to stop waits so long at most
_SECRET = secrets.token_hex(32)


def _log_instead(data: Mapping[str, Any], *_: Any, **__: Any) -> None:
    _LOG.debug("%s: %s", data.get("pid"), " ".join(map(str, data.get("lines", ()))))


# Ray prints word of every dead worker to standard output, which belongs to results, and offers no
# switch for it (as of 2.60). Each such death comes back as an outcome anyway.
ray_worker.print_to_stdstream = _log_instead


class LocalRay(Closing):
    """A cluster of this machine alone, whatever `RAY_ADDRESS` says; `ray` is connected to it.

    Args:
        cores: that its work may take.
        gpus: likewise.
        log_folder: where worker logs are kept when it closes; None keeps none.

    Raises:
        MissingDependency: Ray cannot be started here.
    """

    def __init__(self, *, cores: int, gpus: int = 0, log_folder: Path | None = None) -> None:
        self._log_folder = log_folder
        self._set_here: list[str] = []
        self._is_open = True
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_short_folder()))
        self._alive = FileLock(self.folder / _ALIVE)
        try:
            with own_terminate_handler():
                self._set_here = _require_token()
                self._start(cores, gpus)
        except BaseException:
            self.close()
            raise

    def _start(self, cores: int, gpus: int) -> None:
        for last in (False, True):  # Ray gives itself half a minute, which a busy machine may exceed
            try:
                ray.init(
                    address="local",  # whatever RAY_ADDRESS says
                    num_cpus=cores,
                    num_gpus=gpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    configure_logging=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    _temp_dir=str(self.folder),
                )
                return
            except Exception as error:  # Ray raises many kinds here; all mean that there is no Ray
                if last:
                    raise MissingDependency(
                        f"Ray must start on this machine, but got: {error}; see that memory and /tmp "
                        "have room"
                    ) from error
                _LOG.info("starting Ray once more: %s", error)
                ray.shutdown()

    def close(self) -> None:
        """Kills whatever runs on it and removes its files. Closing twice is fine."""
        if not self._is_open:
            return
        self._is_open = False
        _grant_no_grace()
        ray.shutdown()
        self._keep_logs()
        for name in self._set_here:
            os.environ.pop(name, None)
        reread_environment()
        for _ in range(30):  # the last of Ray's processes may still be writing their farewell
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                break
            time.sleep(0.1)
        self._alive.close()

    def _keep_logs(self) -> None:
        if self._log_folder is None:
            return
        self._log_folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("session_2*/logs/worker-*"):
            if 0 < path.stat().st_size <= _LOG_LIMIT_BYTES:
                shutil.copy(path, self._log_folder / path.name)


@contextmanager
def own_terminate_handler() -> Iterator[None]:
    """Keeps this process's handler of terminate signals, which Ray replaces while it starts.

    A process without one is given Ray's, which exits and so closes what is open; set anew, without the
    stack trace that Ray's native part would print first.
    """
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        after = before if callable(before) else signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, after)


def _require_token() -> list[str]:
    """Makes the cluster to be started refuse whoever lacks this process's secret.

    Its ports are open to the network, and whoever reaches them could run code here otherwise.

    Returns:
        The environment variables that were set for it.
    """
    wanted = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _SECRET}
    set_here = [name for name in wanted if name not in os.environ]
    os.environ.update({name: wanted[name] for name in set_here})
    reread_environment()
    return set_here


def reread_environment() -> None:
    """Lets Ray read its environment again, which it has read while it was imported, and any token."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _grant_no_grace() -> None:
    """Lets the processes of the cluster started here be killed: nothing that they hold is of use.

    Ray asks one after the other to terminate, and waits up to a second for each of them.
    """
    node = ray_worker._global_node
    if node is None:
        return
    kill = node.kill_all_processes

    def at_once(**_: Any) -> None:
        started = [info.process.pid for infos in node.all_processes.values() for info in infos]
        workers = [child for pid in started for child in _children(pid)]
        kill(check_alive=False, allow_graceful=False)
        for worker in workers:
            with suppress(psutil.Error):
                worker.kill()

    node.kill_all_processes = at_once


def _children(pid: int) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
        return found
    except psutil.Error:  # it has ended
        return []


def _short_folder() -> str:
    """Gives a folder for temporary files with a short name.

    Ray puts sockets some 75 characters below it, and the names of sockets must stay within 107.
    """
    usual = tempfile.gettempdir()
    return usual if len(usual) <= 24 else "/tmp"


def _sweep() -> None:
    """Removes what clusters of killed processes left behind; a living one holds its lock."""
    for lock in Path(_short_folder()).glob(f"{_PREFIX}*/{_ALIVE}"):
        try:
            with FileLock(lock):
                shutil.rmtree(lock.parent, ignore_errors=True)
        except RunError:
            continue  # alive, or another user's


def ready(references: list[Any], count: int, timeout_s: float | None) -> list[Any]:
    """Waits until so many references are ready, or the time is up; gives those that are.

    Off this thread: where a signal's handler raises while Ray waits, Ray raises a plain interrupt
    instead, and a request to stop could not be told from one to abort.
    """
    until = math.inf if timeout_s is None else time.monotonic() + timeout_s
    while True:
        slice_s = max(0.0, min(_SLICE_S, until - time.monotonic()))
        answer: SimpleQueue[list[Any] | Exception] = SimpleQueue()
        waiting = threading.Thread(target=_wait_apart, args=(references, count, slice_s, answer))
        waiting.start()
        try:
            found = answer.get()
        finally:
            waiting.join()
        if isinstance(found, Exception):
            raise found
        if len(found) >= count or time.monotonic() >= until:
            return found


def _wait_apart(
    references: list[Any], count: int, slice_s: float, answer: SimpleQueue[list[Any] | Exception]
) -> None:
    try:
        answer.put(ray.wait(references, num_returns=count, timeout=slice_s)[0])
    except Exception as error:  # for the thread that asked
        answer.put(error)
