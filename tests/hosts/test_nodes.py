"""A driver, a node that trains, and one of other hardware: who measures, what is lost with a node.

The nodes really are other machines to whoever asks them: they have homes of their own and, where this
user may hide a folder from a process, do not see the driver's files. The one that measures may use one
processor, has no kernels of bf16 and a measuring lock of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from asking import PATIENCE_S, REQUEST, RUNNER, STEP
from odd_sessions import waited
from raylets import TOKEN, Raylet, Raylets
from safetensors.numpy import load_file, save_file

from autosparse import hardware, models
from autosparse.cli import run as command
from autosparse.config import SearchConfig, validate
from autosparse.database import TuningDatabase
from autosparse.devices.device import find
from autosparse.errors import AutosparseError, ConfigError, ExitCode, MissingDependency, UsageError
from autosparse.hosts import nodes, on_node
from autosparse.hosts.host import Host
from autosparse.hosts.opening import open_host
from autosparse.kernels.spec import why_not_native
from autosparse.measuring.lock import who_measures
from autosparse.measuring.stopwatch import WHOLE
from autosparse.node_labels import HARDWARE_LABEL, RESOURCE, ROLE_LABEL
from autosparse.pipeline.subject import requests
from autosparse.pipeline.subject.survey import survey
from autosparse.progress import Progress, ProgressEvent
from autosparse.records import onexn
from autosparse.searching.parallel import Pool
from autosparse.storage import sending

OLDER = """
from autosparse.kernels import binding
binding.limit_isa("avx512")
"""
NET = Path(__file__).parent.parent / "train" / "tiny_net.py"
SPACE = """
version: 1
device: cpu
block_n: [4]
sparsity: [0.5, 0.75]
dense: [first, last]
study: {trials: 4, batch_size: 2, startup_trials: 2, seed_points: 2, uniform_sparsity: [0.5]}
"""
BRIEF = dataclasses.replace(WHOLE, target_ci=0.1, warmup_us=10_000.0, time_cap_us=100_000.0)
LONGER = dataclasses.replace(
    REQUEST,
    patterns=tuple(onexn(n) for n in (4, 8, 16)),
    policy=dataclasses.replace(REQUEST.policy, time_cap_us=200_000.0, target_ci=0.001),
)
# Of Ray, to notice that a node is gone.
WATCHFUL = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "2",
}


@dataclass
class Cluster:
    raylets: Raylets
    driver: Path  # what the driver alone sees
    hides: bool
    trainer_home: Path
    other_id: str
    other_home: Path
    other: Raylet | None = None
    trainer: Raylet | None = None

    @property
    def address(self) -> str:
        return self.raylets.address

    @property
    def name(self) -> str:
        return f"hardware:{self.other_id}"

    def start_trainer(self) -> None:
        label = f"{HARDWARE_LABEL}={hardware.hardware_id()}"
        self.trainer = self.raylets.node(
            "--num-cpus=2",
            f"--labels={label},{ROLE_LABEL}=train",
            environ={"AUTOSPARSE_HOME": str(self.trainer_home)},
            before=self._without_files(),
        )

    def start_other(self) -> None:
        self.other = self.raylets.node(
            "--num-cpus=1",
            f'--resources={{"{RESOURCE}": 1}}',
            environ={
                "AUTOSPARSE_HOME": str(self.other_home),
                "AUTOSPARSE_MEASURING_LOCK": str(self.other_home / "measuring.lock"),
                "PYTHONPATH": f"{self.other_home / 'code'}:{Path(__file__).parent}",
            },
            before=[*self._without_files(), "taskset", "-c", str(hardware.affinity()[0])],
        )

    def _without_files(self) -> list[str]:
        if not self.hides:
            return []
        hide = f'mount -t tmpfs none "{self.driver}" && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", hide, "sh"]

    def kill_other(self) -> None:
        assert self.other is not None
        self.other.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, known_host: Path) -> Iterator[Cluster]:
    if hardware.usable_cores() < 2:
        pytest.skip("one processor is no two machines")
    folders = [tmp_path_factory.mktemp(name) for name in ("driver", "trainer-home", "other-home")]
    driver, trainer_home, other_home = folders
    (other_home / "code").mkdir()
    (other_home / "code" / "sitecustomize.py").write_text(OLDER)
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    raylets = Raylets(Path(tempfile.mkdtemp(prefix="asn-", dir="/tmp")), {**auth, **WATCHFUL})
    found = Cluster(raylets, driver, may_hide(driver), trainer_home, id_on_one(), other_home)
    try:
        own = {
            "AUTOSPARSE_HOME": str(known_host),
            "AUTOSPARSE_MEASURING_LOCK": str(driver / "measuring.lock"),
            "PYTHONPATH": str(Path(__file__).parent),
        }
        raylets.head("--num-cpus=0", environ=own)
        found.start_trainer()
        found.start_other()
        yield found
    finally:
        raylets.close()


@pytest.fixture(autouse=True)
def with_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


def may_hide(folder: Path) -> bool:
    words = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", str(folder)]
    try:
        return subprocess.run(words, capture_output=True, timeout=10).returncode == 0
    except OSError:
        return False


def id_on_one() -> str:
    one = ["taskset", "-c", str(hardware.affinity()[0])]
    words = [*one, sys.executable, "-m", "autosparse", "profile", "--node-label"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip().removeprefix(f"{HARDWARE_LABEL}=")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[TuningDatabase]:
    with TuningDatabase(str(tmp_path / "t.db")) as opened:
        yield opened


class Watching:
    """Notes whether somebody measures on the driver's machine while a block runs."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.seen += [str(holder)] if (holder := who_measures()) else []

    def __enter__(self) -> Watching:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


