"""A daemon as a process: its needs are checked, then it answers and works until it is told to stop."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from autosparse.daemon import courier, retention, signing
from autosparse.daemon.access import Listening
from autosparse.daemon.beside import Beside
from autosparse.daemon.nodes import ClusterNodes
from autosparse.daemon.service import Service
from autosparse.daemon.stale import StaleRows
from autosparse.daemon.supervisor import Supervisor
from autosparse.errors import AutosparseError, ConfigError
from autosparse.hardware.cores import affinity
from autosparse.jobs import daemons
from autosparse.jobs.queue import LEASE_S, Queue
from autosparse.jobs.roots import Roots
from autosparse.jobs.store import Store
from autosparse.jobs.verbs import Place
from autosparse.measuring.lock import who_measures
from autosparse.schedules.store import Schedules
from autosparse.searching.cluster import check_address
from autosparse.storage.paths import writable_folder
from autosparse.storage.token import make_token, token_file
from autosparse.web.app import end_streams, make_app

log = logging.getLogger(__name__)

_GOODBYE_S = 5
_SHORTEST_KEEP_S = 3600.0
_ENOUGH_CORES = 4  # a host of fewer measures with all of them, unless told otherwise
_ID = """
import os
os.sched_setaffinity(0, {cores})
from autosparse import hardware
print(hardware.hardware_id())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What a daemon is told when it starts.

    Attributes:
        listening: where it listens.
        results: folder of runs and jobs.
        database: URL of the database of jobs and rows; None is the user's.
        roots: name to folder that jobs may read; `results` is one always.
        allow_code: whether jobs may name factories, which are run.
        address: Ray cluster that jobs join; None for none.
        slots: jobs that run at a time.
        own_cores: processors that jobs leave to the daemon, so that it does not disturb what they
            measure; None is one where there are four or more.
        lease_s: how long a silent daemon's jobs stay its own.
        webhooks: URLs that alerts are sent to.
        webhook_secret_file: file of the secret that signs them, made if missing; None is the user's.
        keep_s: how long jobs and the runs that they made are kept after their end; None is forever.
    """

    listening: Listening
    results: Path
    database: str | None = None
    roots: Mapping[str, Path] = field(default_factory=dict)
    allow_code: bool = False
    address: str | None = None
    slots: int = 2
    own_cores: int | None = None
    lease_s: float = LEASE_S
    webhooks: tuple[str, ...] = ()
    webhook_secret_file: Path | None = None
    keep_s: float | None = None

    def check(self) -> None:
        """Refuses what cannot work, before anything is made.

        Raises:
            AutosparseError: an address that others can reach without TLS, a root that is no folder, no
                cluster at the address, more processors for itself than there are, a webhook that others
                could listen to, or too short a time to keep jobs.
        """
        self.listening.check()
        check_address(self.address)
        for name, folder in self.roots.items():
            if not os.path.isdir(folder):
                raise ConfigError(f"--root must name a folder, but got {name}={folder}; make it first")
        if not 0 <= (self.own_cores or 0) < len(affinity()):
            raise ConfigError(
                f"own cores must leave one to jobs, but got {self.own_cores} of {len(affinity())}"
            )

        for url in self.webhooks:
            courier.check_webhook(url)
        if self.keep_s is not None and self.keep_s < _SHORTEST_KEEP_S:
            raise ConfigError(
                f"jobs must be kept for an hour at least, but --keep is {self.keep_s:g} s; write 90d"
            )

    def shares(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Gives the processors of the daemon and those of its jobs; both all where none are kept."""
        every = affinity()
        own = self.own_cores
        if own is None:
            own = 1 if len(every) >= _ENOUGH_CORES else 0
        return (every[-own:], every[:-own]) if own else (every, every)


