"""Work on Ray: a local cluster that is started and stopped here, or one joined by its address.

Two kinds of work share the cores. ``train`` takes the cores it asks for. ``measure`` takes all of them:
Ray then starts it only when nothing else runs, and nothing else while it runs, so that a measurement
never shares cores with training.

This file and `hosts.on_node` are all that imports Ray.
"""

from __future__ import annotations

import atexit
import faulthandler
import itertools
import logging
import math
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from ray import cloudpickle
from ray._raylet import Config  # type: ignore[attr-defined]
from ray.exceptions import RayError, RayTaskError, TaskCancelledError, WorkerCrashedError

from autosparse.closing import Closing
from autosparse.errors import AutosparseError, MissingDependency, RunError
from autosparse.searching.cluster import check_address
from autosparse.searching.pool import Handle, Outcome, WorkKind, run_call, split
from autosparse.storage.locks import FileLock

_LOG = logging.getLogger(__name__)
_OBJECT_STORE_BYTES = 256 * 2**20
_LOG_LIMIT_BYTES = 2**20
_PREFIX = "asr-"
_ALIVE = "alive.lock"
_SLICE_S = 0.5  # a request to stop waits so long at most
# One for all clusters this process starts: Ray keeps the first that it sees.
_SECRET = secrets.token_hex(32)


def _log_instead(data: Mapping[str, Any], *_: Any, **__: Any) -> None:
    _LOG.debug("%s: %s", data.get("pid"), " ".join(map(str, data.get("lines", ()))))


# Ray prints word of every dead worker to standard output, which belongs to results, and offers no
# switch for it (as of 2.60). Each such death comes back as an outcome anyway.
ray_worker.print_to_stdstream = _log_instead


class Pool(Closing):
    """Runs work on Ray; see `autosparse.searching.pool.AbstractPool` for what every pool offers.

    Closing ends what still runs; a cluster that was started here is stopped with it, also when the
    process ends by an exception or a terminate signal. It is started by the first piece of work, and
    stopped while somebody measures on this machine: its processes, idle as they are, wake up some
    hundred times a second, and take a few hundredths of the time of whatever is measured.

    Args:
        cores: cores of the cluster to start. A joined cluster has its own.
        address: ``host:port`` or ``auto`` to join a cluster, None to start one on this machine, which
            answers only to a secret that lives as long as it does, whatever `RAY_ADDRESS` says.
        log_folder: where worker logs are kept when the pool closes; None keeps none.

    Raises:
        ConfigError: the address is none of a cluster.
        MissingDependency: no cluster answers at the address; `submit` raises it where none can be
            started here.
    """

    def __init__(
        self, *, cores: int, address: str | None = None, log_folder: Path | None = None
    ) -> None:
        self._handles: dict[int, tuple[Handle, Any, float, float | None]] = {}
        self._functions: dict[int, tuple[Callable[..., Any], Any]] = {}
        self._numbers = itertools.count()
        self._log_folder = log_folder
        self._temporary: Path | None = None
        self._set_here: list[str] = []
        self._is_open = True
        self._is_joined = address is not None and not ray.is_initialized()
        self.cores = cores
        atexit.register(self.close)
        if address is not None:
            with self._or_closed():
                if self._is_joined:
                    join(address)
                self.cores = _largest_node()

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        cores: int = 1,
        kind: WorkKind = "train",
        timeout_s: float | None = None,
    ) -> Handle:
        """Hands over a call; see `AbstractPool.submit`.

        The time limit counts from the start of the work, not from its submission, and holds even for
        native code that never returns.
        """
        if not self._is_open:
            raise AutosparseError("work must be submitted to an open pool, but this one is closed")
        handle = Handle(next(self._numbers))
        if not ray.is_initialized():
            with self._or_closed():
                self._start(self.cores)
        cores = min(cores, self.cores)
        work = _remote.options(num_cpus=self.cores if kind == "measure" else cores)
        reference = work.remote(self._shipped(function), _packed(args), cores, timeout_s, sys.path)
        self._handles[handle.number] = (handle, reference, time.monotonic(), timeout_s)
        return handle

    def wait(
        self, handles: Sequence[Handle], timeout_s: float | None = None
    ) -> tuple[list[Handle], list[Handle]]:
        """Waits until at least one of the handles has its outcome, or the time is up."""
        pending = [self._handles[h.number] for h in handles if h.outcome is None]
        if pending and len(pending) == len(handles):
            references = [reference for _, reference, _, _ in pending]
            known = ready(references, 1, timeout_s)
            for handle, reference, submitted, limit in pending:
                if reference in known:
                    handle.outcome = _outcome(reference, submitted, limit)
                    del self._handles[handle.number]
        return split(handles)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Waits until all work has ended, so that the block may measure on this machine.

        Outcomes are kept for a later `wait`. The caller submits nothing meanwhile. A cluster that was
        started here is stopped, and started again by the next piece of work.
        """
        self.wait_for_all()
        if self._temporary is not None:
            self._stop()
        yield

    def wait_for_all(self) -> None:
        """Waits until all work has its outcome."""
        references = [reference for _, reference, _, _ in self._handles.values()]
        if references:
            ready(references, len(references), None)
        for handle, reference, submitted, limit in self._handles.values():
            handle.outcome = _outcome(reference, submitted, limit)
        self._handles.clear()

    def close(self) -> None:
        """Ends what still runs, stops a cluster that was started here. Closing twice is fine."""
        if not self._is_open:
            return
        self._is_open = False
        atexit.unregister(self.close)
        for handle, reference, _, _ in self._handles.values():
            handle.outcome = Outcome(status="cancelled", reason="the pool was closed")
            if ray.is_initialized():
                ray.cancel(reference, force=True)
        self._handles.clear()
        if self._is_joined or self._temporary is not None:
            self._stop()

    def _stop(self) -> None:
        """Leaves the cluster; one that was started here ends."""
        self._functions.clear()
        if self._temporary is not None:
            _grant_no_grace()
        ray.shutdown()
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            self._keep_logs(temporary)
            self._clean(temporary)

    @contextmanager
    def _or_closed(self) -> Iterator[None]:
        """Leaves nothing half started, whatever happens meanwhile, a terminate signal included."""
        try:
            with _own_terminate_handler():
                yield
        except BaseException:
            self.close()
            raise

    def _start(self, cores: int) -> None:
        _sweep()
        self._temporary = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_short_folder()))
        self._alive = FileLock(self._temporary / _ALIVE)
        self._set_here = _require_token()
        for last in (False, True):  # Ray gives itself half a minute, which a busy machine may exceed
            try:
                ray.init(
                    address="local",  # whatever RAY_ADDRESS says
                    num_cpus=cores,
                    num_gpus=0,
                    include_dashboard=False,
                    log_to_driver=False,
                    configure_logging=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    _temp_dir=str(self._temporary),
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

    def _clean(self, temporary: Path) -> None:
        for name in self._set_here:
            os.environ.pop(name, None)
        for _ in range(30):  # the last of Ray's processes may still be writing their farewell
            shutil.rmtree(temporary, ignore_errors=True)
            if not temporary.exists():
                break
            time.sleep(0.1)
        self._alive.close()

    def _shipped(self, function: Callable[..., Any]) -> Any:
        """Puts a function into the object store once, however often it is submitted."""
        if id(function) not in self._functions:
            self._functions[id(function)] = (function, ray.put(_packed(function)))
        return self._functions[id(function)][1]

    def _keep_logs(self, temporary: Path) -> None:
        if self._log_folder is None:
            return
        self._log_folder.mkdir(parents=True, exist_ok=True)
        for path in temporary.glob("session_2*/logs/worker-*"):
            if 0 < path.stat().st_size <= _LOG_LIMIT_BYTES:
                shutil.copy(path, self._log_folder / path.name)


@contextmanager
def _own_terminate_handler() -> Iterator[None]:
    """Keeps this process's handler of terminate signals, which Ray replaces while it starts.

    A process without one is given Ray's, which exits and so closes the pool; set anew, without the
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
    Config.initialize("")  # Ray has read its environment while it was imported; it reads it again
    return set_here


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


