"""A comparison from end to end: limits, tuning, one session per thread count, memory."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from autosparse.compare import memory, own, rates, task
from autosparse.compare.checks import check
from autosparse.compare.peer import Peer, all_peers, chosen, find
from autosparse.compare.records import Asked, Comparison, Own, Refusal, Result, Session
from autosparse.compare.session import SessionRequest
from autosparse.devices import kind_and_number
from autosparse.hosts.host import Host
from autosparse.hosts.opening import open_host
from autosparse.progress import Progress
from autosparse.records import HardwareProfile, LayerInfo
from autosparse.storage import paths
from autosparse.version import __version__

RUNNER = "autosparse.compare.session:run"
# A session that takes this much longer than it was asked to measure hangs: engines compile for minutes.
_HUNG_S = 3600.0
_PATIENCE = 20.0


def compare(asked: Asked, progress: Progress | None = None) -> Comparison:
    """Runs a model on our engine and on others, in turn, once per thread count.

    Kernels, and N where it is free, are chosen by the tuner; rows that it does not know yet are
    measured first and kept. Nobody is timed before the output was compared with torch's in float32.

    Args:
        asked: what to compare.
        progress: told of every stage, and asked whether to stop.

    Raises:
        UsageError: something asked for cannot be meant; nothing was started.
        MissingDependency: a peer that was named is not installed.
        AutosparseError: a session's process ended.
        Stopped: a stop was asked for; rows measured so far are kept.
    """
    check(asked)
    progress = (progress or Progress()).of(f"bench {asked.subject.model}")
    with open_host() as host:
        return _compare(asked, host, progress)


def _compare(asked: Asked, host: Host, progress: Progress) -> Comparison:
    own.check_dtypes(asked.dtypes, asked.device)
    with progress.at("profile"):
        hardware = host.profile(progress=progress)
    shape = task.input_shape(asked.subject)
    if asked.device == "cpu" and (asked.dense or asked.sparsities or asked.plan):
        own.check_native(asked.subject.model, task.fused(asked.subject, shape))
    layers = task.capture(asked.subject, shape, asked.device)
    sparse = own.sparse_layers(layers, asked.exclude) if asked.sparsities else ()
    sessions = []
    with _folder() as folder:
        for threads in asked.threads:
            with progress.at("tune"):
                ours = _own(asked, layers, sparse, threads, hardware, host, progress)
            request = _request(asked, shape, layers, threads, folder, ours, hardware)
            with progress.at("measure"):
                session = _run_apart(request, host, progress)
            with progress.at("memory"):
                sessions.append(_with_memory(session, request, progress))
    return Comparison(
        asked=asked,
        input_shape=shape,
        dense_flops=rates.dense_flops(layers),
        hardware=hardware,
        versions=versions(chosen(asked.against, kind_and_number(asked.device)[0])),
        sessions=tuple(sessions),
        absent=absent() if asked.against is None else (),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@contextmanager
def _folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="autosparse-compare-") as folder:
        yield folder


def _own(
    asked: Asked,
    layers: Sequence[LayerInfo],
    sparse: Sequence[LayerInfo],
    threads: int,
    hardware: HardwareProfile,
    host: Host,
    progress: Progress,
) -> tuple[Own, ...]:
    found: list[Own] = []
    for dtype in asked.dtypes if asked.dense or asked.sparsities else ():
        if asked.untuned:
            found += own.untuned_contestants(asked, layers, sparse, dtype)
            continue
        tuned = own.tune_layers(asked, layers, sparse, dtype, threads, hardware, host, progress)
        found += own.contestants(asked, layers, sparse, dtype, tuned)
    return (*found, *own.named_contestants(asked))


def _request(
    asked: Asked,
    shape: tuple[int, ...],
    layers: Sequence[LayerInfo],
    threads: int,
    folder: str,
    ours: tuple[Own, ...],
    hardware: HardwareProfile,
) -> SessionRequest:
    return SessionRequest(
        subject=asked.subject,
        shape=shape,
        threads=threads,
        folder=folder,
        peers=tuple(peer.name for peer in chosen(asked.against, kind_and_number(asked.device)[0])),
        own=ours,
        peers_masked=asked.peers_masked,
        policy=asked.policy,
        database=_database(asked, folder),
        dense_flops=rates.dense_flops(layers),
        dense_weights=rates.dense_weights(layers),
        hardware=hardware,
        compact_weights=asked.compact_weights,
        layers_alone=asked.layers_alone,
        device=asked.device,
    )


def _database(asked: Asked, folder: str) -> str:
    """Gives the rows that our engine picks by: none at all for what shall run untuned."""
    if asked.untuned:
        return f"sqlite:///{folder}/untuned.db"
    return asked.database or paths.tuning_database_url()


def _run_apart(request: SessionRequest, host: Host, progress: Progress) -> Session:
    limit_s = _HUNG_S + _PATIENCE * request.policy.time_cap_us / 1e6
    step = f"start a session on {request.threads}"
    values = request.to_json()
    told = host.time_whole(RUNNER, values, step=step, limit_s=limit_s, progress=progress)
    return Session.from_json(told)


def _with_memory(session: Session, request: SessionRequest, progress: Progress) -> Session:
    """Measures the memory of every peer on the dense model, each in a process of its own."""
    peers = [r for r in session.results if not r.contestant.is_ours and not r.contestant.zeros]
    found = {}
    with progress.step("measure memory", len(peers)) as step:
        for result in peers:
            found[result.contestant.name] = _with_peak(result, request)
            step.advance()
    results = tuple(found.get(result.contestant.name, result) for result in session.results)
    return dataclasses.replace(session, results=results)


def _with_peak(result: Result, request: SessionRequest) -> Result:
    job = memory.MemoryJob(
        peer=result.contestant.engine,
        variant=result.contestant.name,
        subject=request.subject,
        shape=request.shape,
        threads=request.threads,
        folder=request.folder,
    )
    return dataclasses.replace(result, memory=memory.measure(job))


def absent() -> tuple[Refusal, ...]:
    """Gives the peers that are not installed, with what to run to get them."""
    return tuple(
        Refusal(name=peer.name, kind="absent", reason=peer.hint) for peer in all_peers() if peer.missing
    )


def versions(peers: Sequence[Peer]) -> dict[str, str]:
    """Gives the versions that the figures depend on."""
    found = {name: importlib.metadata.version(name) for name in ("torch", "numpy")}
    for peer in peers:
        found |= find(peer.name).versions()
    return {"autosparse": __version__, "python": platform.python_version(), **found}
