"""Figures of watches and of stale rows."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.registry import Collector, CollectorRegistry

from autosparse.daemon.stale import Looked
from autosparse.daemon.watches import Checked, Watch
from autosparse.database.staleness import Freshness
from autosparse.jobs.records import JobRequest
from autosparse.schedules.schedule import Schedule
from autosparse.web.standing import StaleRowFigures, WatchedBudgets

MET = Checked(
    verdict="open",
    decided="met",
    model="resnet18",
    hardware_id="abc",
    median_ms=4.0,
    interval_ms=(3.9, 4.1),
    disturbed="a neighbour",
)


class Watching:
    def __init__(self, *checked: Checked | None) -> None:
        self.found = [watch(f"w{number}", each) for number, each in enumerate(checked)]

    def watches(self) -> Sequence[Watch]:
        return self.found


def watch(name: str, checked: Checked | None) -> Watch:
    request = JobRequest(verb="check", settings={"artifact": "/a", "latency_budget": "5ms"})
    schedule = Schedule(id=1, name=name, cron="0 * * * *", timezone="UTC", request=request)
    return Watch(schedule=schedule, artifact="/a", budget_ms=5.0, checked=checked)


def figures(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def test_a_check_that_decided_nothing_leaves_what_was_decided_before() -> None:
    shown = figures(WatchedBudgets(Watching(MET)))  # type: ignore[arg-type]
    labels = {"watch": "w0", "model": "resnet18", "hardware_id": "abc"}
    assert shown.get_sample_value("autosparse_budget_met", labels) == 1
    assert shown.get_sample_value("autosparse_budget_seconds", labels) == 0.005
    assert shown.get_sample_value("autosparse_latency_seconds", labels) == 0.004
    noise = shown.get_sample_value("autosparse_latency_interval_ratio", labels)
    assert noise is not None and abs(noise - 0.05) < 1e-9
    assert shown.get_sample_value("autosparse_check_disturbed", labels) == 1


def test_nothing_is_said_of_what_was_never_checked() -> None:
    failed = Checked(verdict="unknown")
    shown = figures(WatchedBudgets(Watching(None, failed)))  # type: ignore[arg-type]
    named = {sample.name for family in shown.collect() for sample in family.samples}
    assert named == {"autosparse_budget_seconds", "autosparse_check_disturbed"}


def test_stale_rows_by_device() -> None:
    devices = (
        Freshness(hardware_id="a", is_here=True, rows=10, current=7),
        Freshness(hardware_id="b", is_here=False, rows=5, current=5),
    )
    shown = figures(StaleRowFigures(lambda: Looked(at_s=0.0, devices=devices)))
    assert shown.get_sample_value("autosparse_stale_rows", {"hardware_id": "a"}) == 3
    assert shown.get_sample_value("autosparse_stale_rows", {"hardware_id": "b"}) == 0
    assert shown.get_sample_value("autosparse_rows", {"hardware_id": "a"}) == 10
    nothing = figures(StaleRowFigures(lambda: None))
    assert not [sample for family in nothing.collect() for sample in family.samples]
