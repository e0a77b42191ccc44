"""Jobs over the API: submitted, listed, looked at, cancelled, resumed."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import FastAPI
from talking import TUNE, TestClient, a_run, client_of, running, submitted

from autosparse.daemon.service import Service
from autosparse.jobs.records import Snapshot
from autosparse.jobs.states import State
from autosparse.jobs.verbs import VERBS
from autosparse.web.routes.jobs import MOST_LOG_BYTES, whole_characters

JOBS = "/api/v1/jobs"


class TestSubmitting:
    def test_a_job_is_answered_as_it_is_stored(self, client: TestClient, service: Service) -> None:
        asked = {
            "verb": "search",
            "settings": {"model": "resnet18", "latency_budget": "5ms", "include": ["layer1*"]},
            "priority": 7,
            "time_limit": "2h",
            "retries": 0,
            "label": "nächtlich",
            "hardware_id": "cpu-1",
            "not_before": "2027-01-31T04:00:00+01:00",
        }
        response = client.post(JOBS, json=asked)
        assert response.status_code == 201
        job = response.json()
        assert response.headers["location"] == f"{JOBS}/{job['id']}"
        assert client.get(response.headers["location"]).json() == job
        assert (job["state"], job["priority"], job["retries"]) == ("submitted", 7, 0)
        assert (job["time_limit_s"], job["label"]) == (7200.0, "nächtlich")
        assert job["ready_at"] == "2027-01-31T03:00:00Z"
        assert job["settings"]["latency_budget"] == "5ms" and job["progress"] is None
        assert service.queue.get(job["id"]).request.options.not_before_s == 1801364400.0

    def test_what_was_not_said_is_as_on_the_command_line(self, client: TestClient) -> None:
        job = client.post(JOBS, json=TUNE).json()
        assert job["settings"] == {"model": "resnet20"}
        assert (job["retries"], job["priority"], job["ready_at"]) == (3, 0, None)

    @pytest.mark.parametrize(
        ("change", "where"),
        [
            ({"verb": "serach"}, "did you mean search"),
            ({"verb": ""}, "verb must be one of"),
            ({"settings": {"model": "resnet20", "modle": 1}}, "did you mean model"),
            ({"settings": {"model": "resnet99"}}, "resnet99"),
            ({"settings": {}}, "model"),
            ({"settings": {"model": "resnet20", "latency_budget": "5"}}, "latency_budget"),
            ({"settings": {"model": "resnet20", "batch_size": 0}}, "batch_size"),
            ({"settings": {"model": {"a": 1}}}, "settings.model"),
            ({"settings": {"model": [["deep"]]}}, "settings.model"),
            ({"settings": {"model": "a" * 5000}}, "settings.model"),
            ({"settings": {f"k{number}": 1 for number in range(101)}}, "settings"),
            ({"settings": {"include": ["a"] * 1001}}, "settings.include"),
            ({"settings": {"model": "\ud800"}}, "Unicode"),
            ({"settings": {"include": ["a\0"]}}, "settings.include"),
            ({"settings": {"\udfff": 1}}, "settings"),
            ({"settings": []}, "settings"),
            ({"priority": 101}, "priority"),
            ({"priority": "5"}, "priority"),
            ({"priority": True}, "priority"),
            ({"priority": None}, "priority"),
            ({"retries": -1}, "retries"),
            ({"time_limit": "2"}, "time limit"),
            ({"time_limit": "-2h"}, "time limit"),
            ({"time_limit": 7200}, "time_limit"),
            ({"time_limit": "1e400h"}, "time limit"),
            ({"label": "two\nlines"}, "label"),
            ({"label": "\ud800"}, "label"),
            ({"label": "l" * 201}, "label"),
            ({"hardware_id": "h" * 65}, "hardware_id"),
            ({"hardware_id": "a\0b"}, "hardware_id"),
            ({"not_before": "tomorrow at three o'clock"}, "not_before"),
            ({"not_before": "2027-01-31T04:00:00"}, "not_before"),
            ({"not_before": "9999-12-31T23:59:59+00:00"}, "not_before"),
            ({"not_before": "0001-01-01T00:00:00+23:59"}, "not_before"),
            ({"not_before": 1}, "not_before"),
            ({"unknown": 1}, "unknown"),
        ],
    )
    def test_what_breaks_a_rule_is_refused_and_not_stored(
        self, client: TestClient, service: Service, change: dict[str, object], where: str
    ) -> None:
        response = client.post(JOBS, content=_json({**TUNE, **change}), headers=_AS_JSON)
        problem = response.json()
        assert response.status_code == problem["status"] == 422
        assert where in problem["detail"] and problem["exit_code"] == 2
        assert service.queue.jobs() == []

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
    def test_numbers_that_are_none_are_refused(self, client: TestClient, number: str) -> None:
        text = _json({"verb": "tune", "settings": {"model": "resnet20", "seed": "?"}})
        text = text.replace('"?"', number)
        assert client.post(JOBS, content=text, headers=_AS_JSON).status_code == 422

    @pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"tune"', b"1"])
    def test_what_is_no_object_is_refused(self, client: TestClient, body: bytes) -> None:
        assert client.post(JOBS, content=body, headers=_AS_JSON).status_code == 422


class TestKeys:
    def test_a_key_stands_for_one_job(self, client: TestClient, service: Service) -> None:
        first = client.post(JOBS, json=TUNE, headers=_key("k"))
        again = client.post(JOBS, json=TUNE, headers=_key("k"))
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json() == again.json()
        assert again.headers["location"] == first.headers["location"]
        assert len(service.queue.jobs()) == 1

    @pytest.mark.parametrize("change", [{"priority": 1}, {"verb": "search"}, {"settings": {}}])
    def test_a_key_with_another_body_is_a_conflict(
        self, client: TestClient, service: Service, change: dict[str, object]
    ) -> None:
        client.post(JOBS, json=TUNE, headers=_key("k"))
        other = client.post(JOBS, json={**TUNE, **change}, headers=_key("k"))
        assert other.status_code == 409 and "take another key" in other.json()["detail"]
        assert len(service.queue.jobs()) == 1

    def test_another_key_is_another_job(self, client: TestClient) -> None:
        numbers = [client.post(JOBS, json=TUNE, headers=_key(key)).json()["id"] for key in "ab"]
        assert len(set(numbers)) == 2

    def test_a_key_is_known_though_its_words_now_mean_something_else(
        self, client: TestClient, service: Service
    ) -> None:
        asked = {"verb": "train", "settings": {"run": "latest"}}
        a_run(service.place.results, "20260101T000000Z-resnet20-aaaaaaaa")
        first = client.post(JOBS, json=asked, headers=_key("k"))
        assert first.status_code == 201
        a_run(service.place.results, "20260102T000000Z-resnet20-aaaaaaaa")
        again = client.post(JOBS, json=asked, headers=_key("k"))
        assert again.status_code == 200 and again.json() == first.json()

    @pytest.mark.parametrize("key", ["", "a b", "k" * 256, "é", "a\tb"])
    def test_what_is_no_word_is_no_key(self, client: TestClient, key: str) -> None:
        shown = {"Idempotency-Key": key.encode()}
        assert client.post(JOBS, json=TUNE, headers=shown).status_code == 422

    def test_one_key_at_the_same_instant_makes_one_job(self, app: FastAPI, service: Service) -> None:
        gate = threading.Barrier(8)

        def ask(_: int) -> tuple[int, int]:
            gate.wait()
            response = client.post(JOBS, json=TUNE, headers=_key("same"))
            return response.status_code, response.json()["id"]

        with client_of(app) as client, ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(8)))
        assert sorted(status for status, _ in answers) == [200] * 7 + [201]
        assert len({number for _, number in answers}) == 1 == len(service.queue.jobs())


class TestListing:
    def test_pages_hold_every_job_once_while_jobs_are_added(
        self, client: TestClient, service: Service
    ) -> None:
        there = [submitted(service).id for _ in range(23)]
        found: list[int] = []
        path: str | None = f"{JOBS}?limit=5"
        while path:
            response = client.get(path)
            body = response.json()
            found += [job["id"] for job in body["items"]]
            assert len(body["items"]) <= 5
            path = body["next"]
            assert (f'<{path}>; rel="next"' if path else None) == response.headers.get("link")
            submitted(service)
        assert found == sorted(there, reverse=True)

    def test_the_last_page_may_be_full(self, client: TestClient, service: Service) -> None:
        for _ in range(4):
            submitted(service)
        first = client.get(f"{JOBS}?limit=2").json()
        second = client.get(first["next"]).json()
        assert len(second["items"]) == 2 and second["next"] is None

    def test_filters_go_on_to_the_next_page(self, client: TestClient, service: Service) -> None:
        for _ in range(3):
            service.cancel(submitted(service).id)
            submitted(service)
        running(service, priority=1)
        path = f"{JOBS}?limit=2&state=cancelled&state=running"
        states: list[str] = []
        while path:
            body = client.get(path).json()
            states += [job["state"] for job in body["items"]]
            path = body["next"]
        assert states == ["running", "cancelled", "cancelled", "cancelled"]

    def test_jobs_of_a_schedule(self, client: TestClient, service: Service) -> None:
        request = submitted(service).request
        with service.queue.store.writing() as connection:
            number = service.queue.insert(connection, request, schedule_id=3)
        items = client.get(f"{JOBS}?schedule=3").json()["items"]
        assert [job["id"] for job in items] == [number]

    @pytest.mark.parametrize(
        "query",
        [
            *("limit=0", "limit=201", "limit=x", "before=0", "before=2147483648", "before=-1"),
            *("state=gone", "state=", "schedule=x", "limit=", "limit=1e3"),
            "&".join(["state=done"] * 9),
        ],
    )
    def test_odd_questions_are_refused(self, client: TestClient, query: str) -> None:
        assert client.get(f"{JOBS}?{query}").status_code == 422


class TestLooking:
    @pytest.mark.parametrize("number", ["1", "2147483647"])
    @pytest.mark.parametrize("rest", ["", "/transitions", "/result", "/log", "/events"])
    def test_unknown_jobs(self, client: TestClient, number: str, rest: str) -> None:
        response = client.get(f"{JOBS}/{number}{rest}")
        assert response.status_code == 404 and number in response.json()["detail"]

    @pytest.mark.parametrize("number", ["0", "-1", "2147483648", "9" * 400, "x", "1.5", "0x1", "%20"])
    def test_what_is_no_number(self, client: TestClient, number: str) -> None:
        for rest in ("", "/transitions", "/result", "/log", "/events"):
            assert client.get(f"{JOBS}/{number}{rest}").status_code == 422

    def test_a_job_that_runs(self, client: TestClient, service: Service) -> None:
        job = running(service)
        snapshot = Snapshot(at_s=1.5, stage="tune", step="layers", done=3.0, total=9.0, message="go")
        service.queue.renew("me", {job.id: (job.attempt, snapshot)})
        shown = client.get(f"{JOBS}/{job.id}").json()
        assert (shown["state"], shown["owner"], shown["attempt"]) == ("running", "me", 1)
        said = {
            "at": "1970-01-01T00:00:01.500Z",
            "stage": "tune",
            "step": "layers",
            "done": 3.0,
            "total": 9.0,
            "message": "go",
            "left_s": None,
        }
        assert said.items() <= shown["progress"].items()

    def test_what_no_json_holds_is_shown_all_the_same(
        self, client: TestClient, service: Service
    ) -> None:
        job = running(service)
        odd = Snapshot(
            at_s=float("inf"), stage="\ud800", done=float("nan"), total=float("inf"), message="\udfff"
        )
        service.queue.renew("me", {job.id: (job.attempt, odd)})
        shown = client.get(f"{JOBS}/{job.id}").json()["progress"]
        assert (shown["done"], shown["total"]) == (0.0, None)
        assert shown["at"].startswith("9999-") and shown["stage"] == "?"
        assert client.get(JOBS).status_code == 200

    def test_all_that_happened(self, client: TestClient, service: Service) -> None:
        job = running(service)
        service.queue.end(job, State.FAILED, exit_code=1, message="boom", reason="boom")
        items = client.get(f"{JOBS}/{job.id}/transitions").json()["items"]
        assert [item["after"] for item in items] == ["submitted", "waiting", "running", "failed"]
        assert [item["before"] for item in items] == [None, "submitted", "waiting", "running"]
        assert (items[-1]["reason"], items[-1]["daemon"], items[-1]["attempt"]) == ("boom", "me", 1)


class TestResults:
    def test_the_result_of_an_ended_job(self, client: TestClient, service: Service) -> None:
        job = running(service)
        folder = service.folder(job.id)
        folder.mkdir(parents=True)
        path = f"{JOBS}/{job.id}/result"
        (folder / "result.json").write_text('{"run": "r", "front": [1.5, null, "\\ud800"]}')
        assert client.get(path).status_code == 404, "it may be half written"
        service.queue.end(job, State.DONE, exit_code=0)
        assert client.get(path).json() == {"run": "r", "front": [1.5, None, "\ud800"]}

    @pytest.mark.parametrize("text", ["", "{", "[NaN]", "\xff"])
    def test_one_that_is_damaged_is_none(self, client: TestClient, service: Service, text: str) -> None:
        job = running(service)
        service.queue.end(job, State.FAILED)
        service.folder(job.id).mkdir(parents=True)
        (service.folder(job.id) / "result.json").write_text(text, encoding="latin-1")
        response = client.get(f"{JOBS}/{job.id}/result")
        assert response.status_code == 404 and "has none" in response.json()["detail"]


class TestLogs:
    @pytest.fixture
    def log(self, service: Service) -> Path:
        job = running(service)
        service.folder(job.id).mkdir(parents=True)
        return service.folder(job.id) / "stderr.log"

    def read(self, client: TestClient, offset: int) -> tuple[str, int]:
        response = client.get(f"{JOBS}/1/log?offset={offset}")
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        return response.text, int(response.headers["x-next-offset"])

    def test_none_yet(self, client: TestClient, service: Service) -> None:
        running(service)
        assert self.read(client, 0) == ("", 0)
        assert self.read(client, 10) == ("", 0)

    def test_it_goes_on_where_it_was(self, client: TestClient, log: Path) -> None:
        log.write_text("one\n")
        text, offset = self.read(client, 0)
        assert text == "one\n" and self.read(client, offset) == ("", offset)
        with log.open("a") as stream:
            stream.write("zwö")
        assert self.read(client, offset) == ("zwö", 8)
        assert self.read(client, 10**15) == ("", 8)

    def test_a_long_one_comes_in_whole_characters(self, client: TestClient, log: Path) -> None:
        text = "€" * (MOST_LOG_BYTES // 3 + 1000)
        log.write_text(text)
        parts, offset = [], 0
        for _ in itertools.count():
            part, offset = self.read(client, offset)
            if not part:
                break
            parts.append(part)
        assert len(parts) > 1 and "".join(parts) == text

    def test_what_is_no_text_is_passed_over(self, client: TestClient, log: Path) -> None:
        log.write_bytes(b"\xff\xfe\x80" * 10)
        text, offset = self.read(client, 0)
        assert text and offset == 30

    @pytest.mark.parametrize("character", ["a", "é", "€", "😀"])
    def test_only_what_is_torn_is_cut_off(self, character: str) -> None:
        whole = f"x{character}".encode()
        for end in range(1, len(whole)):
            assert whole_characters(whole[:end]) == b"x"
        assert whole_characters(whole) == whole

    @pytest.mark.parametrize("offset", ["-1", "x", str(2**53 + 1)])
    def test_odd_offsets(self, client: TestClient, service: Service, offset: str) -> None:
        submitted(service)
        assert client.get(f"{JOBS}/1/log?offset={offset}").status_code == 422


class TestChanging:
    def test_one_that_waits_is_cancelled_at_once(self, client: TestClient, service: Service) -> None:
        response = client.post(f"{JOBS}/{submitted(service).id}/cancel")
        assert response.status_code == 202 and response.json()["state"] == "cancelled"

    def test_one_that_runs_is_asked_to_end(self, client: TestClient, service: Service) -> None:
        shown = client.post(f"{JOBS}/{running(service).id}/cancel").json()
        assert (shown["state"], shown["cancelling"]) == ("running", True)

    def test_ended_ones_cannot_be_cancelled(self, client: TestClient, service: Service) -> None:
        job = running(service)
        service.queue.end(job, State.DONE)
        response = client.post(f"{JOBS}/{job.id}/cancel")
        assert response.status_code == 409 and "is done" in response.json()["detail"]

    def test_a_stopped_one_is_resumed(self, client: TestClient, service: Service) -> None:
        job = running(service)
        assert client.post(f"{JOBS}/{job.id}/resume").status_code == 409
        service.queue.end(job, State.STOPPED, exit_code=6)
        response = client.post(f"{JOBS}/{job.id}/resume")
        assert response.status_code == 202 and response.json()["state"] == "waiting"

    @pytest.mark.parametrize("what", ["cancel", "resume"])
    def test_unknown_ones(self, client: TestClient, what: str) -> None:
        assert client.post(f"{JOBS}/5/{what}").status_code == 404
        assert client.get(f"{JOBS}/5/{what}").status_code == 405

    def test_a_daemon_here_looks_at_once(self, service: Service, app: FastAPI) -> None:
        import dataclasses

        woken: list[int] = []
        app.state.service = dataclasses.replace(service, wake=lambda: woken.append(1))
        with client_of(app) as client:
            client.post(JOBS, json=TUNE)
            client.post(f"{JOBS}/1/cancel")
            client.post(f"{JOBS}/1/resume")
        assert len(woken) == 3


class TestPaths:
    def test_a_wrong_method_is_told_the_right_ones(self, client: TestClient) -> None:
        assert client.put(JOBS).headers["allow"] == "GET, POST"
        assert client.post("/api/v1/runs/x").headers["allow"] == "GET, DELETE"
        assert client.get(f"{JOBS}/1/cancel").headers["allow"] == "POST"

    def test_the_daemon_says_what_it_is(self, client: TestClient, service: Service) -> None:
        shown = client.get("/api/v1/server").json()
        assert shown["daemon_id"] == "me" and shown["verbs"] == list(VERBS)
        assert shown["roots"] == {"results": str(service.place.results)}
        assert shown["allow_code"] is False and shown["now"].endswith("Z")


_AS_JSON = {"Content-Type": "application/json"}


def _json(value: object) -> str:
    import json

    return json.dumps(value)


def _key(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}
