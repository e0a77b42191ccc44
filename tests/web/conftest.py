"""A daemon's application over a real store, without a supervisor: jobs stay as they are put."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from autosparse.daemon.access import Listening
from autosparse.daemon.service import Service
from autosparse.jobs.store import Store
from autosparse.web.app import make_app
from autosparse.web.schema import schema_text
from autosparse.web.streams import Streams

sys.path.insert(0, str(Path(__file__).parent))
from talking import TOKEN, TestClient, client_of, served, service_of


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all tables and no rows: to make one takes longer than to copy it."""
    file = tmp_path_factory.mktemp("empty") / "jobs.db"
    with Store(f"sqlite:///{file}") as store, store.writing():
        pass
    return file


@pytest.fixture
def store(empty_database: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copy(empty_database, tmp_path / "jobs.db")
    with Store(f"sqlite:///{tmp_path / 'jobs.db'}") as store:
        yield store


@pytest.fixture
def service(store: Store, tmp_path: Path) -> Service:
    return service_of(store, tmp_path / "results")


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    """The schema of the API, which takes longer to make than most tests."""
    return dict(json.loads(schema_text()))


@pytest.fixture
def app(service: Service, schema: dict[str, Any]) -> FastAPI:
    app = make_app(service, Listening(), TOKEN)
    app.state.streams = Streams(service, look_s=0.05)
    app.openapi_schema = schema
    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with client_of(app) as client:
        yield client


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    with served(app) as address:
        yield address
