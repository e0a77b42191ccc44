"""Figures for Prometheus, read as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from talking import TOKEN, TestClient, client_of, running, service_of, submitted

from autosparse.daemon.access import Listening
from autosparse.daemon.service import Service
from autosparse.jobs.schema import JOBS, TRANSITIONS
from autosparse.jobs.states import State
from autosparse.jobs.store import Store
from autosparse.web.app import make_app

SERIES = "autosparse_job_duration_seconds"


def figures(client: TestClient) -> dict[tuple[str, ...], float]:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def ended(service: Service, state: State = State.DONE, ran_s: float = 0.0, owner: str = "me") -> int:
    job = running(service, owner)
    return service.queue.end(job, state, ran_s=ran_s).id


class TestQueue:
    def test_jobs_by_state(self, client: TestClient, service: Service) -> None:
        assert figures(client)["autosparse_jobs", "state=waiting"] == 0
        for _ in range(3):
            submitted(service)
        running(service, priority=1)
        shown = figures(client)
        assert [shown["autosparse_jobs", f"state={state}"] for state in State] == [
            *(0, 3, 1),
            *(0, 0, 0, 0, 0),
        ]

    def test_what_runs_here_and_elsewhere(self, client: TestClient, service: Service) -> None:
        for owner in ("me", "me", "them"):
            running(service, owner)
        shown = figures(client)
        assert shown["autosparse_jobs", "state=running"] == 3
        assert shown["autosparse_daemon_running_jobs",] == 2

    def test_how_long_the_oldest_waits(self, empty_database: Path, tmp_path: Path) -> None:
        now_s = 1000.0
        with Store(f"sqlite:///{tmp_path / 'x.db'}", clock=lambda: now_s) as store:
            service = service_of(store, tmp_path / "results")
            with client_of(make_app(service, Listening(), TOKEN)) as client:
                assert figures(client)["autosparse_oldest_waiting_seconds",] == 0
                submitted(service, not_before_s=5000.0)
                service.queue.admit("me")
                now_s = 1100.0
                submitted(service)
                service.queue.admit("me")
                now_s = 1160.0
                assert figures(client)["autosparse_oldest_waiting_seconds",] == 60
                now_s = 5100.0
                assert figures(client)["autosparse_oldest_waiting_seconds",] == 4000

    @pytest.mark.parametrize("works", [True, False])
    def test_whether_jobs_are_taken(self, service: Service, works: bool) -> None:
        app = make_app(service, Listening(), TOKEN, is_working=lambda: works)
        with client_of(app) as client:
            assert figures(client)["autosparse_daemon_working",] == works
            ready = client.get("/readyz")
            assert ready.status_code == (200 if works else 503)
            assert client.get("/healthz").status_code == 200


class TestDurations:
    def test_each_end_is_counted_once(self, client: TestClient, service: Service) -> None:
        done, failed = ("state=done", "verb=tune"), ("state=failed", "verb=tune")
        assert figures(client)[f"{SERIES}_count", *done] == 0
        ended(service, ran_s=45.0)
        ended(service, State.FAILED, ran_s=2.0)
        for _ in range(2):
            shown = figures(client)
            assert (shown[f"{SERIES}_count", *done], shown[f"{SERIES}_sum", *done]) == (1, 45.0)
            assert shown[f"{SERIES}_count", *failed] == 1
            assert shown[f"{SERIES}_bucket", "le=30.0", *done] == 0
            assert shown[f"{SERIES}_bucket", "le=60.0", *done] == 1
        ended(service, ran_s=1.0)
        assert figures(client)[f"{SERIES}_count", *done] == 2

    def test_counts_never_fall_when_jobs_are_deleted(
        self, client: TestClient, service: Service
    ) -> None:
        ended(service)
        before = figures(client)
        with service.queue.store.writing() as connection:
            connection.execute(sa.delete(JOBS))
            connection.execute(sa.delete(TRANSITIONS))
        after = figures(client)
        counts = [key for key in before if key[0].startswith(SERIES)]
        assert counts and all(after[key] == before[key] for key in counts)

    def test_daemons_of_one_database_count_each_their_own(self, store: Store, tmp_path: Path) -> None:
        services = [service_of(store, tmp_path / name, name) for name in ("one", "two")]
        clients = [client_of(make_app(service, Listening(), TOKEN)) for service in services]
        for owner in ("one", "one", "two"):
            ended(services[0], owner=owner)
        counts = [figures(each)[f"{SERIES}_count", "state=done", "verb=tune"] for each in clients]
        assert counts == [2, 1]

    def test_a_new_start_counts_from_nothing(self, store: Store, service: Service) -> None:
        ended(service)
        with client_of(make_app(service, Listening(), TOKEN)) as client:
            assert figures(client)[f"{SERIES}_count", "state=done", "verb=tune"] == 0

    def test_every_end_is_shown_from_the_start(self, client: TestClient) -> None:
        shown = figures(client)
        for verb in ("search", "tune", "train"):
            for state in ("done", "infeasible", "failed", "cancelled", "stopped"):
                assert shown[f"{SERIES}_count", f"state={state}", f"verb={verb}"] == 0


class TestRegistry:
    def test_others_add_figures_of_their_own(self, service: Service) -> None:
        class Stale:
            def collect(self) -> Iterator[Metric]:
                yield GaugeMetricFamily("autosparse_stale_rows", "Rows to measure again.", value=7)

        app = make_app(service, Listening(), TOKEN, collectors=[Stale()])
        with client_of(app) as client:
            assert figures(client)["autosparse_stale_rows",] == 7

    def test_it_is_the_application_s_own(self, client: TestClient) -> None:
        names = {key[0] for key in figures(client)}
        assert {"autosparse_info", "process_resident_memory_bytes"} <= names
        shared = {sample.name for family in REGISTRY.collect() for sample in family.samples}
        assert not [name for name in shared if name.startswith("autosparse")]
