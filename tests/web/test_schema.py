"""The schema of the API: the one that is published, complete, and kept by the application."""

from __future__ import annotations

import copy
import json
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from headed import headed
from hypothesis import strategies as st
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
from shop import NEWER, OLDER, reported
from talking import BEARER, TOKEN, TestClient, a_run, running, submitted

from autosparse.daemon.access import Listening
from autosparse.daemon.service import Service
from autosparse.jobs.records import JobOptions
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


RUN = "20260101T000000Z-resnet20-aaaaaaaa"


def fill(service: Service) -> None:
    """Puts there what a guess may hit, unless it is there."""
    queue, results = service.queue, service.place.results
    if not queue.jobs(states=[State.DONE]):
        for state in (State.DONE, State.FAILED, State.STOPPED):
            job = running(service)
            service.folder(job.id).mkdir(parents=True)
            (service.folder(job.id) / "result.json").write_text('{"a": 1}')
            (service.folder(job.id) / "stderr.log").write_text("said\n")
            queue.end(job, state)
    submitted(service)
    if not (results / RUN).exists():
        (a_run(results, RUN) / "report.html").write_text("<html></html>")
    if not [each for each in service.schedules.all() if each.name == "weekly"]:
        request = submitted(service).request
        service.schedules.add(request, name="weekly", cron="0 3 * * sun", timezone="UTC")
    if not service.watches():
        headed(results / "a.safetensors")
        service.add_watch("results/a.safetensors", "5ms", JobOptions(), name="watched")
    if not (results / OLDER).exists():
        reported(results, OLDER)
        reported(results, NEWER)


def operations(app: FastAPI, mode: GenerationMode) -> Any:
    raw = copy.deepcopy(app.openapi())
    if mode == GenerationMode.NEGATIVE:
        # The token is always sent, so that its absence is no mistake of a guess.
        del raw["security"], raw["components"]["securitySchemes"]
    schema = schemathesis.openapi.from_dict(raw)
    schema.app = app
    for result in schema.exclude(operation_id=STREAMS).get_all_operations():
        operation = result.ok()
        can_be_wrong = {"parameters", "requestBody"} & set(operation.definition.raw)
        if can_be_wrong or mode == GenerationMode.POSITIVE:
            yield operation


def made_to_hit(case: Any, service: Service) -> None:
    """Makes a guess one that asks for what there is, its other parts as they were guessed."""
    jobs = {"cancel_job": State.SUBMITTED, "resume_job": State.STOPPED, "get_result": State.DONE}
    name = case.operation.definition.raw["operationId"]
    found = service.queue.jobs(states=[jobs[name]] if name in jobs else [])
    known = {"job_id": found[0].id if found else 1, "run": RUN, "older": OLDER, "newer": NEWER}
    known["schedule"] = "watched" if name.endswith("_watch") else "weekly"
    for part in case.path_parameters or {}:
        case.path_parameters[part] = known[part]
    if name == "add_watch":
        case.body = {"artifact": "results/a.safetensors", "latency_budget": "5ms"}
    elif isinstance(case.body, dict):
        case.body |= {"verb": "tune", "settings": {"model": "resnet20"}, "label": "", "hardware_id": ""}
        for part in ("time_limit", "not_before", "jitter", "name", "timezone"):
            case.body.pop(part, None)
        case.body |= {"cron": "0 3 * * sun"} if "cron" in case.body else {}
        case.headers.pop("Idempotency-Key", None)


@pytest.mark.parametrize(
    "mode", [pytest.param(GenerationMode.POSITIVE, marks=pytest.mark.long), GenerationMode.NEGATIVE]
)
def test_no_guess_makes_the_daemon_fail(service: Service, mode: GenerationMode) -> None:
    """Requests made from the schema, within it and beside it: no 5xx, and answers as it says."""
    app = make_app(service, Listening(allowed_hosts=("testserver",)), TOKEN)
    for operation in operations(app, mode):
        fill(service)
        statuses = guess(operation, mode, service)
        if mode == GenerationMode.POSITIVE:
            assert any(status < 300 for status in statuses), (operation.label, statuses)


def guess(operation: Any, mode: GenerationMode, service: Service) -> set[int]:
    statuses: set[int] = set()

    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), hits=st.booleans())
    @hypothesis.settings(
        max_examples=30,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def call(case: Any, hits: bool) -> None:
        if hits and mode == GenerationMode.POSITIVE:
            made_to_hit(case, service)
        response = case.call_and_validate(headers=BEARER, checks=list(CHECKS))
        statuses.add(int(response.status_code))

    call()
    return statuses
