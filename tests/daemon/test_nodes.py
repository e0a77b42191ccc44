"""What a daemon knows of its cluster's nodes, and where jobs for other hardware go."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from killing import request

from autosparse.daemon import nodes
from autosparse.daemon.nodes import ClusterNodes
from autosparse.daemon.supervisor import Supervisor
from autosparse.jobs import daemons
from autosparse.jobs.queue import Queue
from autosparse.jobs.records import JobOptions, JobRequest
from autosparse.jobs.roots import Roots
from autosparse.jobs.store import Store
from autosparse.jobs.verbs import Place, verb_named

TOLD = [
    {"hostname": "a", "address": "10.0.0.1", "hardware_id": "0123456789ab", "roles": ["measure"]},
    {"hostname": "b", "address": "10.0.0.2", "hardware_id": "ba9876543210", "roles": ["train"]},
    {"hostname": "c", "address": "10.0.0.3", "hardware_id": "cccccccccccc", "roles": ["measure"]},
    {"hostname": "d", "address": "10.0.0.4", "hardware_id": "", "roles": ["measure", "train"]},
]


def answering(monkeypatch: pytest.MonkeyPatch, text: str, code: int = 0) -> list[list[str]]:
    asked: list[list[str]] = []

    def run(command: list[str], **how: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, code, text, "autosparse: no cluster answers")

    monkeypatch.setattr(nodes.subprocess, "run", run)
    return asked


def test_hardware_that_can_be_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [{**each, "is_alive": each["hostname"] != "c", "cores": 3} for each in TOLD]
    asked = answering(monkeypatch, json.dumps(told))
    known = ClusterNodes("10.0.0.9:6379")
    assert known.hardware_ids() == ()
    for _ in range(3):
        known.look()
        known.wait()
    assert known.hardware_ids() == ("0123456789ab",) and known.problem == ""
    assert [command[3:] for command in asked] == [["hosts", "--address", "10.0.0.9:6379", "--json"]]


@pytest.mark.parametrize(
    ("text", "code"), [("", 7), ("{", 0), ('[{"hostname": 5}]', 0), ("[3]", 0), ("null", 0)]
)
def test_an_answer_that_is_none_leaves_what_was_known(
    monkeypatch: pytest.MonkeyPatch, text: str, code: int
) -> None:
    answering(monkeypatch, json.dumps(TOLD))
    known = ClusterNodes("10.0.0.9:6379", kept_s=0.0)
    known.look()
    known.wait()
    before = known.hardware_ids()
    answering(monkeypatch, text, code)
    known.look()
    known.wait()
    assert known.hardware_ids() == before and known.problem


def test_without_a_cluster_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, "[]")
    known = ClusterNodes(None)
    known.look()
    known.wait()
    assert not asked and known.hardware_ids() == ()


@pytest.mark.parametrize(
    ("wanted", "host"), [("", "here"), ("mine", "here"), ("0123456789ab", "hardware:0123456789ab")]
)
def test_a_job_for_hardware_of_the_cluster_is_measured_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, host: str
) -> None:
    from autosparse.jobs import verbs

    monkeypatch.setattr(verbs, "validate", lambda config, writing: None)  # no cluster answers here
    place = Place(
        results=tmp_path,
        database=str(tmp_path / "t.db"),
        roots=Roots(folders={"results": tmp_path}),
        address="10.0.0.9:6379",
    )
    with Store(str(tmp_path / "t.db")) as store:
        queue = Queue(store)
        supervisor = Supervisor(queue, daemons.this_daemon("mine"), place)
        asked = JobRequest(
            verb="search", settings=request(0).settings, options=JobOptions(hardware_id=wanted)
        )
        job, _ = queue.submit(asked)
        verb_named("search").command(supervisor._placed(job), tmp_path, place)
        supervisor.close()
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (written["host"], written["address"]) == (host, "10.0.0.9:6379")


def test_a_job_for_hardware_that_is_not_there_waits(tmp_path: Path) -> None:
    seen: list[str] = []
    place = Place(
        results=tmp_path, database=str(tmp_path / "t.db"), roots=Roots(folders={"results": tmp_path})
    )
    with Store(str(tmp_path / "t.db")) as store:
        queue = Queue(store)
        command = (sys.executable, "-c", "pass")
        with Supervisor(
            queue, daemons.this_daemon("mine"), place, program=command, elsewhere=lambda: seen
        ) as supervisor:
            options = JobOptions(hardware_id="0123456789ab")
            settings = request(0).settings
            job, _ = queue.submit(JobRequest(verb="search", settings=settings, options=options))
            check, _ = queue.submit(JobRequest(verb="check", settings={}, options=options))
            supervisor.round()
            supervisor.round()
            assert queue.get(job.id).attempt == 0
            seen.append("0123456789ab")
            supervisor.round()
            assert queue.get(job.id).attempt == 1
            # What has no word for a node can only be done by a daemon on that hardware.
            assert queue.get(check.id).attempt == 0