# ------------------------------------------------------------------------------------- what nodes are


def test_nodes_tell_their_hardware_their_roles_and_whether_they_are_idle(cluster: Cluster) -> None:
    hosts = nodes.cluster_hosts(cluster.address)
    (own,) = [host for host in hosts if host.roles == ("train",)]
    (other,) = [host for host in hosts if host.hardware_id == cluster.other_id]
    assert len(hosts) == 3
    assert (own.hardware_id, own.roles) == (hardware.hardware_id(), ("train",))
    assert (other.hardware_id, other.roles, other.cores) == (cluster.other_id, ("measure",), 1)
    assert own.cpu == other.cpu == hardware.describe().cpu.model
    assert own.labels[HARDWARE_LABEL] == own.hardware_id and HARDWARE_LABEL not in other.labels
    assert not own.is_busy and not other.is_busy and own.is_alive and other.is_alive
    assert nodes.ClusterHost.from_json(other.to_json()) == other


def test_a_label_is_printed_for_ray_to_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["profile", "--node-label", "--role", "measure"]) == 0
    expected = f"{HARDWARE_LABEL}={hardware.hardware_id()},autosparse.io/role=measure"
    assert capsys.readouterr().out.strip() == expected
    for wrong in (["--role", "train"], ["--node-label", "--refresh"], ["--node-label", "--role", "x"]):
        assert command(["profile", *wrong]) == 2


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("hardware:0123456789ab", ConfigError, "its nodes: .*hardware:"),
        ("node:nowhere", ConfigError, "its nodes: .*node:"),
        ("address", ConfigError, "is the name of several"),
    ],
)
def test_what_is_no_host_is_refused(
    cluster: Cluster, name: str, error: type[AutosparseError], said: str
) -> None:
    if name == "address":  # both have it
        name = nodes.cluster_hosts(cluster.address)[0].address
    with pytest.raises(error, match=said):
        open_host(name, cluster.address)


# ----------------------------------------------------------------------------------- who measures what


