"""What nodes say of themselves, without a cluster: roles, who trains, which of several measures."""

from __future__ import annotations

from typing import Any

import pytest

from autosparse.errors import ConfigError, MissingDependency
from autosparse.hosts import nodes, on_node
from autosparse.hosts.nodes import ClusterHost, candidates
from autosparse.node_labels import (
    NODE_LABEL,
    ROLE_LABEL,
    node_label,
    roles_of,
    training_nodes,
    training_selector,
)
from autosparse.version import __version__

ID, OTHER = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


def node(
    name: str, role: str | None = None, *, cores: float = 2.0, alive: bool = True, **resources: float
) -> dict[str, Any]:
    return {
        "NodeID": name,
        "NodeManagerHostname": name,
        "Alive": alive,
        "Labels": {} if role is None else {ROLE_LABEL: role},
        "Resources": {"CPU": cores, **resources},
    }


def test_roles_come_from_a_label_or_from_a_resource() -> None:
    assert roles_of(node("a")) == ("measure", "train")
    assert roles_of(node("a", autosparse_measure=1.0)) == ("measure",)
    assert roles_of(node("a", "train", autosparse_measure=1.0)) == ("train",)
    assert node_label(ID, "train") == f"autosparse.io/hardware-id={ID},autosparse.io/role=train"
    with pytest.raises(ConfigError, match=r"must be measure or train, but node a has 'both'"):
        roles_of(node("a", "both"))


def test_training_keeps_off_what_is_reserved() -> None:
    free, measures, trains, dead = (
        node("f"),
        node("m", "measure"),
        node("t", "train"),
        node("d", alive=False),
    )
    assert training_nodes([free, measures, dead]) == [free]
    assert training_selector([free, measures, dead]) == {NODE_LABEL: "!in(m)"}
    assert training_nodes([free, measures, trains]) == [trains]
    assert training_selector([free, measures, trains]) == {NODE_LABEL: "!in(f,m)"}
    assert training_nodes([measures]) == [] and training_selector([measures]) == {NODE_LABEL: "!in(m)"}
    assert training_selector([free]) == {}
    assert training_nodes([free, node("head", cores=0.0)]) == [free]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[ClusterHost]:
    hosts: list[ClusterHost] = []
    monkeypatch.setattr(nodes, "told_hosts", lambda: tuple(hosts))
    monkeypatch.setattr(nodes, "asked", tuple)
    monkeypatch.setattr(on_node.ray, "is_initialized", lambda: True)
    return hosts


def host(name: str, hardware_id: str = ID, **more: Any) -> ClusterHost:
    settings: dict[str, Any] = {"roles": ("measure", "train"), "version": __version__, **more}
    return ClusterHost(
        node_id=name, address=f"10.0.0.{name}", hostname=name, hardware_id=hardware_id, **settings
    )


def test_an_idle_node_goes_before_a_busy_one(cluster: list[ClusterHost]) -> None:
    cluster += [
        host("1", is_busy=True), host("2", roles=("train",)), host("3", is_alive=False),
        host("4", OTHER), host("5"),
    ]  # fmt: skip
    assert [found.node_id for found in candidates(f"hardware:{ID}")] == ["5", "1"]
    assert [found.node_id for found in candidates("node:2")] == ["2"]
    assert [found.node_id for found in candidates("10.0.0.4")] == ["4"]
    assert candidates("10.0.0.3") == ()


def test_a_node_that_cannot_is_told_with_its_reason(cluster: list[ClusterHost]) -> None:
    cluster += [host("1", version="0.0.1"), host("2", why_unknown="No module named 'autosparse'")]
    said = rf"1: it has autosparse 0\.0\.1, and here is {__version__}; 2: No module named"
    with pytest.raises(MissingDependency, match=said):
        on_node.NodeHost(f"hardware:{ID}", None)
