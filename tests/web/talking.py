"""Ways to put jobs and runs where an application finds them, and to speak to it."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI

from autosparse.daemon.service import Service
from autosparse.jobs.queue import Queue
from autosparse.jobs.records import Job, JobOptions, JobRequest
from autosparse.jobs.roots import Roots
from autosparse.jobs.store import Store
from autosparse.jobs.verbs import Place
from autosparse.run_folders.state import RunState
from autosparse.schedules.store import Schedules
from autosparse.storage.files import write_json
from autosparse.web.app import end_streams

with warnings.catch_warnings():  # it would rather have a library that is not there
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

TOKEN = "t0ken-of-the-tests-and-of-nothing-else"
URL = "http://127.0.0.1:8337"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
TUNE = {"verb": "tune", "settings": {"model": "resnet20"}}


def service_of(store: Store, results: Path, daemon_id: str = "me") -> Service:
    results.mkdir(exist_ok=True)
    queue = Queue(store)
    return Service(
        queue=queue,
        schedules=Schedules(queue),
        place=Place(
            results=results, database=store.full_url, roots=Roots(folders={"results": results})
        ),
        daemon_id=daemon_id,
    )


def client_of(app: FastAPI, token: str = TOKEN, **more: str) -> TestClient:
    headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **more}
    return TestClient(app, base_url=URL, headers=headers)


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serves an application over a socket; gives its address."""
    server = _Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=5))
    server.on_shutdown = lambda: end_streams(app)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        await_true(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


class _Server(uvicorn.Server):
    on_shutdown: Callable[[], None]

    async def shutdown(self, sockets: object = None) -> None:
        self.on_shutdown()
        await super().shutdown()


def await_true(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    until_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until_s, "it did not come true in time"
        time.sleep(0.02)


def speaking(address: str) -> httpx.Client:
    """Makes a client that has the token; without certificates to check, which takes long to begin."""
    return httpx.Client(base_url=address, headers=BEARER, timeout=20, trust_env=False, verify=False)


def submitted(service: Service, **options: object) -> Job:
    request = JobRequest(
        verb="tune",
        settings={"model": "resnet20"},
        options=JobOptions(**options),  # type: ignore[arg-type]
    )
    return service.queue.submit(request)[0]


def running(service: Service, daemon: str = "me", **options: object) -> Job:
    number = submitted(service, **options).id
    service.queue.admit(daemon)
    job = service.queue.claim(daemon, [])
    assert job is not None and job.id == number
    return job


def a_run(results: Path, name: str, **values: object) -> Path:
    folder = results / name
    folder.mkdir(parents=True)
    at = "2026-01-31T03:00:00Z"
    state = RunState(  # type: ignore[arg-type,unused-ignore]
        **{
            "model": "resnet20",
            "hardware_id": "hw",
            "fingerprint": "f",
            "created_at": at,
            "updated_at": at,
            "status": "done",
            **values,
        }
    )
    write_json(folder / "state.json", state.to_json())
    return folder
