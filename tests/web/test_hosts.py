"""Hosts over the API: daemons, nodes, who measures, and rows that are stale."""

from __future__ import annotations

import dataclasses

import pytest
from fastapi import FastAPI
from talking import TOKEN, TestClient, client_of, running

from autosparse.daemon.access import Listening
from autosparse.daemon.nodes import ClusterNodes, Node
from autosparse.daemon.service import Service
from autosparse.daemon.stale import Looked
from autosparse.database.staleness import Freshness
from autosparse.jobs import daemons
from autosparse.measuring.lock import Holder
from autosparse.web import hosting
from autosparse.web.app import make_app

HOSTS = "/api/v1/hosts"


def test_daemons_and_what_they_do(client: TestClient, service: Service) -> None:
    me = dataclasses.replace(daemons.this_daemon("b5ab65236d15"), id="me", host="here")
    daemons.give_word(service.queue.store, me)
    daemons.give_word(service.queue.store, dataclasses.replace(me, id="you", host="there"))
    job = running(service)
    found = client.get(HOSTS).json()
    assert [(each["id"], each["job_ids"]) for each in found["daemons"]] == [
        ("me", [job.id]),
        ("you", []),
    ]
    assert found["daemons"][0]["hardware_id"] == "b5ab65236d15"
    assert not any(each["silent"] for each in found["daemons"])
    assert (found["nodes"], found["nodes_problem"]) == ([], "")


def test_one_that_gave_no_word_for_a_lease_is_silent(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemons.give_word(service.queue.store, daemons.this_daemon("b5ab65236d15"))
    (known,) = daemons.daemons(service.queue.store)
    later_s = known.seen_at_s + service.queue.lease_s + 1.0
    monkeypatch.setattr(hosting.time, "time", lambda: later_s)
    assert client.get(HOSTS).json()["daemons"][0]["silent"] is True


def test_who_measures(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "who_measures", lambda: None)
    assert client.get(HOSTS).json()["measuring"] is None
    holder = Holder(pid=7, what="a layer", command="autosparse tune", since="2026-01-01 00:00:00 UTC")
    monkeypatch.setattr(hosting, "who_measures", lambda: holder)
    assert client.get(HOSTS).json()["measuring"] == holder.to_json()


def test_nodes_of_the_cluster(service: Service) -> None:
    nodes = ClusterNodes(None)  # so that none is asked
    nodes.nodes = (
        Node(hostname="a", address="10.0.0.2", hardware_id="hw", cpu="c", roles=("measure",)),
        Node(hostname="b\udc80", address="10.0.0.3", is_alive=False),
    )
    nodes.problem = "they were asked long ago"
    with client_of(make_app(service, Listening(), TOKEN, nodes=nodes)) as client:
        found = client.get(HOSTS).json()
    first, second = found["nodes"]
    assert (first["hardware_id"], first["roles"], first["alive"]) == ("hw", ["measure"], True)
    assert (second["hostname"], second["alive"], second["hardware_id"]) == ("b?", False, "")
    assert found["nodes_problem"] == "they were asked long ago"


def test_rows_are_looked_at_beside(client: TestClient, app: FastAPI) -> None:
    first = client.get(HOSTS).json()
    assert first["rows"] is None and first["looking"]
    app.state.stale_rows.wait()
    found = client.get(HOSTS).json()
    assert (found["rows"]["devices"], found["rows"]["problem"], found["looking"]) == ([], "", False)
    again = client.post(f"{HOSTS}/look")
    assert again.status_code == 202 and again.json()["looking"]
    app.state.stale_rows.wait()
    assert client.get(HOSTS).json()["rows"]["at"] >= found["rows"]["at"]


def test_why_rows_are_stale(client: TestClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Freshness(
        hardware_id="hw",
        is_here=True,
        rows=9,
        current=4,
        changed={"1xn_f32": 2},
        gone={"old": 1},
        facts={"microcode 0x1": 2},
        today="microcode 0x2",
    )
    rows = app.state.stale_rows
    monkeypatch.setattr(rows, "look", lambda again=False: None)
    monkeypatch.setattr(rows, "known", lambda: Looked(at_s=1.0, devices=(device,), problem="late"))
    found = client.get(HOSTS).json()["rows"]
    assert found["at"] == "1970-01-01T00:00:01Z" and found["problem"] == "late"
    assert found["devices"] == [
        {
            "hardware_id": "hw",
            "here": True,
            "rows": 9,
            "stale": 5,
            "changed": {"1xn_f32": 2},
            "gone": {"old": 1},
            "facts": {"microcode 0x1": 2},
            "today": "microcode 0x2",
        }
    ]
