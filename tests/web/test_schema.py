"""The schema of the API: the one that is published, complete, and kept by the application."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from talking import BEARER, TOKEN, TestClient, a_run, running, submitted

from autosparse.daemon.access import Listening
from autosparse.daemon.service import Service
from autosparse.jobs.states import State
from autosparse.web.app import make_app
from autosparse.web.schema import FILE, schema_text

METHODS = ("get", "post", "put", "patch", "delete")


def test_the_published_one_is_that_of_the_application() -> None:
    assert FILE.read_text() == schema_text(), "run: python -m autosparse.web.schema"


def test_every_operation_is_described(app: FastAPI) -> None:
    schema = app.openapi()
    names = [
        operation["operationId"] for path in schema["paths"].values() for operation in path.values()
    ]
    assert len(names) == len(set(names)) > 20
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert method in METHODS and operation["summary"], where
            answers = operation["responses"]
            assert [code for code in answers if code.startswith("2")], where
            for code, answer in answers.items():
                assert answer["description"], where
                if code.startswith(("4", "5")):
                    assert list(answer["content"]) == ["application/problem+json"], where
            if operation.get("security") != []:
                assert {"401", "403", "421"} <= set(answers), where
            if "requestBody" in operation:
                assert {"400", "413", "415", "422"} <= set(answers), where
            for parameter in operation.get("parameters", []):
                assert parameter["description"], where
    for name, shape in schema["components"]["schemas"].items():
        assert shape.get("additionalProperties", False) is False, name


def test_it_needs_the_token_but_for_health(app: FastAPI) -> None:
    schema = app.openapi()
    assert schema["security"] == [{"token": []}]
    free = [
        path
        for path, each in schema["paths"].items()
        if each["get" if "get" in each else next(iter(each))].get("security") == []
    ]
    assert sorted(free) == ["/healthz", "/readyz"]


def test_it_is_answered(client: TestClient) -> None:
    assert client.get("/api/v1/openapi.json").text
    assert client.get("/api/v1/openapi.json").json() == json.loads(FILE.read_text())


CHECKS = (
    *(not_a_server_error, status_code_conformance, content_type_conformance),
    *(response_schema_conformance, response_headers_conformance, negative_data_rejection),
    *(ignored_auth, unsupported_method),
)
# Streams, which never end, have tests of their own.
STREAMS = ["follow_job", "follow_all"]


@pytest.fixture
def filled(service: Service) -> FastAPI:
    """Numbers and names that a guess may hit."""
    for state in (State.DONE, State.FAILED, State.STOPPED, None):
        job = running(service)
        folder = service.folder(job.id)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text('{"a": 1}')
        (folder / "stderr.log").write_text("said\n")
        if state is not None:
            service.queue.end(job, state)
    submitted(service)
    a_run(service.place.results, "20260101T000000Z-resnet20-aaaaaaaa")
    return make_app(service, Listening(allowed_hosts=("testserver",)), TOKEN)


def operations(app: FastAPI) -> Any:
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers=BEARER)
    return schema.exclude(operation_id=STREAMS)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_guess_makes_the_daemon_fail(filled: FastAPI, mode: GenerationMode) -> None:
    """Requests made from the schema, within it and beside it: no 5xx, and answers as it says."""
    schema = operations(filled)
    if mode == GenerationMode.NEGATIVE:  # of these nothing can be asked wrongly
        schema = schema.exclude(operation_id=["get_health", "get_readiness"])
    for result in schema.get_all_operations():
        operation = result.ok()
        guess(operation, mode)


def guess(operation: Any, mode: GenerationMode) -> None:
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=50,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def call(case: Any) -> None:
        case.call_and_validate(headers=BEARER, checks=list(CHECKS))

    call()
