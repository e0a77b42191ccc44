"""What every host must do: this machine, and a node of a cluster behind its actor."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from asking import PATIENCE_S, REQUEST, RUNNER, STEP

from autosparse import hardware
from autosparse.database import TuningDatabase
from autosparse.devices.device import find
from autosparse.errors import AutosparseError, ConfigError, Stopped
from autosparse.hosts.here import LocalHost
from autosparse.hosts.host import Host
from autosparse.hosts.opening import open_host
from autosparse.progress import Progress, ProgressEvent
from autosparse.records import Measurement, Status
from autosparse.searching.parallel import Pool
from autosparse.tuning.request import TuneResult


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, known_host: Path) -> Iterator[str]:
    """A cluster of one node, whose processes have a home of their own; gives the node's address."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOSPARSE_HOME", str(known_host))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        with Pool(cores=2) as pool:
            pool.wait([pool.submit(int)])
            yield ray.nodes()[0]["NodeManagerAddress"]


@pytest.fixture(scope="module", params=["here", "a node"])
def host(request: pytest.FixtureRequest, cluster: str) -> Iterator[Host]:
    with open_host("here" if request.param == "here" else cluster) as opened:
        yield opened


def time_whole(host: Host, do: str, progress: Progress, limit_s: float = 60.0) -> dict[str, object]:
    found = host.time_whole(RUNNER, {"do": do}, step=STEP, limit_s=limit_s, progress=progress)
    return dict(found)


def tuned(host: Host, database: TuningDatabase, progress: Progress | None = None) -> TuneResult:
    device = find("cpu", host.profile())
    return host.measure(REQUEST, device, database, progress=progress)


def test_it_says_who_it_is_and_what_it_has(host: Host) -> None:
    profile = host.profile()
    assert profile.hardware_id == hardware.hardware_id()
    assert profile.cpu.f32_gflops_core
    offers = {offer.kind: offer for offer in host.catalogue()}
    assert offers["cpu"].id == profile.hardware_id
    assert offers["cpu"].kernels and not offers["cpu"].why_none
    assert "f32" not in offers["cpu"].why_not


def test_rows_come_into_the_callers_database_and_are_known_then(host: Host, tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    with TuningDatabase(str(tmp_path / "t.db")) as database:
        first = tuned(host, database, Progress(events.append).of("tune net"))
        rows = {row.key: row for row in database.rows()}
        assert first.timed == len(rows) > 0
        assert {key.hardware_id for key in rows} == {hardware.hardware_id()}
        again = tuned(host, database)
        assert (again.timed, again.reused) == (0, first.timed)
        assert {row.key: row for row in database.rows()} == rows
    assert {event.job for event in events} == {"tune net"}
    assert {"start", "advance", "end"} <= {event.kind for event in events}


def test_a_node_measures_what_is_measured_here(cluster: str, tmp_path: Path) -> None:
    found: list[set[tuple[str, ...]]] = []
    for name in ("here", cluster):
        with open_host(name) as host, TuningDatabase(str(tmp_path / f"{len(found)}.db")) as database:
            tuned(host, database)
            found.append({what(row) for row in database.rows() if row.status is Status.OK})
    assert found[0] and found[0] == found[1]


def what(row: Measurement) -> tuple[str, ...]:
    """What a row is of; which kernels are worth a row depends on the figures of those before."""
    key = row.key
    return key.hardware_id, key.shape, key.pattern, key.dtype, str(key.threads), key.policy


def test_a_session_tells_of_itself_and_gives_its_values(host: Host) -> None:
    events: list[ProgressEvent] = []
    progress = Progress(events.append).of("search a-run")
    with progress.at("measure"):
        found = time_whole(host, "tell", progress)
    assert found["do"] == "tell"
    assert found["pid"] != os.getpid()
    assert (found["parent"] == os.getpid()) == isinstance(host, LocalHost)
    assert {event.job for event in events} == {"search a-run"}
    assert [event.step for event in events if event.kind == "start"] == [STEP, "compile whole models"]
    stages = {event.step: event.stage for event in events if event.kind == "end"}
    assert stages == {STEP: "measure", "compile whole models": "compile"}


@pytest.mark.parametrize(
    ("do", "said"),
    [("raise", "no such layer"), ("exit", "exit code 3"), ("hang", "killed after 0.5 s")],
)
def test_what_goes_wrong_is_told(host: Host, do: str, said: str) -> None:
    limit_s = 0.5 if do == "hang" else 60.0
    with pytest.raises(AutosparseError, match=said):
        time_whole(host, do, Progress(), limit_s)
    assert time_whole(host, "tell", Progress())["do"] == "tell"


def test_a_stop_ends_the_session_and_its_process(host: Host) -> None:
    pids: list[int] = []
    asked_s: list[float] = []

    def note(event: ProgressEvent) -> None:
        if event.message.startswith("process "):
            pids.append(int(event.message.split()[1]))
            asked_s.append(time.monotonic())

    with pytest.raises(Stopped):
        time_whole(host, "hang", Progress(note, should_stop=lambda: bool(pids)))
    took_s = time.monotonic() - asked_s[0]
    print(f"stopped after {took_s:.2f} s, promised are 2 s")
    assert took_s < PATIENCE_S
    _, alive = psutil.wait_procs(
        [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=2
    )
    assert not alive
    assert time_whole(host, "tell", Progress())["do"] == "tell"


def test_a_stop_while_tuning_keeps_the_rows_taken_so_far(host: Host, tmp_path: Path) -> None:
    with TuningDatabase(str(tmp_path / "t.db")) as database:
        with pytest.raises(Stopped):
            tuned(host, database, Progress(should_stop=lambda: len(database.rows()) >= 1))
        kept = {row.key: row for row in database.rows()}
        assert kept
        finished = tuned(host, database)
        assert finished.reused >= 1 and finished.timed >= 1
        assert kept.items() <= {row.key: row for row in database.rows()}.items()


# ------------------------------------------------------------------------------------ a node alone


def test_a_node_that_the_cluster_lacks_is_refused(cluster: str) -> None:
    with pytest.raises(ConfigError, match=rf"^host must .* got 'node:nowhere'; its nodes: .*{cluster}"):
        open_host("node:nowhere")


def test_what_runs_on_a_node_ends_with_its_host(cluster: str) -> None:
    host = open_host(cluster)
    pid = int(str(time_whole(host, "tell", Progress())["parent"]))
    assert psutil.pid_exists(pid)
    actor = psutil.Process(pid)
    host.close()
    host.close()
    _, alive = psutil.wait_procs([actor], timeout=10)
    assert not alive
