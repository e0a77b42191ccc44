"""Watches, alerts and comparisons over the API."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from headed import headed
from shop import NEWER, OLDER, reported
from talking import TestClient, a_run

from autosparse.daemon.service import Service
from autosparse.jobs.schema import ALERTS

WATCHES = "/api/v1/watches"


@pytest.fixture
def asked(service: Service) -> dict[str, object]:
    headed(service.place.results / "a.safetensors")
    return {"artifact": "results/a.safetensors", "latency_budget": "5ms"}


class TestWatches:
    def test_one_is_answered_as_it_is_stored(
        self, client: TestClient, asked: dict[str, object]
    ) -> None:
        more = {"name": "phone", "cron": "0 4 * * *", "threads": 1, "judged": "best", "priority": 2}
        response = client.post(WATCHES, json={**asked, **more, "jitter": "1m"})
        assert response.status_code == 201, response.text
        shown = response.json()
        assert client.get(response.headers["location"]).json() == shown
        assert client.get(f"{WATCHES}/phone").json() == shown
        assert client.get(WATCHES).json() == {"items": [shown]}
        assert (shown["budget_ms"], shown["verdict"], shown["checked"]) == (5.0, "unknown", None)
        schedule = shown["schedule"]
        assert (schedule["name"], schedule["verb"], schedule["jitter_s"]) == ("phone", "check", 60.0)
        assert (schedule["priority"], schedule["catch_up"]) == (2, "skip")

    def test_what_is_not_said(self, client: TestClient, asked: dict[str, object]) -> None:
        schedule = client.post(WATCHES, json=asked).json()["schedule"]
        assert (schedule["cron"], schedule["jitter_s"]) == ("0 * * * *", 600.0)
        assert schedule["name"].startswith("check-a.safetensors")

    def test_it_is_removed(self, client: TestClient, asked: dict[str, object]) -> None:
        number = client.post(WATCHES, json=asked).json()["schedule"]["id"]
        assert client.delete(f"{WATCHES}/{number}").status_code == 204
        assert client.get(f"{WATCHES}/{number}").status_code == 404

    def test_another_schedule_is_none(self, client: TestClient) -> None:
        other = {"verb": "tune", "settings": {"model": "resnet20"}, "cron": "@daily", "name": "daily"}
        assert client.post("/api/v1/schedules", json=other).status_code == 201
        for method in ("GET", "DELETE"):
            response = client.request(method, f"{WATCHES}/daily")
            assert response.status_code == 404 and "watch list" in response.json()["detail"]
        assert client.get("/api/v1/schedules/daily").status_code == 200

    @pytest.mark.parametrize(
        ("change", "where"),
        [
            ({"artifact": "results/none"}, "artifact"),
            ({"artifact": "/etc/passwd"}, "artifact"),
            ({"artifact": "results/../../etc/passwd"}, "artifact"),
            ({"artifact": "results"}, "artifact"),
            ({"artifact": ""}, "artifact"),
            ({"artifact": "a\0"}, "artifact"),
            ({"latency_budget": "5"}, "latency_budget"),
            ({"latency_budget": 5}, "latency_budget"),
            ({"threads": 0}, "threads"),
            ({"judged": "mean"}, "judged"),
            ({"cron": "never"}, "cron"),
            ({"jitter": "8d"}, "jitter"),
            ({"catch_up": "once"}, "catch_up"),
        ],
    )
    def test_what_breaks_a_rule_is_refused_and_not_stored(
        self,
        client: TestClient,
        service: Service,
        asked: dict[str, object],
        change: dict[str, object],
        where: str,
    ) -> None:
        response = client.post(WATCHES, json={**asked, **change})
        assert response.status_code == 422 and where in response.json()["detail"]
        assert service.schedules.all() == []


class TestAlerts:
    def test_pages_of_them(self, client: TestClient, service: Service) -> None:
        assert client.get("/api/v1/alerts").json() == {"items": [], "next": None}
        rows = [
            {
                "kind": "front.moved",
                "title": f"number {number}",
                "body": {"n": number},
                "at_s": float(number),
                "job_id": number,
                "schedule_id": None,
            }
            for number in range(1, 6)
        ]
        with service.queue.store.writing() as connection:
            connection.execute(sa.insert(ALERTS), rows)
        found, path = [], "/api/v1/alerts?limit=2"
        while path:
            body = client.get(path).json()
            found += [(alert["title"], alert["body"]["n"], alert["at"]) for alert in body["items"]]
            path = body["next"]
        assert found == [
            (f"number {number}", number, f"1970-01-01T00:00:0{number}Z") for number in range(5, 0, -1)
        ]


class TestComparing:
    @pytest.fixture
    def runs(self, service: Service) -> Path:
        reported(service.place.results, OLDER)
        reported(service.place.results, NEWER, seed=1)
        return service.place.results

    def test_two_runs(self, client: TestClient, runs: Path) -> None:
        shown = client.get(f"/api/v1/runs/{OLDER}/compare/latest").json()
        assert (shown["older"], shown["newer"], shown["comparable"]) == (OLDER, NEWER, True)
        assert shown["sentence"] and shown["move"]["configs"]

    def test_one_that_is_not_there(self, client: TestClient, runs: Path) -> None:
        assert client.get(f"/api/v1/runs/{OLDER}/compare/nothing").status_code == 404
        assert client.get(f"/api/v1/runs/nothing/compare/{OLDER}").status_code == 404

    def test_one_that_has_no_front_yet(self, client: TestClient, runs: Path) -> None:
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-resnet20-aaaaaaaa"
        a_run(runs, name, status="running")
        response = client.get(f"/api/v1/runs/{OLDER}/compare/{name}")
        assert response.status_code == 422 and name in response.json()["detail"]