def test_rows_are_of_the_node_that_took_them_and_the_driver_stays_idle(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(SPACE)
    words = [
        "tune", "--model", f"{NET}:make", "--space", str(file), "--input-shape", "3x32x32", "--json",
        "--database", str(tmp_path / "t.db"), "--host", cluster.name, "--address",
        cluster.address, "-q",
    ]  # fmt: skip
    with Watching() as watching:
        assert command(words) == 0, capsys.readouterr().err
    assert watching.seen == []
    told = json.loads(capsys.readouterr().out)
    assert any(note.startswith("dense in f32: ") for note in told["notes"]), told["notes"]
    assert any(note.startswith("no bf16: ") for note in told["notes"]), told["notes"]
    with TuningDatabase(str(tmp_path / "t.db")) as database:
        rows = database.rows()
    assert len(rows) >= told["timed"] > 0
    assert cluster.other_id != hardware.hardware_id()
    assert {(row.key.hardware_id, row.key.threads) for row in rows} == {(cluster.other_id, 1)}


@pytest.mark.skipif(bool(why_not_native("bf16")), reason=why_not_native("bf16") or "native")
def test_the_node_decides_threads_and_types(cluster: Cluster, tmp_path: Path) -> None:
    def asked(**more: object) -> SearchConfig:
        found = SearchConfig(
            model="resnet20", host=cluster.name, address=cluster.address, out=tmp_path / "r", **more
        )
        validate(found, writing=False)
        return found

    with open_host(cluster.name, cluster.address) as host:
        found = survey(asked(dtype="auto"), Progress(), host=host)
        assert (found.dtypes, found.threads) == (("f32",), 1)
        ((dtype, why),) = found.arithmetic.why_not
        assert dtype == "bf16" and "the widest that runs here is avx512" in why
        assert found.hardware.hardware_id == cluster.other_id
        with pytest.raises(UsageError, match=r"where it is measured, but .*avx512bf16"):
            survey(asked(dtype="bf16"), Progress(), host=host)
        with pytest.raises(UsageError, match="threads must not exceed the 1 cores"):
            survey(asked(threads=2), Progress(), host=host)


def test_training_goes_to_nodes_that_train(cluster: Cluster) -> None:
    with Pool(cores=1, address=cluster.address) as pool:
        assert pool.cores == 2
        handles = [pool.submit(os.getenv, "AUTOSPARSE_HOME", "") for _ in range(6)]
        while any(handle.outcome is None for handle in handles):
            pool.wait([handle for handle in handles if handle.outcome is None], 5.0)
        homes = {handle.outcome.value for handle in handles if handle.outcome}
    assert homes == {str(cluster.trainer_home)}


@pytest.mark.long
def test_two_who_want_one_node_wait_for_each_other(cluster: Cluster) -> None:
    log: list[str] = []

    def session(name: str, host: Host, begun: Callable[[], None], may_stop: threading.Event) -> None:
        def note(event: ProgressEvent) -> None:
            log.append(f"{name}: {event.message}")
            if event.message.startswith("process "):
                begun()

        progress = Progress(note, should_stop=may_stop.is_set)
        with contextlib.suppress(AutosparseError):
            host.time_whole(RUNNER, {"do": "hang"}, step=STEP, limit_s=30, progress=progress)
        log.append(f"{name} ended")

    with open_host(cluster.name, cluster.address) as first, open_host(cluster.name) as second:
        runs, stops = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]
        threads = [
            threading.Thread(target=session, args=(str(i), (first, second)[i], runs[i].set, stops[i]))
            for i in range(2)
        ]
        threads[0].start()
        assert runs[0].wait(PATIENCE_S)
        (busy,) = [host for host in nodes.asked(nodes.told_hosts()) if host.cores == 1]
        assert busy.is_busy and "whole models" in busy.busy_with
        threads[1].start()
        until = time.monotonic() + PATIENCE_S
        while not any(line.startswith("1: waiting for the node") for line in log):
            assert time.monotonic() < until, log
            time.sleep(0.05)
        assert not runs[1].is_set()
        stops[0].set()
        assert runs[1].wait(PATIENCE_S)
        stops[1].set()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert log.index("0 ended") < next(
        place for place, line in enumerate(log) if line.startswith("1: process")
    )


# -------------------------------------------------------------------------------------- its files


