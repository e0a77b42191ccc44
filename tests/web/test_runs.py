"""Runs over the API."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from talking import TestClient, a_run

from autosparse.daemon.service import Service
from autosparse.run_folders.folder import claim
from autosparse.storage.files import write_json

RUNS = "/api/v1/runs"
NAMES = [f"2026010{day}T000000Z-resnet20-aaaaaaaa" for day in range(1, 8)]


@pytest.fixture
def results(service: Service) -> Path:
    for name in NAMES:
        a_run(service.place.results, name)
    (service.place.results / "jobs" / "1").mkdir(parents=True)
    return service.place.results


class TestListing:
    def test_none(self, client: TestClient) -> None:
        assert client.get(RUNS).json() == {"items": [], "next": None}

    def test_pages_hold_their_place_while_runs_come_and_go(
        self, client: TestClient, results: Path
    ) -> None:
        found: list[str] = []
        path: str | None = f"{RUNS}?limit=2"
        while path:
            body = client.get(path).json()
            found += [run["name"] for run in body["items"]]
            path = body["next"]
            a_run(results, f"20260201T00000{len(found)}Z-other-aaaaaaaa")
            client.delete(f"{RUNS}/{found[-1]}")  # where the next page begins
        assert found == NAMES[::-1]

    def test_a_damaged_one_is_shown(self, client: TestClient, results: Path) -> None:
        (results / NAMES[0] / "state.json").write_text("{")
        items = client.get(RUNS).json()["items"]
        assert items[-1]["state"] == "damaged" and len(items) == len(NAMES)

    @pytest.mark.parametrize("query", ["limit=0", "limit=201", "before=", f"before={'x' * 256}"])
    def test_odd_questions(self, client: TestClient, query: str) -> None:
        assert client.get(f"{RUNS}?{query}").status_code == 422


class TestLooking:
    def test_all_that_is_known(self, client: TestClient, results: Path) -> None:
        folder = results / NAMES[0]
        write_json(folder / "pareto.json", {"verdict": {"text": "5 ms are met"}, "front": []})
        shown = client.get(f"{RUNS}/{NAMES[0]}").json()
        assert (shown["name"], shown["state"]) == (NAMES[0], "done")
        assert shown["verdict"] == "5 ms are met" and shown["pareto"]["front"] == []
        assert shown["status"]["fingerprint"] == "f"
        assert set(shown["files"]) == {"state.json", "pareto.json"}

    def test_a_beginning_and_the_latest(self, client: TestClient, results: Path) -> None:
        assert client.get(f"{RUNS}/latest").json()["name"] == NAMES[-1]
        assert client.get(f"{RUNS}/20260103").json()["name"] == NAMES[2]
        assert client.get(f"{RUNS}/2026").status_code == 404

    @pytest.mark.parametrize("text", ["{", "[1, 2]", '{"a": NaN}'])
    def test_damaged_fronts_are_no_failure_of_the_daemon(
        self, client: TestClient, results: Path, text: str
    ) -> None:
        (results / NAMES[0] / "pareto.json").write_text(text)
        assert client.get(f"{RUNS}/{NAMES[0]}").status_code in (200, 422)
        assert client.get(RUNS).status_code == 200

    def test_names_of_files_that_are_no_text(self, client: TestClient, results: Path) -> None:
        (results / NAMES[0] / os.fsdecode(b"odd\xff")).write_text("")
        assert client.get(f"{RUNS}/{NAMES[0]}").json()["files"]["odd?"] == 0

    @pytest.mark.parametrize("name", ["nothing", "jobs", "a" * 255])
    def test_unknown_ones(self, client: TestClient, results: Path, name: str) -> None:
        assert client.get(f"{RUNS}/{name}").status_code == 404
        assert client.get(f"{RUNS}/{name}/report").status_code == 404
        assert client.delete(f"{RUNS}/{name}").status_code == 404


class TestReports:
    def test_a_report_has_an_origin_of_its_own(self, client: TestClient, results: Path) -> None:
        text = "<html><script>alert('ö')</script>"
        (results / NAMES[0] / "report.html").write_text(text)
        response = client.get(f"{RUNS}/{NAMES[0]}/report")
        assert response.text == text
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        policy = response.headers["content-security-policy"].split("; ")
        assert "sandbox allow-scripts allow-downloads" in policy and "default-src 'none'" in policy
        assert response.headers["cache-control"] == "no-store"

    def test_none_yet(self, client: TestClient, results: Path) -> None:
        response = client.get(f"{RUNS}/{NAMES[0]}/report")
        assert response.status_code == 404 and "none yet" in response.json()["detail"]

    def test_a_pipe_is_no_report(self, client: TestClient, results: Path) -> None:
        os.mkfifo(results / NAMES[0] / "report.html")
        assert client.get(f"{RUNS}/{NAMES[0]}/report").status_code == 404


class TestRemoving:
    def test_it_is_gone(self, client: TestClient, results: Path) -> None:
        response = client.delete(f"{RUNS}/{NAMES[0]}")
        assert (response.status_code, response.content) == (204, b"")
        assert not (results / NAMES[0]).exists()
        assert client.delete(f"{RUNS}/{NAMES[0]}").status_code == 404

    @pytest.mark.parametrize("named", ["latest", "20260103"])
    def test_its_whole_name_is_needed(self, client: TestClient, results: Path, named: str) -> None:
        assert client.delete(f"{RUNS}/{named}").status_code == 422
        assert len(client.get(RUNS).json()["items"]) == len(NAMES)

    def test_one_at_work_stays(self, client: TestClient, results: Path) -> None:
        with claim(results / NAMES[0]):
            response = client.delete(f"{RUNS}/{NAMES[0]}")
        assert response.status_code == 409
        assert (results / NAMES[0] / "state.json").exists()
