"""Work on Ray: a local cluster that is started and stopped here, or one joined by its address.

Two kinds of work share the cores. ``train`` takes the cores it asks for. ``measure`` takes all of them:
Ray then starts it only when nothing else runs, and nothing else while it runs, so that a measurement
never shares cores with training. On a joined cluster, work goes to the nodes that train.

This file, `joining`, `local_ray`, `hosts` and `train.parallel` are all that imports Ray.
"""

from __future__ import annotations

import atexit
import faulthandler
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autosparse.local_ray import LocalRay, own_terminate_handler, ready  # sets what Ray reads first

# isort: split
import ray
from ray import cloudpickle
from ray.exceptions import (
    NodeDiedError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from autosparse.closing import Closing
from autosparse.errors import AutosparseError
from autosparse.node_labels import training_nodes, training_selector
from autosparse.searching.joining import join, leave
from autosparse.searching.lending import Lender, Loan, borrowing
from autosparse.searching.pool import Handle, Outcome, WorkKind, run_call, split
from autosparse.storage.sending import named_folders, named_paths, renamed

# Work that is lost with its node begins anew; a cluster takes its time to notice that a node is gone.
_MOST_LOSSES = 30
_LOST_S = 1.0


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
        self._flights: dict[int, _Flight] = {}
        self._functions: dict[int, tuple[Callable[..., Any], Any]] = {}
        self._numbers = itertools.count()
        self._log_folder = log_folder
        self._own: LocalRay | None = None
        self._lender: Any = None
        self._announced: set[str] = set()
        self._is_open = True
        self._is_joined = address is not None and not ray.is_initialized()
        # Where all nodes are reserved for measuring, they train as well: somebody has to.
        self._has_trainers = False
        self.cores = cores
        atexit.register(self.close)
        if address is not None:
            with self._or_closed():
                if self._is_joined:
                    join(address)
                self._has_trainers = bool(training_nodes(_nodes()))
                self.cores = _largest(training_nodes(_nodes()) or _nodes())

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
                self._own = LocalRay(cores=self.cores, log_folder=self._log_folder)
        flight = _Flight(handle, function, args, min(cores, self.cores), kind, timeout_s)
        self._start(flight)
        self._flights[handle.number] = flight
        return handle

    def _start(self, flight: _Flight) -> None:
        """Has a piece of work begun, whether for the first time or after a node was lost."""
        work = _remote.options(
            num_cpus=self.cores if flight.kind == "measure" else flight.cores,
            label_selector=training_selector(_nodes()) if self._has_trainers else None,
        )
        call = (self._shipped(flight.function), _packed(flight.args))
        loan = self._loan(flight.function, flight.args)
        flight.begun_s = time.monotonic()
        flight.reference = work.remote(*call, flight.cores, flight.timeout_s, sys.path, loan)

    def wait(
        self, handles: Sequence[Handle], timeout_s: float | None = None
    ) -> tuple[list[Handle], list[Handle]]:
        """Waits until at least one of the handles has its outcome, or the time is up."""
        pending = [self._flights[h.number] for h in handles if h.outcome is None]
        if pending and len(pending) == len(handles):
            known = ready([flight.reference for flight in pending], 1, timeout_s)
            self._land([flight for flight in pending if flight.reference in known])
        return split(handles)

    def _land(self, flights: Sequence[_Flight]) -> None:
        """Takes the outcomes of what has ended; what was lost with its node is begun anew."""
        lost = []
        for flight in flights:
            outcome = flight.outcome()
            if outcome is None and flight.losses < _MOST_LOSSES:
                lost.append(flight)
                continue
            flight.handle.outcome = outcome or Outcome(
                status="died", reason=f"the node that it ran on was lost, {flight.losses} times"
            )
            del self._flights[flight.handle.number]
        if lost:
            time.sleep(_LOST_S)  # the cluster may still take the node for a living one
        for flight in lost:
            flight.losses += 1
            self._start(flight)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Waits until all work has ended, so that the block may measure on this machine.

        Outcomes are kept for a later `wait`. The caller submits nothing meanwhile. A cluster that was
        started here is stopped, and started again by the next piece of work.
        """
        self.wait_for_all()
        if self._own is not None:
            self._stop()
        yield

    def wait_for_all(self) -> None:
        """Waits until all work has its outcome."""
        while self._flights:
            flights = list(self._flights.values())
            ready([flight.reference for flight in flights], len(flights), None)
            self._land(flights)

    def close(self) -> None:
        """Ends what still runs, stops a cluster that was started here. Closing twice is fine."""
        if not self._is_open:
            return
        self._is_open = False
        atexit.unregister(self.close)
        for flight in self._flights.values():
            flight.handle.outcome = Outcome(status="cancelled", reason="the pool was closed")
            if ray.is_initialized():
                ray.cancel(flight.reference, force=True)
        self._flights.clear()
        if self._lender is not None and ray.is_initialized():
            ray.kill(self._lender)
        self._lender = None
        if self._is_joined or self._own is not None:
            self._stop()

    def _stop(self) -> None:
        """Leaves the cluster; one that was started here ends."""
        self._functions.clear()
        own, self._own = self._own, None
        if own is not None:
            own.close()
        else:
            leave()

    @contextmanager
    def _or_closed(self) -> Iterator[None]:
        """Leaves nothing half started, whatever happens meanwhile, a terminate signal included."""
        try:
            with own_terminate_handler():
                yield
        except BaseException:
            self.close()
            raise

    def _loan(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Loan | None:
        """Lends the files of a call to other machines of a cluster; None where there are none."""
        if self._own is not None or len({node["NodeID"] for node in _nodes() if node["Alive"]}) < 2:
            return None
        call = (function, *args)
        names, folders = named_paths(call), named_folders(call)
        if self._lender is None:
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            actor = ray.remote(Lender).options(num_cpus=0, max_concurrency=4, scheduling_strategy=here)
            self._lender = actor.remote()
        if not self._announced >= names | folders:
            ray.get(self._lender.announce.remote(tuple(names), tuple(folders)))
            self._announced |= names | folders
        return Loan(self._lender, tuple(sorted(names)), tuple(sorted(folders)))

    def _shipped(self, function: Callable[..., Any]) -> Any:
        """Puts a function into the object store once, however often it is submitted."""
        if id(function) not in self._functions:
            self._functions[id(function)] = (function, ray.put(_packed(function)))
        return self._functions[id(function)][1]


@dataclass(slots=True)
class _Flight:
    """A piece of work under way, and how it is begun once more."""

    handle: Handle
    function: Callable[..., Any]
    args: tuple[Any, ...]
    cores: int
    kind: WorkKind
    timeout_s: float | None
    reference: Any = None
    begun_s: float = 0.0
    losses: int = 0

    def outcome(self) -> Outcome | None:
        """Gives how it ended; None if it was lost with its node."""
        try:
            return _outcome(self.reference, self.begun_s, self.timeout_s)
        except NodeDiedError:
            return None


def _nodes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return found


def _largest(nodes: Sequence[Mapping[str, Any]]) -> int:
    cores = [node["Resources"].get("CPU", 0) for node in nodes if node["Alive"]]
    return max(1, int(max(cores, default=1)))


@ray.remote(max_retries=0)
def _remote(
    function: bytes,
    args: bytes,
    cores: int,
    timeout_s: float | None,
    search_path: list[str],
    loan: Loan | None,
) -> Outcome:
    sys.path += [folder for folder in search_path if folder not in sys.path]
    if timeout_s is not None:  # a thread below Python's own: it fires whoever holds the interpreter
        faulthandler.dump_traceback_later(timeout_s, exit=True)
    try:
        return run_call(_unpack_and_call, (function, args, loan), cores)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _packed(value: Any) -> bytes:
    data: bytes = cloudpickle.dumps(value)  # type: ignore[no-untyped-call]
    return data


def _unpack_and_call(function: bytes, args: bytes, loan: Loan | None) -> Any:
    """Unpacks here and not before, so that libraries load with their thread counts already set."""
    with borrowing(loan) as where:
        call = renamed(cloudpickle.loads(function), where)
        found = call(*(renamed(each, where) for each in cloudpickle.loads(args)))
        return renamed(found, {here: there for there, here in where.items()})


def _outcome(reference: Any, submitted: float, limit: float | None) -> Outcome:
    """Gives how work ended.

    Raises:
        NodeDiedError: its node is gone, which is no fault of its own.
    """
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
    except NodeDiedError:
        raise
    except RayError as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return Outcome(status="died", reason=reason, seconds=seconds)