def test_files_that_the_node_does_not_see_are_sent_once(cluster: Cluster) -> None:
    if not cluster.hides:
        pytest.skip("this user may not hide a folder from a process")
    file = cluster.driver / "weights.safetensors"
    file.write_bytes(os.urandom(sending.PIECE_BYTES + 7))
    model = cluster.driver / "net.py"
    model.write_text("a = 1\n")
    request = {
        "do": "tell",
        "model": f"{model}:build",
        "contestants": [{"weights": str(file)}, {"weights": None}],
        "database": f"sqlite:///{cluster.driver}/t.db",
    }
    told: list[str] = []
    progress = Progress(lambda event: told.append(event.step) if event.kind == "start" else None)
    with open_host(cluster.name, cluster.address) as host:
        found = [
            host.time_whole(RUNNER, request, step=STEP, limit_s=60, progress=progress) for _ in range(2)
        ]
    assert [step for step in told if step.startswith("send ")] == [f"send {model}", f"send {file}"]
    there = Path(found[1]["contestants"][0]["weights"])
    assert there.is_relative_to(cluster.other_home) and there.name == file.name
    assert there.read_bytes() == file.read_bytes()
    source, _, factory = found[1]["model"].rpartition(":")
    assert Path(source).read_text() == model.read_text() and factory == "build"


