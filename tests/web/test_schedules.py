"""Schedules over the API."""

from __future__ import annotations

import pytest
from talking import TUNE, TestClient

from autosparse.daemon.service import Service

SCHEDULES = "/api/v1/schedules"
WEEKLY = {**TUNE, "cron": "0 3 * * sun", "timezone": "Europe/Berlin"}


def added(client: TestClient, **more: object) -> dict[str, object]:
    response = client.post(SCHEDULES, json={**WEEKLY, **more})
    assert response.status_code == 201, response.text
    return dict(response.json())


class TestAdding:
    def test_a_schedule_is_answered_as_it_is_stored(self, client: TestClient) -> None:
        asked = {"name": "weekly", "catch_up": "skip", "jitter": "10m", "priority": 3, "retries": 1}
        asked |= {"time_limit": "2h", "label": "l", "hardware_id": "h"}
        response = client.post(SCHEDULES, json={**WEEKLY, **asked})
        shown = response.json()
        assert response.status_code == 201
        assert response.headers["location"] == f"{SCHEDULES}/{shown['id']}"
        assert client.get(f"{SCHEDULES}/{shown['id']}").json() == shown
        assert client.get(f"{SCHEDULES}/weekly").json() == shown
        assert client.get(SCHEDULES).json()["items"] == [shown]
        assert (shown["catch_up"], shown["jitter_s"], shown["time_limit_s"]) == ("skip", 600.0, 7200.0)
        assert shown["description"] == "At 03:00 on Sunday" and shown["enabled"] is True
        assert str(shown["next_at"]).endswith(("T01:00:00Z", "T02:00:00Z"))

    def test_names_are_made_where_none_are_given(self, client: TestClient) -> None:
        names = [added(client)["name"] for _ in range(3)]
        assert names == ["tune-resnet20", "tune-resnet20-2", "tune-resnet20-3"]

    def test_a_name_is_taken_once(self, client: TestClient) -> None:
        added(client, name="weekly")
        response = client.post(SCHEDULES, json={**WEEKLY, "name": "weekly"})
        assert response.status_code == 409 and "weekly" in response.json()["detail"]

    @pytest.mark.parametrize(
        ("change", "where"),
        [
            ({"cron": "0 3 * *"}, "five fields"),
            ({"cron": "60 3 * * *"}, "minute"),
            ({"cron": "0 0 31 2 *"}, "day-of-month"),
            ({"cron": ""}, "cron"),
            ({"cron": "9" * 300}, "cron"),
            ({"cron": None}, "cron"),
            ({"timezone": "Berlin"}, "Europe/Berlin"),
            ({"timezone": "../../etc/passwd"}, "time zone"),
            ({"timezone": "\0"}, "time zone"),
            ({"name": "5"}, "name"),
            ({"name": ""}, "name"),
            ({"name": "   "}, "name"),
            ({"name": "a/b"}, "slash"),
            ({"name": ".."}, "slash"),
            ({"name": "a\nb"}, "name"),
            ({"name": "n" * 201}, "name"),
            ({"name": "\ud800"}, "name"),
            ({"catch_up": "twice"}, "catch_up"),
            ({"jitter": "8d"}, "jitter"),
            ({"jitter": "0s"}, "jitter"),
            ({"jitter": "1e300h"}, "jitter"),
            ({"jitter": "ten minutes"}, "jitter"),
            ({"not_before": "2027-01-01T00:00:00Z"}, "not_before"),
            ({"verb": "serve"}, "verb"),
            ({"settings": {"model": "nothing"}}, "nothing"),
        ],
    )
    def test_what_breaks_a_rule_is_refused_and_not_stored(
        self, client: TestClient, service: Service, change: dict[str, object], where: str
    ) -> None:
        import json

        body = json.dumps({**WEEKLY, **change})
        response = client.post(SCHEDULES, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 422 and where in response.json()["detail"], response.text
        assert service.schedules.all() == []


class TestWorkingWithOne:
    def test_it_is_paused_and_resumed(self, client: TestClient) -> None:
        before = added(client, name="weekly")
        paused = client.post(f"{SCHEDULES}/weekly/pause").json()
        assert (paused["enabled"], paused["next_at"]) == (False, None)
        assert client.get(f"{SCHEDULES}/weekly/next").json() == {"items": []}
        assert client.post(f"{SCHEDULES}/{before['id']}/resume").json() == before

    def test_its_next_times(self, client: TestClient) -> None:
        shown = added(client, name="weekly")
        items = client.get(f"{SCHEDULES}/weekly/next?count=3").json()["items"]
        assert len(items) == 3 and items == sorted(items) and items[0] == shown["next_at"]

    def test_it_is_removed_and_its_jobs_stay(self, client: TestClient, service: Service) -> None:
        added(client, name="weekly")
        request = service.schedules.get("weekly").request
        with service.queue.store.writing() as connection:
            number = service.queue.insert(connection, request, schedule_id=1, due_at_s=1.0)
        response = client.delete(f"{SCHEDULES}/weekly")
        assert (response.status_code, response.content) == (204, b"")
        assert client.get(f"{SCHEDULES}/weekly").status_code == 404
        job = client.get(f"/api/v1/jobs/{number}").json()
        assert (job["schedule_id"], job["due_at"]) == (1, "1970-01-01T00:00:01Z")

    def test_what_became_of_its_due_times(self, client: TestClient, service: Service) -> None:
        import sqlalchemy as sa

        from autosparse.jobs.schema import SCHEDULES as TABLE

        added(client, name="often", cron="* * * * *")
        assert client.get(f"{SCHEDULES}/often/occurrences").json() == {"items": []}
        since = {"last_due_s": TABLE.c.last_due_s - 180, "next_at_s": 1}
        with service.queue.store.writing() as connection:
            connection.execute(sa.update(TABLE).values(since))
        made = service.schedules.make_due_jobs()
        items = client.get(f"{SCHEDULES}/often/occurrences").json()["items"]
        assert [item["outcome"] for item in items][:2] == ["fired", "missed"]
        assert items[0]["job_id"] == made[0] and items[0]["due_at"].endswith(":00Z")
        assert len(client.get(f"{SCHEDULES}/often/occurrences?limit=1").json()["items"]) == 1

    @pytest.mark.parametrize("named", ["nothing", "7", "999999999999", "%20", "a%0Ab", "%00", "-1"])
    def test_unknown_ones(self, client: TestClient, named: str) -> None:
        for method, rest in (
            *(("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")),
            *(("GET", "/next"), ("GET", "/occurrences")),
        ):
            response = client.request(method, f"{SCHEDULES}/{named}{rest}")
            assert response.status_code == 404, (method, rest, response.text)

    @pytest.mark.parametrize("query", ["next?count=0", "next?count=51", "occurrences?limit=0"])
    def test_odd_questions(self, client: TestClient, query: str) -> None:
        added(client, name="weekly")
        assert client.get(f"{SCHEDULES}/weekly/{query}").status_code == 422
