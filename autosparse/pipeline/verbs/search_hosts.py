"""`autosparse search --hosts`: one model searched for several hosts, and the fronts over all of them.

Each host gets a search of its own, with rows, study and front of its own: the best kernels and often
the best plans differ from host to host. What these searches chose is then run whole on every host, in
one session per host with the dense model there, each time with the kernels that are fastest there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autosparse.config import ALL_HOSTS, SearchConfig, validate
from autosparse.errors import ConfigError
from autosparse.hosts.opening import open_host
from autosparse.pipeline.measured.ledger import dense_name
from autosparse.pipeline.measured.session import Contestant, SessionResult, run_apart
from autosparse.pipeline.results.joint import JointConfig, JointOutcome, joint_outcome
from autosparse.pipeline.subject.requests import dense_weights, session_request
from autosparse.pipeline.subject.survey import survey
from autosparse.pipeline.verbs.search import search
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import WholeLatency
from autosparse.report import document as form
from autosparse.run_folders.shelf import slug
from autosparse.searching.cluster import HARDWARE
from autosparse.storage.files import read_json, write_json
from autosparse.storage.paths import writable_folder

FOLDER = "joint"


@dataclass(frozen=True, slots=True)
class _Session:
    """What was measured on one host."""

    result: SessionResult
    why_not: Mapping[str, str]


def search_hosts(
    config: SearchConfig, *, resume: bool | None = None, progress: Progress | None = None
) -> JointOutcome:
    """Searches for every host, and runs what was chosen for any of them on all.

    Searches that have ended are kept in mind until all is done: the same call goes on after them.

    Args:
        config: what to search, with `hosts`.
        resume: as for `search`, of each host's run; False forgets searches that have ended, too.
        progress: told of every stage of every search.

    Returns:
        The fronts; exit code 3 if no configuration meets the budget on every host.

    Raises:
        ConfigError: the cluster has no such hosts, or weights are of others.
        UsageError: something asked for cannot be meant; nothing was started.
        NoValidConfiguration: a host's search found none.
        Stopped: a stop was asked for; the same call continues.
    """
    validate(config)
    progress = progress or Progress()
    hosts = _hosts(config)
    weights = _weights(config, hosts)
    state = _State(config, hosts, forget=resume is False)
    for hardware_id in hosts:
        if hardware_id not in state.runs:
            found = search(_for_host(config, hardware_id), resume=resume, progress=progress)
            state.note(hardware_id, found.run.name)
    outcome = _joint(config, state.runs, weights, progress.of("joint"))
    state.close()
    return outcome


def _hosts(config: SearchConfig) -> tuple[str, ...]:
    """Gives the hardware ids that are searched for.

    Raises:
        ConfigError: no node of the cluster measures that has such hardware.
    """
    from autosparse.hosts.nodes import cluster_hosts  # brings Ray

    measure = [host for host in cluster_hosts(config.address) if host.measures and host.hardware_id]
    there = tuple(sorted({host.hardware_id for host in measure}))
    if config.hosts == (ALL_HOSTS,):
        if not there:
            raise ConfigError(
                f"hosts must be those of the cluster, but no node of {config.address} measures; see "
                "the labels of its nodes"
            )
        return there
    lacking = [name for name in config.hosts if name not in there]
    if lacking:
        raise ConfigError(
            f"hosts must be in the cluster and there for measuring, but {', '.join(lacking)} are not; "
            f"its hardware: {', '.join(there) or 'none'}"
        )
    return config.hosts


def _weights(config: SearchConfig, hosts: Sequence[str]) -> dict[str, float]:
    given = config.weights_of_hosts()
    strange = [name for name in given if name not in hosts]
    if strange:
        raise ConfigError(
            f"host_weights must be of the hosts that are searched for, but {', '.join(strange)} are "
            f"none of them: {', '.join(hosts)}; leave them out"
        )
    return {name: given.get(name, 1.0) for name in hosts}


def _for_host(config: SearchConfig, hardware_id: str) -> SearchConfig:
    alone = {"host": f"{HARDWARE}{hardware_id}", "hosts": (), "host_weights": ()}
    return config.model_copy(update=alone)


class _State:
    """Which hosts' searches have ended, until all is done."""

    def __init__(self, config: SearchConfig, hosts: Sequence[str], *, forget: bool) -> None:
        folder = writable_folder(config.out / FOLDER, "the folder of joint results")
        self._file = folder / f".{config.fingerprint()}-{'-'.join(hosts)[:60]}.json"
        known: Any = read_json(self._file) if self._file.exists() and not forget else {}
        self.runs: dict[str, str] = {
            host: name
            for host, name in (known if isinstance(known, dict) else {}).items()
            if host in hosts and (config.out / str(name) / form.FILE).is_file()
        }

    def note(self, hardware_id: str, run: str) -> None:
        """Keeps in mind that a host's search has ended."""
        self.runs[hardware_id] = run
        write_json(self._file, self.runs)

    def close(self) -> None:
        """Forgets all."""
        self._file.unlink(missing_ok=True)