def join(address: str | None) -> None:
    """Joins a cluster.

    Raises:
        ConfigError: the address is none of a cluster.
        MissingDependency: no cluster answers there.
    """
    check_address(address)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except Exception as error:  # as above
        raise MissingDependency(
            f"a Ray cluster must answer at {address}, but got: {error}; start one by `ray start --head`"
        ) from error


def _largest_node() -> int:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node["Resources"].get("CPU", 0) for node in nodes if node["Alive"]]
    return max(1, int(max(alive, default=1)))


@ray.remote(max_retries=0)
def _remote(
    function: bytes, args: bytes, cores: int, timeout_s: float | None, search_path: list[str]
) -> Outcome:
    sys.path += [folder for folder in search_path if folder not in sys.path]
    if timeout_s is not None:  # a thread below Python's own: it fires whoever holds the interpreter
        faulthandler.dump_traceback_later(timeout_s, exit=True)
    try:
        return run_call(_unpack_and_call, (function, args), cores)
    finally:
        faulthandler.cancel_dump_traceback_later()


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


def _packed(value: Any) -> bytes:
    data: bytes = cloudpickle.dumps(value)  # type: ignore[no-untyped-call]
    return data


def _unpack_and_call(function: bytes, args: bytes) -> Any:
    """Unpacks here and not before, so that libraries load with their thread counts already set."""
    return cloudpickle.loads(function)(*cloudpickle.loads(args))


def _outcome(reference: Any, submitted: float, limit: float | None) -> Outcome:
    seconds = time.monotonic() - submitted
    try:
        outcome: Outcome = ray.get(reference)
        return outcome
    except TaskCancelledError:
        return Outcome(status="cancelled", reason="it was cancelled", seconds=seconds)
    except RayTaskError as error:  # what the work returned could not be sent
        return Outcome(status="error", reason=str(error.cause), trace=str(error), seconds=seconds)
    except WorkerCrashedError:
        if limit is not None and seconds >= limit:
            reason = f"it took longer than its limit of {limit:g} s and was killed"
            return Outcome(status="timeout", reason=reason, seconds=seconds)
        return Outcome(status="died", reason="its process died", seconds=seconds)
    except RayError as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return Outcome(status="died", reason=reason, seconds=seconds)
