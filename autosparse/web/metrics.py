"""Figures for Prometheus.

What is in line is asked of the database at each scrape: all daemons of one database show the same, so
take one of them (``max by``), not their sum. Jobs that ended are counted by the daemon that ended them,
as it sees their transitions, and each transition is one daemon's: take the sum over daemons. These
counts begin anew with each start, which Prometheus knows how to read. Counted in the database they
would fall when old jobs are deleted, which it would take for a start and count all of them again.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from autosparse.daemon.service import Service
from autosparse.jobs.records import Transition
from autosparse.jobs.states import OPEN, State
from autosparse.jobs.verbs import VERBS
from autosparse.version import __version__
from autosparse.web.changes import Changes

_BUCKETS_S = (1, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400)

__all__ = ["CONTENT_TYPE_LATEST", "Collector", "Metrics"]


class Metrics:
    """The figures of one daemon, in a registry of its own.

    Args:
        service: of the daemon.
        is_working: tells whether it takes jobs.
        collectors: of others, such as stale rows and whether models meet their budgets.
    """

    def __init__(
        self,
        service: Service,
        is_working: Callable[[], bool],
        collectors: Sequence[Collector] = (),
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Ended(service))
        self._registry.register(_Queue(service, is_working))
        ProcessCollector(registry=self._registry)
        about = Info("autosparse", "The daemon.", registry=self._registry)
        about.info({"version": __version__, "daemon": service.daemon_id})
        for collector in collectors:
            self._registry.register(collector)

    def text(self) -> bytes:
        """Gives all figures as Prometheus reads them.

        Raises:
            DatabaseError: the database is away.
        """
        return generate_latest(self._registry)


class _Queue(Collector):
    """What is in line and at work, asked of the database."""

    def __init__(self, service: Service, is_working: Callable[[], bool]) -> None:
        self._service = service
        self._is_working = is_working

    def collect(self) -> Iterator[Metric]:
        """Asks."""
        queue = self._service.queue
        depths = GaugeMetricFamily("autosparse_jobs", "Jobs by state.", labels=["state"])
        for state, count in queue.depths().items():
            depths.add_metric([str(state)], count)
        yield depths
        waits = GaugeMetricFamily(
            "autosparse_oldest_waiting_seconds", "How long the oldest job waits that may begin."
        )
        waits.add_metric([], queue.longest_wait_s())
        yield waits
        running = GaugeMetricFamily("autosparse_daemon_running_jobs", "Jobs that run at this daemon.")
        running.add_metric([], queue.running_of(self._service.daemon_id))
        yield running
        works = GaugeMetricFamily("autosparse_daemon_working", "1 while this daemon takes jobs.")
        works.add_metric([], float(self._is_working()))
        yield works


class _Ended(Collector):
    """Jobs that this daemon ended, counted as their transitions are seen."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._changes = Changes(service.queue, service.queue.last_transition())
        self._ran = Histogram(
            "autosparse_job_duration_seconds",
            "Time that the processes of a job took until this daemon ended it, all attempts together.",
            ["verb", "state"],
            buckets=_BUCKETS_S,
            registry=None,
        )
        for verb, state in itertools.product(VERBS, State):
            if state not in OPEN:
                self._ran.labels(verb, str(state))  # shown as 0, so that the first one is an increase

    def collect(self) -> Iterator[Metric]:
        """Counts what has ended since it was last asked, and gives the counts."""
        with self._lock:
            while seen := self._changes.new():
                self._count([transition for _, transition in seen])
        yield from self._ran.collect()

    def _count(self, seen: Sequence[Transition]) -> None:
        own = self._service.daemon_id
        ends = [each for each in seen if each.daemon == own and each.after not in OPEN]
        jobs = self._service.queue.many({end.job_id for end in ends})
        for end in ends:
            if end.job_id in jobs:  # else it was deleted at once
                job = jobs[end.job_id]
                self._ran.labels(job.request.verb, str(end.after)).observe(job.ran_s)