def _joint(
    config: SearchConfig, runs: Mapping[str, str], weights: Mapping[str, float], progress: Progress
) -> JointOutcome:
    """Runs the configurations of all runs on all hosts."""
    configs = _configs(config.out, runs)
    sessions = {host: _measured(config, host, configs, progress) for host in runs}
    found = tuple(
        dataclasses.replace(
            each,
            latencies={
                host: session.result.of(each.id).latency
                for host, session in sessions.items()
                if each.id not in session.why_not
            },
            why_not={
                host: session.why_not[each.id]
                for host, session in sessions.items()
                if each.id in session.why_not
            },
        )
        for each in configs
    )
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    file = config.out / FOLDER / f"{stamp}-{slug(config.model)}.json"
    outcome = joint_outcome(
        found,
        runs=dict(runs),
        weights=weights,
        budget_ms=None if config.latency_budget is None else config.latency_budget / 1e3,
        dense={host: _dense(session.result) for host, session in sessions.items()},
        disturbed={h: s.result.disturbed for h, s in sessions.items() if s.result.disturbed},
        file=str(file),
    )
    write_json(file, outcome.to_json())
    return outcome


def _dense(session: SessionResult) -> WholeLatency:
    return session.of(dense_name("f32")).latency


def _configs(out: Path, runs: Mapping[str, str]) -> tuple[JointConfig, ...]:
    """Gives the configurations of several runs, each structure once, with its best weights."""
    found: dict[str, JointConfig] = {}
    for run in runs.values():
        for row in form.load(out / run).configs:
            plan = _anywhere(Plan.load(out / run / row.plan))
            known = found.get(plan.id)
            mine = JointConfig(
                id=plan.id,
                runs=(*(known.runs if known else ()), run),
                plan=f"{run}/{row.plan}",
                weights=None if row.weights is None else f"{run}/{row.weights}",
                dtype=row.dtype,
                sparsity=row.sparsity,
                accuracy=row.accuracy,
                accuracy_kind=row.accuracy_kind,
                accuracy_split=row.accuracy_split,
            )
            if known is not None and known.accuracy >= mine.accuracy:
                mine = dataclasses.replace(known, runs=mine.runs)
            found[plan.id] = mine
    return tuple(found.values())


def _anywhere(plan: Plan) -> Plan:
    """Gives a plan without its kernels, which are those of one host."""
    layers = {name: dataclasses.replace(each, kernel=None) for name, each in plan.layers.items()}
    return dataclasses.replace(plan, layers=layers)


def _measured(
    config: SearchConfig, hardware_id: str, configs: Sequence[JointConfig], progress: Progress
) -> _Session:
    """Runs configurations and the dense model whole on a host, in turn."""
    alone = _for_host(config, hardware_id)
    with open_host(alone.host, alone.address) as host:
        subject = survey(alone, progress, host=host)
        offer = next(each for each in host.catalogue() if each.kind == subject.device.kind)
        why_not = {
            each.id: offer.why_not[each.dtype] for each in configs if each.dtype in offer.why_not
        }
        weights = str(dense_weights(subject, progress).resolve())
        contestants = [Contestant(name=dense_name("f32"), weights=weights)]
        contestants += [
            Contestant(
                name=each.id,
                weights=weights if each.weights is None else str((config.out / each.weights).resolve()),
                plan=_anywhere(Plan.load(config.out / each.plan)),
                pruned=each.weights is not None,
                dtype=each.dtype,
            )
            for each in configs
            if each.id not in why_not
        ]
        request = session_request(subject).with_contestants(tuple(contestants))
        request = dataclasses.replace(request, budget_us=None)
        return _Session(run_apart(request, progress, host), why_not)
