"""Forms: what they store, once; beside which field they say why not; and what buttons do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from headed import headed
from reading import Page
from shop import HOSTILE, ended, running, scheduled, submitted
from talking import URL, TestClient, client_of

from autosparse.daemon.service import Service
from autosparse.jobs.states import State

WHOLE = {
    "model": "resnet20",
    "latency_budget": "5ms",
    "data": "digits",
    "train": "none",
    "trials": "12",
    "seed": "3",
    "label": "a line",
    "priority": "-7",
    "time_limit": "2h",
    "hardware_id": "b5ab65236d15",
}


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with client_of(app, Accept="text/html", Origin=URL) as client:
        yield client


def sent(client: TestClient, path: str, form: dict[str, str], status: int = 422) -> Page:
    answer = client.post(path, data=form, follow_redirects=False)
    assert answer.status_code == status, answer.text
    return Page(answer.text)


class TestSearch:
    def test_a_whole_form_is_a_job(self, client: TestClient, service: Service) -> None:
        answer = client.post("/jobs", data=WHOLE, follow_redirects=False)
        assert answer.status_code == 303 and answer.headers["location"] == "/jobs/1"
        request = service.queue.get(1).request
        asked = {"latency_budget": "5ms", "train": "none", "trials": 12, "seed": 3}
        assert request.verb == "search" and asked.items() <= request.settings.items()
        options = request.options
        assert (options.label, options.priority, options.time_limit_s) == ("a line", -7, 7200)
        assert options.hardware_id == "b5ab65236d15"

    def test_empty_fields_say_nothing(self, client: TestClient, service: Service) -> None:
        form = {**dict.fromkeys(WHOLE, ""), "model": " resnet20 ", "space": "", "unknown": "x"}
        sent(client, "/jobs", form, 303)
        assert service.queue.get(1).request.settings == {"model": "resnet20"}

    @pytest.mark.parametrize(
        ("field", "text", "said"),
        [
            ("model", "", "model"),
            ("model", "resnet21", "resnet20"),
            ("model", "file.py:make", "no code"),
            ("latency_budget", "5", "unit"),
            ("latency_budget", "-5ms", "latency_budget"),
            ("data", "cifar10:/etc", "may read"),
            ("train", "long", "none or short"),
            ("trials", "0", "from 1 on"),
            ("trials", "1_0", "whole number"),
            ("threads", "100000", "cores"),
            ("weights", "../../etc/passwd", "may read"),
            ("space", "/etc/passwd.yaml", "may read"),
            ("seed", "x", "whole number"),
            ("since", "no-such-run", "no-such-run"),
            ("priority", "101", "100"),
            ("priority", "x", "whole number"),
            ("time_limit", "2", "unit"),
            ("label", "x" * 201, "200"),
            ("label", "two\nlines", "line"),
            ("hardware_id", "two words", "pattern"),
            ("latency_budget", HOSTILE, "unit"),
        ],
    )
    def test_what_cannot_be_meant_is_said_beside_its_field(
        self, client: TestClient, service: Service, field: str, text: str, said: str
    ) -> None:
        page = sent(client, "/jobs", {**WHOLE, field: text})
        assert service.queue.jobs() == []
        assert said in page.of(f"error-{field}"), page.said[-900:]
        kept = next(e for e in (*page.all("input"), *page.all("select")) if e.get("name") == field)
        assert kept["aria-invalid"] == "true" and f"error-{field}" in kept["aria-describedby"]
        if field in ("trials", "threads", "label"):
            assert kept["value"] == text.replace("\r", "")
        assert next(e for e in page.all("input") if e["name"] == "model")["value"] == (
            text if field == "model" else "resnet20"
        )

    def test_the_settings_that_are_wrong_are_unfolded(self, client: TestClient) -> None:
        page = sent(client, "/jobs", {"model": "resnet20", "trials": "x"})
        assert [("open" in each) for each in page.all("details")] == [True, False]

    def test_a_form_that_is_sent_twice_makes_one_job(
        self, client: TestClient, service: Service
    ) -> None:
        form = {**WHOLE, "once": Page(client.get("/").text).hidden("once")}
        for _ in range(3):
            answer = client.post("/jobs", data=form, follow_redirects=False)
            assert answer.headers["location"] == "/jobs/1"
        sent(client, "/jobs", {**form, "seed": "4"}, 303)
        sent(client, "/jobs", {**form, "once": Page(client.get("/").text).hidden("once")}, 303)
        assert len(service.queue.jobs()) == 3


class TestButtons:
    def test_one_that_waits_is_cancelled_and_resumed(
        self, client: TestClient, service: Service
    ) -> None:
        job = submitted(service)
        page = Page(client.post(f"/jobs/{job.id}/cancel").text)
        assert page.of("state") == "cancelled"
        page = Page(client.post(f"/jobs/{job.id}/resume").text)
        assert page.of("state") == "waiting"

    def test_one_that_runs_is_asked_to_end(self, client: TestClient, service: Service) -> None:
        job = running(service)
        page = Page(client.post(f"/jobs/{job.id}/cancel").text)
        assert page.of("state") == "cancelling" and service.queue.get(job.id).is_cancelling
        assert f"/jobs/{job.id}/cancel" not in [each.get("action") for each in page.all("form")]

    @pytest.mark.parametrize("state", [State.DONE, State.FAILED])
    def test_one_that_has_just_ended_stays_so(
        self, client: TestClient, service: Service, state: State
    ) -> None:
        job = ended(service, state)
        assert Page(client.post(f"/jobs/{job.id}/cancel").text).of("state") == str(state)

    @pytest.mark.parametrize("path", ["/jobs/1/cancel", "/jobs/x/cancel", "/jobs/0/resume"])
    def test_there_is_no_other(self, client: TestClient, path: str) -> None:
        assert client.post(path).status_code == 404


FORM = {**WHOLE, "name": "weekly", "cron": "0 3 * * sun", "timezone": "Europe/Berlin"}


class TestSchedules:
    def test_a_whole_form_is_a_schedule(self, client: TestClient, service: Service) -> None:
        sent(client, "/schedules", {**FORM, "catch_up": "skip", "jitter": "10m"}, 303)
        made = service.schedules.get("weekly")
        assert (made.cron, made.timezone, made.catch_up) == ("0 3 * * sun", "Europe/Berlin", "skip")
        assert made.jitter_s == 600 and made.request.settings["trials"] == 12
        assert made.request.options.priority == -7

    @pytest.mark.parametrize(
        ("field", "text", "said"),
        [
            ("cron", "", "cron"),
            ("cron", "0 3 * *", "five fields"),
            ("cron", "61 3 * * sun", "minute"),
            ("cron", "0 3 30 feb *", "day-of-month"),
            ("timezone", "Berlin", "Europe/Berlin"),
            ("name", "17", "not a number"),
            ("name", "a/b", "slash"),
            ("catch_up", "twice", "once"),
            ("jitter", "10", "unit"),
            ("jitter", "9d", "7d"),
            ("model", "resnet21", "resnet20"),
            ("trials", "x", "whole number"),
        ],
    )
    def test_what_cannot_be_meant_is_said_beside_its_field(
        self, client: TestClient, service: Service, field: str, text: str, said: str
    ) -> None:
        page = sent(client, "/schedules", {**FORM, field: text})
        assert service.schedules.all() == []
        assert said in page.of(f"error-{field}"), page.said[-1500:]

    def test_a_name_that_is_taken(self, client: TestClient, service: Service) -> None:
        scheduled(service)
        page = sent(client, "/schedules", FORM, 409)
        assert "weekly" in page.said and len(service.schedules.all()) == 1

    def test_the_next_times_are_shown_before_it_is_stored(
        self, client: TestClient, service: Service
    ) -> None:
        asked = {**FORM, "cron": "30 2 * * *"}
        page = Page(client.get("/schedules", params=asked).text)
        assert page.of("preview").count("02:30 CE") == 5 and "At 02:30" in page.of("preview")
        assert page.hidden("cron") == "30 2 * * *" and page.hidden("seed") == "3"
        assert service.schedules.all() == []

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ({"cron": "x"}, "five fields"),
            ({"cron": "@daily", "timezone": "Berlin"}, "Europe/Berlin"),
            ({"cron": HOSTILE}, "five fields"),
        ],
    )
    def test_a_preview_says_what_is_wrong(
        self, client: TestClient, asked: dict[str, str], said: str
    ) -> None:
        page = Page(client.get("/schedules", params=asked).text)
        assert said in page.of("preview") and "next:" not in page.of("preview")

    def test_one_is_paused_resumed_and_removed(self, client: TestClient, service: Service) -> None:
        scheduled(service)
        assert "paused" in Page(client.post("/schedules/1/pause").text).of("schedule-1")
        assert not service.schedules.get("weekly").is_enabled
        assert "paused" not in Page(client.post("/schedules/1/resume").text).of("schedule-1")
        assert "There are none yet" in client.post("/schedules/1/remove").text
        assert client.post("/schedules/1/remove").status_code == 404

    @pytest.mark.parametrize("path", ["1/delete", "x/pause", "0/pause", "99999999999/pause"])
    def test_there_is_nothing_else_to_do(self, client: TestClient, path: str) -> None:
        assert client.post(f"/schedules/{path}").status_code == 404

    @pytest.mark.parametrize("back", ["https://evil.example", "//evil.example"])
    def test_a_change_leads_to_no_other_site(
        self, client: TestClient, service: Service, back: str
    ) -> None:
        scheduled(service)
        answer = client.post("/schedules/1/pause", data={"back": back}, follow_redirects=False)
        assert answer.headers["location"] == "/schedules"


class TestWatches:
    @pytest.fixture(autouse=True)
    def artifact(self, service: Service) -> None:
        headed(service.place.results / "net.autosparse")
        (service.place.results / "other").write_bytes(b"x")

    def test_a_form_is_a_watch(self, client: TestClient, service: Service) -> None:
        form = {"artifact": "results/net.autosparse", "latency_budget": "5ms", "threads": "2"}
        sent(client, "/watches", form, 303)
        (watch,) = service.watches()
        assert watch.budget_ms == 5.0 and watch.schedule.request.settings["threads"] == 2

    @pytest.mark.parametrize(
        ("field", "text", "said"),
        [
            ("artifact", "", "artifact"),
            ("artifact", "results/none", "no"),
            ("artifact", "results/other", "file that autosparse wrote"),
            ("artifact", "/etc/passwd", "may read"),
            ("latency_budget", "", "latency_budget"),
            ("latency_budget", "5", "unit"),
            ("threads", "x", "whole number"),
            ("cron", "x", "five fields"),
            ("timezone", "x", "zone"),
            ("name", "7", "number"),
        ],
    )
    def test_what_cannot_be_meant_is_said_beside_its_field(
        self, client: TestClient, service: Service, field: str, text: str, said: str
    ) -> None:
        form = {"artifact": "results/net.autosparse", "latency_budget": "5ms", field: text}
        page = sent(client, "/watches", form)
        assert service.watches() == [] and said in page.of(f"error-{field}"), page.said[-900:]
