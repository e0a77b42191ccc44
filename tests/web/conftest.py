"""A daemon's application over a real store, without a supervisor: jobs stay as they are put."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from autosparse.daemon.access import Listening
from autosparse.daemon.service import Service
from autosparse.jobs.queue import Queue
from autosparse.jobs.records import Job, JobOptions, JobRequest
from autosparse.jobs.roots import Roots
from autosparse.jobs.store import Store
from autosparse.jobs.verbs import Place
from autosparse.schedules.store import Schedules
from autosparse.web.app import make_app

TOKEN = "t0ken-of-the-tests-and-of-nothing-else"
HOST = "127.0.0.1:8337"
URL = f"http://{HOST}"
TUNE = {"verb": "tune", "settings": {"model": "resnet20"}}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Store(f"sqlite:///{tmp_path / 'jobs.db'}") as store:
        results = tmp_path / "results"
        results.mkdir()
        queue = Queue(store)
        yield Service(
            queue=queue,
            schedules=Schedules(queue),
            place=Place(
                results=results, database=store.full_url, roots=Roots(folders={"results": results})
            ),
            daemon_id="me",
        )


@pytest.fixture
def app(service: Service) -> FastAPI:
    return make_app(service, Listening(), TOKEN)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with client_of(app) as client:
        yield client


@pytest.fixture
def stranger(app: FastAPI) -> Iterator[TestClient]:
    """Has no token."""
    with client_of(app, token="") as client:
        yield client


def client_of(app: FastAPI, token: str = TOKEN) -> TestClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return TestClient(app, base_url=URL, headers=headers, raise_server_exceptions=True)


def submitted(service: Service, key: str = "", **options: object) -> Job:
    request = JobRequest(
        verb="tune",
        settings={"model": "resnet20"},
        options=JobOptions(**options),  # type: ignore[arg-type]
    )
    return service.queue.submit(request, key=key)[0]


def running(service: Service, daemon: str = "me") -> Job:
    submitted(service)
    service.queue.admit(daemon)
    job = service.queue.claim(daemon, [])
    assert job is not None
    return job