def serve(serving: Serving, told: Callable[[dict[str, Any]], object]) -> None:
    """Answers and works until it is told to stop by a signal; then its jobs go on with the next daemon.

    Args:
        serving: checked here.
        told: called once it can be reached, with ``url``, ``token_file`` and ``daemon_id``.

    Raises:
        AutosparseError: it cannot start, or its working part ended by itself.
    """
    serving.check()
    results = writable_folder(serving.results.absolute(), "the results folder")
    token_path = token_file()
    token = make_token(token_path)
    own, of_jobs = serving.shares()
    with (
        contextlib.closing(_listen(serving.listening)) as listener,
        Store(serving.database) as store,
    ):
        place = Place(
            results=results,
            database=store.full_url,
            roots=Roots(folders={"results": results, **serving.roots}, allow_code=serving.allow_code),
            address=serving.address,
        )
        queue = Queue(store, lease_s=serving.lease_s)
        daemon = daemons.this_daemon(_hardware_id(of_jobs))
        if own != of_jobs:
            os.sched_setaffinity(0, own)
        nodes = ClusterNodes(serving.address)
        stale_rows = StaleRows(store.full_url, of_jobs)
        schedules = Schedules(queue)
        schedules.look_again()
        with (
            _beside(serving, store, results),
            Supervisor(
                queue,
                daemon,
                place,
                slots=serving.slots,
                job_cores=of_jobs,
                elsewhere=nodes.hardware_ids,
            ) as supervisor,
        ):
            supervisor.beside(schedules.make_due_jobs)
            supervisor.beside(nodes.look)
            supervisor.beside(functools.partial(_look_while_quiet, stale_rows))
            service = Service(
                queue=queue,
                schedules=schedules,
                place=place,
                daemon_id=daemon.id,
                wake=supervisor.look_at_once,
            )
            listening = serving.listening
            working = _Working(supervisor)
            app = make_app(
                service,
                listening,
                token,
                is_working=working.is_alive,
                stale_rows=stale_rows,
                nodes=nodes,
            )
            server = _Server(
                app,
                listening,
                on_start=lambda: told(
                    {
                        "url": _url(listening, listener),
                        "token_file": str(token_path),
                        "daemon_id": daemon.id,
                    }
                ),
            )
            working.start(when_ended=server.leave)
            with _told_to_stop(server):
                server.run(sockets=[listener])
            working.finish()


@contextlib.contextmanager
def _beside(serving: Serving, store: Store, results: Path) -> Iterator[None]:
    """Sends alerts and forgets what is old while the block runs, each in a thread of its own."""
    with contextlib.ExitStack() as stack:
        if serving.webhooks:
            key = signing.make_secret(serving.webhook_secret_file or signing.secret_file())
            carrying = courier.Courier(store, serving.webhooks, key)
            stack.enter_context(Beside("courier", carrying.work, courier.EVERY_S))
        if serving.keep_s is not None:
            forgetting = retention.Retention(store, results, serving.keep_s)
            stack.enter_context(Beside("retention", forgetting.work, retention.EVERY_S))
        yield


def _look_while_quiet(rows: StaleRows) -> None:
    """Has the rows looked at for the figures, which takes seconds, unless somebody measures here."""
    if who_measures() is None:
        rows.look()


def _hardware_id(cores: tuple[int, ...]) -> str:
    """Gives the id of the host as jobs will see it: of a process on their processors."""
    made = subprocess.run(
        [sys.executable, "-c", _ID.format(cores=cores)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise AutosparseError(f"the host must be describable, but: {made.stderr.strip()[-500:]}")
    return made.stdout.strip()


def _listen(listening: Listening) -> socket.socket:
    family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
    try:
        listener = socket.create_server(
            (listening.host.strip("[]"), listening.port), family=family, backlog=1024
        )
        # Connections inherit it. Asyncio sets it only where a socket's protocol is named, and without
        # it an answer's body waits 40 ms for the client's word that its head has come.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"a daemon must be able to listen, but at {listening.host} port {listening.port}: {why}; "
            "another one may be there (see `autosparse status`), or name another --port"
        ) from None


def _url(listening: Listening, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return listening.url.removesuffix(f":{listening.port}") + f":{port}"


def _config(app: Any, listening: Listening) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GOODBYE_S,
        ssl_certfile=listening.tls_cert,
        ssl_keyfile=listening.tls_key,
    )


class _Server(uvicorn.Server):
    """Uvicorn's server, which tells when it answers, and leaves signals to its process."""

    def __init__(self, app: FastAPI, listening: Listening, on_start: Callable[[], object]) -> None:
        super().__init__(_config(app, listening))
        self._answers = app
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends open streams first, which would hold up the end as long as they may."""
        end_streams(self._answers)
        await super().shutdown(sockets=sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def leave(self) -> None:
        """Ends it; may be called from any thread."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


class _Working:
    """The thread of a supervisor, and how it ended."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self, when_ended: Callable[[], object]) -> None:
        self._thread = threading.Thread(target=self._work, args=(when_ended,), name="supervisor")
        self._thread.start()

    def is_alive(self) -> bool:
        """Tells whether it works."""
        return self._thread is not None and self._thread.is_alive()

    def finish(self) -> None:
        """Has it stop its jobs, and waits for that.

        Raises:
            AutosparseError: it had ended by itself.
        """
        self._stop.set()
        self._supervisor.wake()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise AutosparseError(
                f"a daemon's working part must go on, but it ended with {type(self._error).__name__}: "
                f"{self._error}"
            ) from self._error

    def _work(self, when_ended: Callable[[], object]) -> None:
        # The border of the thread: without its working part the daemon shall end, and be started anew.
        try:
            self._supervisor.run(self._stop)
        except Exception as error:
            log.exception("the working part ended")
            self._error = error
        finally:
            when_ended()


@contextlib.contextmanager
def _told_to_stop(server: _Server) -> Iterator[None]:
    """Has the server end when the process is asked to."""

    def leave(number: int, frame: FrameType | None) -> None:
        server.leave()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
