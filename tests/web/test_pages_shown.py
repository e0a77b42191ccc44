"""What the pages show of jobs in all states, of runs, hosts, schedules and watches."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from headed import headed
from reading import Page
from shop import (
    ENDS,
    HOSTILE,
    NEWER,
    OLDER,
    UNFINISHED,
    at_work,
    ended,
    fill,
    hostile_run,
    plans,
    reported,
    running,
    scheduled,
    submitted,
)
from talking import TOKEN, TestClient, client_of

from autosparse.daemon.access import Listening
from autosparse.daemon.nodes import ClusterNodes, Node
from autosparse.daemon.service import Service
from autosparse.jobs import daemons
from autosparse.jobs.alerts import Alert, Alerts, Meaning
from autosparse.jobs.records import JobOptions
from autosparse.jobs.states import State
from autosparse.searching import told
from autosparse.storage.files import append_jsonl
from autosparse.storage.for_job import EVENTS
from autosparse.web.app import make_app
from autosparse.web.pages.found import found_in


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with client_of(app, Accept="text/html") as client:
        yield client


def read(client: TestClient, path: str, status: int = 200) -> Page:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


class TestQueue:
    def test_an_empty_one_says_so(self, client: TestClient) -> None:
        page = read(client, "/")
        assert "Nothing is in line" in page.of("summary") and "No job is in line" in page.of("open")

    def test_jobs_of_all_states_are_shown(self, client: TestClient, service: Service) -> None:
        job = fill(service)
        page = read(client, "/")
        assert page.of("summary") == "1 running, 2 waiting"
        for state in ENDS:
            assert str(state) in page.of("ended")
        line = page.of(f"job-{job.id}")
        assert "27 of 64" in line and "about 13 min left" in line and "nightly" in line
        bar = next(each for each in page.all("progress"))
        assert float(bar["value"]) == pytest.approx(27 / 64, abs=1e-4)

    @pytest.mark.parametrize("state", list(State))
    def test_a_state_filters(self, client: TestClient, service: Service, state: State) -> None:
        fill(service)
        expected = {job.id for job in service.queue.jobs(states=[state])}
        shown = {
            int(each["id"].removeprefix("job-"))
            for each in read(client, f"/?state={state}").all("li")
            if each.get("id", "").startswith("job-")
        }
        assert shown == expected

    def test_pages_lead_to_every_ended_job(self, client: TestClient, service: Service) -> None:
        numbers = [ended(service, State.DONE).id for _ in range(60)]
        path, seen = "/", []
        for _ in range(3):
            page = read(client, path)
            seen += [each["id"] for each in page.all("li") if each.get("id", "").startswith("job-")]
            path = next((each["href"] for each in page.all("a") if each.get("rel") == "next"), "")
        assert seen == [f"job-{number}" for number in reversed(numbers)] and not path

    def test_running_ones_come_first_and_then_the_line_as_it_is_worked_on(
        self, client: TestClient, service: Service
    ) -> None:
        late = submitted(service).id
        urgent = service.queue.submit(
            dataclasses.replace(
                service.queue.get(late).request, options=JobOptions(priority=5, label="urgent")
            )
        )[0].id
        service.queue.admit("me")
        assert service.queue.claim("me", []) is not None
        more = submitted(service).id
        shown = [e["id"] for e in read(client, "/").all("li") if e.get("id", "").startswith("job-")]
        assert shown == [f"job-{number}" for number in (urgent, late, more)]

    @pytest.mark.parametrize("query", ["state=none", "before=x", "before=0", f"before={2**40}"])
    def test_what_is_no_filter_is_no_page(self, client: TestClient, query: str) -> None:
        read(client, f"/?{query}", 404)


class TestJob:
    @pytest.mark.parametrize("state", ENDS)
    def test_one_that_has_ended(self, client: TestClient, service: Service, state: State) -> None:
        job = ended(service, state, "why it ended")
        page = read(client, f"/jobs/{job.id}")
        assert page.of("state") == str(state) and "why it ended" in page.of("headline")
        actions = {each["action"].rpartition("/")[2] for each in page.all("form")}
        can_go_on = state in (State.FAILED, State.CANCELLED, State.STOPPED)
        assert ("resume" in actions) == can_go_on and "cancel" not in actions
        assert "data-events" not in dict(page.all("body")[0])

    def test_one_that_runs(self, client: TestClient, service: Service) -> None:
        job = at_work(service)
        page = read(client, f"/jobs/{job.id}")
        assert "as 20260301T100000Z-resnet18-9f3ab2c4 took" in page.of("running")
        assert page.all("body")[0]["data-events"] == f"/api/v1/jobs/{job.id}/events"
        states = [word for word in page.of("happened").split() if word in set(State)]
        assert states == ["submitted", "waiting", "running"]
        log = page.of("log")
        assert "red" in log and HOSTILE in log and "\x1b" not in log and "\u202e" not in log
        assert "resnet20" in page.of("settings")

    def test_its_front_is_a_figure_with_a_table(self, client: TestClient, service: Service) -> None:
        job = at_work(service)
        page = read(client, f"/jobs/{job.id}")
        found = found_in(service.place.results / UNFINISHED, 5.0)
        assert found is not None and len(found.front) > 3
        for plan in found.front:
            assert f"{plan.plan_id} {plan.latency_ms:.2f} ms" in page.of("found")
        drawing = page.all("svg")
        assert any(each.get("aria-labelledby") == "front-title front-desc" for each in drawing)
        assert "of 27 plans" in page.of("front-desc")

    def test_its_front_grows_while_it_runs(self, client: TestClient, service: Service) -> None:
        job = at_work(service)
        better = dataclasses.replace(
            plans()[0], number=27, kind="policy", plan_id="best", latency_ms=0.5
        )
        told.add(
            service.place.results / UNFINISHED / "study", dataclasses.replace(better, excess_ms=-4.5)
        )
        page = read(client, f"/jobs/{job.id}")
        assert "28 plans evaluated, 1 of them on the front" in page.of("found")

    def test_its_events_say_more_than_its_daemon_noted(
        self, client: TestClient, service: Service
    ) -> None:
        job = at_work(service)
        assert job.snapshot is not None
        event = {"at_s": job.snapshot.at_s + 60, "kind": "advance", "stage": "search"}
        append_jsonl(
            service.folder(job.id) / EVENTS, {**event, "step": "search", "done": 40, "total": 64}
        )
        said = read(client, f"/jobs/{job.id}").of("running")
        assert "40 of 64" in said and "about 12 min left" in said

    def test_what_another_daemon_works_on_is_what_that_one_noted(
        self, client: TestClient, service: Service
    ) -> None:
        job = running(dataclasses.replace(service, daemon_id="elsewhere"))
        page = read(client, f"/jobs/{job.id}")
        assert "said nothing yet" in page.of("running") and "on another host" in page.of("log")

    @pytest.mark.parametrize("path", ["0", "-1", "99", "x", "1e9", "99999999999999999999", "..%2f1"])
    def test_there_is_no_other(self, client: TestClient, service: Service, path: str) -> None:
        submitted(service)
        assert client.get(f"/jobs/{path}").status_code in (404, 422)

    def test_a_run_whose_name_leads_elsewhere_is_not_read(
        self, client: TestClient, service: Service
    ) -> None:
        outside = reported(service.place.results.parent, "outside")
        assert (outside / "state.json").is_file()
        job = ended(service, State.DONE, run="../outside")
        page = read(client, f"/jobs/{job.id}")
        assert "resnet18" not in page.said
        assert not [each for each in page.all("a") if each["href"].startswith("/runs/")]

    def test_one_that_followed_an_earlier_run_says_what_moved(
        self, client: TestClient, service: Service
    ) -> None:
        for name in (OLDER, NEWER):
            reported(service.place.results, name)
        moved = {"older": OLDER, "moved": True, "budget": "lost", "sentence": "It is slower."}
        meaning = Meaning(outcome=moved)
        job = running(service)
        then = Alerts(service.queue.store).noting(lambda ended: meaning)
        service.queue.end(job, State.DONE, run=NEWER, then=then)
        page = read(client, f"/jobs/{job.id}")
        assert "It is slower." in page.of("headline")
        assert f"/compare?a={OLDER}&b={NEWER}" in [each["href"] for each in page.all("a")]

    @pytest.mark.parametrize("run", ["..", ".", "x" * 300, "a b", "\u202e"])
    def test_odd_names_of_runs_are_those_of_none(
        self, client: TestClient, service: Service, run: str
    ) -> None:
        reported(service.place.results, "r")
        shutil.copy(service.place.results / "r" / "state.json", service.place.results / "../state.json")
        page = read(client, f"/jobs/{ended(service, State.DONE, run=run).id}")
        assert not [each for each in page.all("a") if each["href"].startswith("/runs/")]
        read(client, "/")


class TestRuns:
    def test_none_yet(self, client: TestClient) -> None:
        assert "There are no runs yet" in read(client, "/runs").said

    def test_all_with_their_verdicts(self, client: TestClient, service: Service) -> None:
        reported(service.place.results, OLDER)
        hostile_run(service.place.results)
        page = read(client, "/runs")
        assert "resnet18" in page.of(f"run-{OLDER}") and HOSTILE in page.said

    def test_one_frames_its_report(self, client: TestClient, service: Service) -> None:
        reported(service.place.results, OLDER, report=True)
        page = read(client, f"/runs/{OLDER}")
        assert page.all("iframe")[0]["src"] == f"/api/v1/runs/{OLDER}/report"
        answer = client.get(page.all("iframe")[0]["src"])
        policy = answer.headers["content-security-policy"]
        assert answer.status_code == 200 and "frame-ancestors 'self'" in policy and "sandbox" in policy

    def test_one_under_way_shows_its_front(self, client: TestClient, service: Service) -> None:
        job = at_work(service)
        page = read(client, f"/runs/{UNFINISHED}")
        assert "27 plans evaluated" in page.of("found") and f"/jobs/{job.id}" in str(page.all("a"))

    @pytest.mark.parametrize("name", ["none", "..%2f..%2fetc", "%2e%2e", "a" * 300])
    def test_there_is_no_other(self, client: TestClient, name: str) -> None:
        assert client.get(f"/runs/{name}").status_code == 404


class TestCompare:
    def test_two_of_the_same(self, client: TestClient, service: Service) -> None:
        for name in (OLDER, NEWER):
            reported(service.place.results, name)
        page = read(client, f"/compare?a={OLDER}&b={NEWER}")
        assert "The front of resnet18 stands" in page.said
        assert "8 configurations of the older run, 8 of the newer one" in page.of("fronts-desc")
        assert page.said.count("within") >= 8

    def test_two_that_cannot_be_compared_say_why(self, client: TestClient, service: Service) -> None:
        reported(service.place.results, OLDER)
        run = reported(service.place.results, NEWER)
        text = (run / "pareto.json").read_text().replace('"threads": 2', '"threads": 1')
        (run / "pareto.json").write_text(text)
        page = read(client, f"/compare?a={OLDER}&b={NEWER}")
        assert "cannot be compared" in page.said and "threads" in page.said

    @pytest.mark.parametrize("other", ["none", UNFINISHED, "20260304T100000Z-odd", "../x"])
    def test_one_that_is_no_finished_run_is_refused(
        self, client: TestClient, service: Service, other: str
    ) -> None:
        reported(service.place.results, OLDER)
        at_work(service)
        hostile_run(service.place.results)
        answer = client.get("/compare", params={"a": OLDER, "b": other})
        assert answer.status_code in (404, 422)
        assert 'role="alert"' in answer.text

    def test_without_any_it_asks_which(self, client: TestClient, service: Service) -> None:
        assert "Two finished runs are needed" in read(client, "/compare").said
        for name in (OLDER, NEWER):
            reported(service.place.results, name)
        assert {e["value"] for e in read(client, "/compare").all("option")} == {OLDER, NEWER}


class TestHosts:
    def test_daemons_and_what_they_do(self, client: TestClient, service: Service) -> None:
        me = dataclasses.replace(daemons.this_daemon("b5ab65236d15"), id="me", host="here")
        daemons.give_word(service.queue.store, me)
        daemons.give_word(service.queue.store, dataclasses.replace(me, id="you", host="there"))
        job = running(service)
        page = read(client, "/hosts")
        assert f"works on job {job.id}" in page.of("daemon-me") and "idle" in page.of("daemon-you")
        assert "answers here" in page.of("daemon-me") and "b5ab65236d15" in page.of("daemon-me")

    def test_nodes_of_the_cluster(self, service: Service) -> None:
        place = dataclasses.replace(service.place, address="10.0.0.1:6379")
        nodes = ClusterNodes(None)  # so that none is asked
        nodes.nodes = (
            Node(hostname="a", address="10.0.0.2", hardware_id="hw", cpu=HOSTILE, roles=("measure",)),
            Node(hostname="b", address="10.0.0.3", is_alive=False),
        )
        there = dataclasses.replace(service, place=place)
        with client_of(make_app(there, Listening(), TOKEN, nodes=nodes)) as client:
            page = read(client, "/hosts")
        assert HOSTILE in page.of("node-10.0.0.2") and "for measure" in page.of("node-10.0.0.2")
        assert "gone" in page.of("node-10.0.0.3") and "not known" in page.of("node-10.0.0.3")

    def test_rows_are_looked_at_beside_it(self, client: TestClient, app: FastAPI) -> None:
        assert "being looked at" in read(client, "/hosts").of("rows")
        app.state.stale_rows.wait()
        assert "has no rows yet" in read(client, "/hosts").of("rows")


class TestSchedules:
    def test_next_times_stand_on_both_clocks(self, client: TestClient, service: Service) -> None:
        scheduled(service)
        page = read(client, "/schedules")
        line = page.of("schedule-1")
        assert line.count("02:30 CE") == 3 and line.count("UTC") == 3 and "it was not due yet" in line

    def test_a_paused_one_is_due_no_more(self, client: TestClient, service: Service) -> None:
        scheduled(service)
        service.schedules.pause("weekly")
        line = read(client, "/schedules").of("schedule-1")
        assert "paused" in line and "CET" not in line and "Resume" in line

    def test_alerts_are_told_page_by_page(self, client: TestClient, service: Service) -> None:
        for number in range(30):
            alert = Alert(kind="front.moved", title=f"{HOSTILE} {number}", body={"sentence": "so"})
            meaning = Meaning(alert=alert)
            then = Alerts(service.queue.store).noting(lambda ended, meaning=meaning: meaning)
            service.queue.end(running(service), State.DONE, then=then)
        page = read(client, "/watches")
        assert f"{HOSTILE} 29" in page.of("alerts") and page.of("alerts").count("job ") == 25
        (older,) = [each["href"] for each in page.all("a") if each.get("rel") == "next"]
        assert read(client, older).of("alerts").count("job ") == 5

    def test_watches_are_on_a_page_of_their_own(self, client: TestClient, service: Service) -> None:
        headed(service.place.results / "net.autosparse")
        service.add_watch("results/net.autosparse", "5ms", JobOptions())
        assert "1 watch more" in read(client, "/schedules").said
        line = read(client, "/watches").of("watch-1")
        assert "net.autosparse" in line and "budget 5 ms" in line and "unknown" in line