@pytest.fixture
def task(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A search whose every file the driver alone sees."""
    (cluster.driver / "net.py").write_text(NET.read_text())
    (cluster.driver / "space.yaml").write_text(SPACE)
    monkeypatch.setenv("AUTOSPARSE_HOME", str(cluster.driver / "home"))
    monkeypatch.setattr(requests, "WHOLE", BRIEF)
    module = models.resolve(f"{NET}:make", classes=10).module
    weights = {name: value.numpy() for name, value in module.state_dict().items()}
    save_file(weights, cluster.driver / "dense.safetensors")
    (cluster.driver / "recipe.yaml").write_text(
        "kind: short\nepochs: 2\nsettings: {ramp_start: -0.5, ramp_end: 0.5}\n"
    )
    return [
        "--model", f"{cluster.driver}/net.py:make", "--data", "digits", "--data-resolution", "8",
        "--input-shape", "3x32x32", "--space", f"{cluster.driver}/space.yaml", "--top-k", "1",
        "--recipe", f"{cluster.driver}/recipe.yaml", "--out", f"{cluster.driver}/results", "--dtype",
        "f32", "--weights", f"{cluster.driver}/dense.safetensors", "--one-shot", "masks", "--trials",
        "2", "--hosts", "all", "--host-weights", f"{cluster.other_id}=3", "--address", cluster.address,
        "-q",
    ]  # fmt: skip


@pytest.mark.long
def test_a_search_for_several_hosts_trains_on_one_and_measures_on_the_others(
    cluster: Cluster, task: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = {hardware.hardware_id(), cluster.other_id}
    with Watching() as watching:
        assert command(["search", *task, "--json"]) == 0, capsys.readouterr().err
    assert watching.seen == []
    joint = json.loads(capsys.readouterr().out)
    assert joint["runs"].keys() == joint["dense"].keys() == joint["weights"].keys() == hosts
    with TuningDatabase(f"sqlite:///{cluster.driver}/home/tuning.db") as database:
        assert {row.key.hardware_id for row in database.rows()} == hosts
    for hardware_id, name in joint["runs"].items():
        run = cluster.driver / "results" / name
        document = json.loads((run / "pareto.json").read_text())
        assert document["hardware_id"] == hardware_id
        assert document["threads"] == (1 if hardware_id == cluster.other_id else 2)
        for config in document["configs"]:
            check_trained(cluster, run, config)
    check_joint(joint, cluster.other_id)
    assert json.loads(Path(joint["file"]).read_text())["configs"] == joint["configs"]
    if cluster.hides:
        assert list((cluster.trainer_home / "sent").iterdir())
        assert list((cluster.trainer_home / "mirrors").iterdir()) == []


def check_trained(cluster: Cluster, run: Path, config: dict[str, Any]) -> None:
    """What was trained on another machine is here, as if it had been trained here."""
    assert config["accuracy_kind"] == "short" and config["epochs"] == 2
    weights = load_file(run / config["weights"])
    zeros = sum(int((value == 0).sum()) for value in weights.values() if value.ndim > 1)
    assert bool(zeros) == (config["sparsity"] > 0)
    folder = (run / config["weights"]).parent
    assert str(cluster.driver) in json.loads((folder / "job.json").read_text())["model"]
    assert len((folder / "metrics.jsonl").read_text().splitlines()) >= 2


def check_joint(joint: dict[str, Any], heavy: str) -> None:
    by_id = {config["id"]: config for config in joint["configs"]}
    assert {*joint["front_worst"], *joint["front_mean"]} <= by_id.keys() != set()
    for config in by_id.values():
        ms = {name: latency["median_ms"] for name, latency in config["latencies"].items()}
        assert ms.keys() == joint["runs"].keys()
        assert config["worst_ms"] == max(ms.values())
        (light,) = ms.keys() - {heavy}
        assert config["mean_ms"] == pytest.approx((3 * ms[heavy] + ms[light]) / 4)


# ----------------------------------------------------------------------------------- nodes that die


@pytest.mark.long
def test_work_that_is_lost_with_its_node_begins_anew_on_the_next(cluster: Cluster) -> None:
    begun = cluster.trainer_home / "begun"
    with Pool(cores=1, address=cluster.address) as pool:
        handle = pool.submit(waited, str(begun), 2.0)
        until = time.monotonic() + 60.0
        while not begun.exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        assert cluster.trainer is not None
        cluster.trainer.kill()
        begun.unlink()
        again = threading.Thread(target=cluster.start_trainer)
        again.start()
        pool.wait([handle], 60.0)
        again.join()
        while handle.outcome is None:
            pool.wait([handle], 60.0)
    assert handle.outcome.value == str(cluster.trainer_home), handle.outcome
    assert begun.exists()


def test_a_node_killed_in_mid_tuning_gives_its_work_to_the_next_of_its_kind(
    cluster: Cluster, database: TuningDatabase
) -> None:
    kept: dict[object, object] = {}
    messages: list[str] = []
    again = threading.Thread(target=cluster.start_other)

    def note(event: ProgressEvent) -> None:
        messages.append(event.message)
        if not kept and event.kind == "advance" and database.rows():
            cluster.kill_other()
            kept.update({row.key: row for row in database.rows()})
            again.start()

    with open_host(cluster.name, cluster.address) as host:
        found = host.measure(LONGER, find("cpu", host.profile()), database, progress=Progress(note))
    again.join()
    rows = {row.key: row for row in database.rows()}
    assert kept and kept.items() <= rows.items()
    assert {key.hardware_id for key in rows} == {cluster.other_id}
    assert found.reused >= len(kept) and found.timed == len(rows) - found.reused > 0
    assert any("has left the cluster" in message for message in messages)
    assert any("going on on the node" in message for message in messages)


@pytest.mark.long
def test_without_a_next_one_it_ends_and_says_so(
    cluster: Cluster, database: TuningDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_node, "_ANOTHER_S", 0.5)
    is_killed = False

    def note(event: ProgressEvent) -> None:
        nonlocal is_killed
        if not is_killed and event.kind == "advance" and database.rows():
            is_killed = True
            cluster.kill_other()

    with open_host(cluster.name, cluster.address) as host:
        device = find("cpu", host.profile())
        with pytest.raises(
            MissingDependency, match=rf"{cluster.other_id} must .* same command"
        ) as caught:
            host.measure(LONGER, device, database, progress=Progress(note))
    assert caught.value.exit_code is ExitCode.MISSING
    kept = len(database.rows())
    dead = [host for host in nodes.cluster_hosts(cluster.address) if not host.is_alive]
    assert kept and cluster.other_id in {host.hardware_id for host in dead}
    with pytest.raises(MissingDependency, match="no such node is"):
        open_host(cluster.name, cluster.address)
