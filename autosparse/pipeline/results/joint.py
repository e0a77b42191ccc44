"""One model for several hosts: what configurations take on each, and the fronts over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autosparse.errors import ExitCode
from autosparse.plans.front import Point, feasible_front
from autosparse.records import Record, WholeLatency


@dataclass(frozen=True, slots=True, kw_only=True)
class JointConfig(Record):
    """A configuration, run whole on every host.

    Attributes:
        id: its name in the runs that it is of.
        runs: names of these runs.
        plan: its plan's file, relative to the folder of runs.
        weights: its own weights, likewise; None where they are the dense ones, pruned.
        dtype: arithmetic type.
        sparsity: fraction of weights that are pruned.
        accuracy: what it reached.
        accuracy_kind: how much training is behind that.
        accuracy_split: what it was evaluated on.
        latencies: hardware id to latency there.
        why_not: hardware id to the reason why it was not run there.
    """

    id: str
    runs: tuple[str, ...]
    plan: str
    weights: str | None
    dtype: str
    sparsity: float
    accuracy: float
    accuracy_kind: str
    accuracy_split: str
    latencies: Mapping[str, WholeLatency] = field(default_factory=dict)
    why_not: Mapping[str, str] = field(default_factory=dict)

    @property
    def worst(self) -> tuple[str, float]:
        """The host that it is slowest on, and its milliseconds there."""
        host = max(self.latencies, key=lambda each: self.latencies[each].median_ms)
        return host, self.latencies[host].median_ms

    def mean_ms(self, weights: Mapping[str, float]) -> float:
        """Gives the weighted mean of its latencies, milliseconds."""
        total = sum(weights.values())
        return (
            sum(weights[host] * latency.median_ms for host, latency in self.latencies.items()) / total
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JointOutcome(Record):
    """How a search for several hosts ended.

    Attributes:
        runs: hardware id to the name of its run, whose folder has that host's own front.
        weights: hardware id to its weight in the mean.
        budget_ms: what a configuration may take on every host; None without a budget.
        dense: hardware id to the dense model's latency there, in the session of the configurations.
        configs: what was run on all hosts, the least worst latency first.
        front_worst: ids on the front of accuracy and the latency on the slowest host, fastest first.
        front_mean: ids on the front of accuracy and the weighted mean of latencies, fastest first.
        skipped: configurations that cannot run on every host.
        disturbed: hardware id to the reason why its figures may be off.
        file: where this is kept.
    """

    runs: Mapping[str, str]
    weights: Mapping[str, float]
    budget_ms: float | None
    dense: Mapping[str, WholeLatency]
    configs: tuple[JointConfig, ...]
    front_worst: tuple[str, ...]
    front_mean: tuple[str, ...]
    skipped: tuple[JointConfig, ...] = ()
    disturbed: Mapping[str, str] = field(default_factory=dict)
    file: str = ""

    @property
    def exit_code(self) -> ExitCode:
        """What the shell shall see: whether any configuration meets the budget on every host."""
        return ExitCode.DONE if self.front_worst else ExitCode.INFEASIBLE

    def to_json(self) -> dict[str, Any]:
        """Gives all of it, and per configuration what its latencies come to."""
        values = Record.to_json(self)
        for config, row in zip(self.configs, values["configs"], strict=True):
            host, worst_ms = config.worst
            row |= {"worst_ms": worst_ms, "worst_on": host, "mean_ms": config.mean_ms(self.weights)}
        return {**values, "exit_code": int(self.exit_code)}

    def text(self) -> str:
        """Gives a line per configuration of a front, and where the runs of the single hosts are."""
        hosts = tuple(self.runs)
        shown = dict.fromkeys((*self.front_worst, *self.front_mean))
        by_id = {config.id: config for config in self.configs}
        lines = [
            f"{len(self.configs)} configurations run whole on {len(hosts)} hosts; milliseconds:",
            f"{'':18} {'accuracy':>10} {'worst':>9} {'mean':>9}  "
            + " ".join(f"{host:>12}" for host in hosts),
            f"{'dense':18} {'':>10} {'':>9} {'':>9}  "
            + " ".join(f"{self.dense[host].median_ms:12.3f}" for host in hosts),
            *(self._line(by_id[name], hosts) for name in shown),
        ]
        if not self.front_worst:
            limit = "runs" if self.budget_ms is None else f"takes at most {self.budget_ms:g} ms"
            lines.append(f"no configuration {limit} on every host")
        for each in self.skipped:
            reasons = "; ".join(f"{host}: {why}" for host, why in each.why_not.items())
            lines.append(f"{each.id} is left out: {reasons}")
        lines += [f"{host} was disturbed: {why}" for host, why in self.disturbed.items()]
        lines += [f"{host}: {run}" for host, run in self.runs.items()]
        return "\n".join([*lines, f"joint: {self.file}"])

    def _line(self, config: JointConfig, hosts: tuple[str, ...]) -> str:
        places = [
            name
            for name, front in (("worst", self.front_worst), ("mean", self.front_mean))
            if config.id in front
        ]
        each = " ".join(f"{config.latencies[host].median_ms:12.3f}" for host in hosts)
        return (
            f"{config.id:18} {100 * config.accuracy:8.2f} % {config.worst[1]:9.3f} "
            f"{config.mean_ms(self.weights):9.3f}  {each}  front: {', '.join(places)}"
        )


def joint_outcome(
    found: tuple[JointConfig, ...],
    *,
    runs: Mapping[str, str],
    weights: Mapping[str, float],
    budget_ms: float | None,
    dense: Mapping[str, WholeLatency],
    disturbed: Mapping[str, str],
    file: str,
) -> JointOutcome:
    """Finds the fronts over all hosts.

    A configuration that takes longer than the budget on any host is on no front.

    Args:
        found: configurations, some of which may not run everywhere.
        runs: hardware id to the name of its run.
        weights: hardware id to its weight in the mean, of the same hosts.
        budget_ms: what a configuration may take on every host.
        dense: hardware id to the dense model's latency.
        disturbed: hardware id to the reason why its figures may be off.
        file: where the outcome is kept.
    """
    everywhere = [config for config in found if config.latencies.keys() == runs.keys()]
    configs = sorted(everywhere, key=lambda config: (config.worst[1], -config.accuracy, config.id))

    def front(latency_ms: Mapping[str, float]) -> tuple[str, ...]:
        excess = {each.id: 0.0 if budget_ms is None else each.worst[1] - budget_ms for each in configs}
        points = [
            Point(each.id, latency_ms[each.id], each.accuracy, excess[each.id]) for each in configs
        ]
        return tuple(point.name for point in feasible_front(points))

    return JointOutcome(
        runs=runs,
        weights=weights,
        budget_ms=budget_ms,
        dense=dense,
        configs=tuple(configs),
        front_worst=front({each.id: each.worst[1] for each in configs}),
        front_mean=front({each.id: each.mean_ms(weights) for each in configs}),
        skipped=tuple(config for config in found if config not in everywhere),
        disturbed=disturbed,
        file=file,
    )
