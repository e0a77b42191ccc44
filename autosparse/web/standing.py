"""Figures of what has been measured: whether artifacts meet their budgets, and which rows are stale.

They are those of the database: all daemons of one show the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from autosparse.daemon.service import Service
from autosparse.daemon.stale import Looked

_LABELS = ("watch", "model", "hardware_id")


class WatchedBudgets(Collector):
    """How the last checks of all watches came out.

    Args:
        service: of the daemon.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Asks the database."""
        met = _gauge("autosparse_budget_met", "1 if the last check decided so, 0 if it missed.")
        budget = _gauge("autosparse_budget_seconds", "What the latency shall be at most.")
        median = _gauge("autosparse_latency_seconds", "Median latency at the last check.")
        noise = _gauge(
            "autosparse_latency_interval_ratio",
            "Width of the 95 % interval of the last check over its median: the noise of measuring.",
        )
        disturbed = _gauge(
            "autosparse_check_disturbed", "1 if something else ran on the host meanwhile."
        )
        for watch in self._service.watches():
            checked = watch.checked
            if checked is None:
                continue
            labels = [watch.schedule.name, checked.model, checked.hardware_id]
            if checked.decided:
                met.add_metric(labels, checked.decided == "met")
            budget.add_metric(labels, watch.budget_ms / 1e3)
            disturbed.add_metric(labels, bool(checked.disturbed))
            if checked.median_ms and checked.interval_ms:
                low_ms, high_ms = checked.interval_ms
                median.add_metric(labels, checked.median_ms / 1e3)
                noise.add_metric(labels, (high_ms - low_ms) / checked.median_ms)
        yield from (met, budget, median, noise, disturbed)


class StaleRowFigures(Collector):
    """What the last look at the tuning database found; nothing before there was one.

    Args:
        known: gives it.
    """

    def __init__(self, known: Callable[[], Looked | None]) -> None:
        self._known = known

    def collect(self) -> Iterator[Metric]:
        """Asks for it."""
        labels = ("hardware_id",)
        rows = GaugeMetricFamily("autosparse_rows", "Rows of the tuning database.", labels=labels)
        stale = GaugeMetricFamily(
            "autosparse_stale_rows", "Rows that would be measured again.", labels=labels
        )
        looked = self._known()
        for device in looked.devices if looked else ():
            rows.add_metric([device.hardware_id], device.rows)
            stale.add_metric([device.hardware_id], device.stale)
        yield from (rows, stale)


def _gauge(name: str, about: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, labels=_LABELS)
