"""Addresses of Ray clusters: what is refused at once, and why."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from autosparse.config import SearchConfig, validate
from autosparse.errors import AutosparseError, ConfigError, MissingDependency
from autosparse.searching import cluster
from autosparse.searching.cluster import VARIABLE, check_address, check_host


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(psutil, "process_iter", lambda fields: iter(()))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:8265", "Ray's dashboard"),
        ("ray://127.0.0.1:10001", "another protocol"),
        ("nowhere", "host:port"),
        (":6379", "host:port"),
        ("host:", "host:port"),
        ("host:99999", "host:port"),
        ("host:0", "host:port"),
        ("local", "host:port"),
    ],
)
def test_what_is_no_address_is_refused_by_its_name(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"^address must be") as caught:
        check_address(address)
    assert said in str(caught.value)
    monkeypatch.setenv(VARIABLE, address)
    with pytest.raises(ConfigError, match=r"^RAY_ADDRESS must be"):
        check_address("auto")
    check_address(None)  # a cluster of one's own does not care


def test_a_dead_cluster_is_refused(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependency, match=r"^address must name .* refused"):
        check_address(nobody)
    monkeypatch.setenv(VARIABLE, nobody)
    with pytest.raises(MissingDependency, match=r"^RAY_ADDRESS must name"):
        check_address("auto")
    check_address(None)


def test_a_living_one_is_taken(listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_address(listening)
    monkeypatch.setenv(VARIABLE, listening)
    check_address("auto")


def test_auto_needs_a_cluster_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependency, match="address auto needs"):
        check_address("auto")
    monkeypatch.setenv(VARIABLE, "auto")
    with pytest.raises(MissingDependency, match="address auto needs"):
        check_address("auto")

    server = SimpleNamespace(info={"name": cluster._SERVER})
    monkeypatch.setattr(psutil, "process_iter", lambda fields: iter([server]))
    check_address("auto")


def test_a_search_refuses_it_before_any_work(nobody: str, tmp_path: Any) -> None:
    config = SearchConfig(model="resnet18", address=nobody, out=tmp_path / "results")
    with pytest.raises(AutosparseError, match="must name a Ray cluster that answers"):
        validate(config)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("host", ["10.0.0.7", "node:big-one", "fe80::1", "hardware:0123456789ab"])
def test_a_node_needs_a_cluster(host: str) -> None:
    check_host(host, "10.0.0.1:6379")
    with pytest.raises(ConfigError, match=rf"^host must be here .* got '{host}'; add --address"):
        check_host(host, None)


@pytest.mark.parametrize("host", ["a b", "node:", "-x", "http://host"])
def test_what_is_no_node_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=r"^host must be here, a node's address, node:HOSTNAME or h"):
        check_host(host, "10.0.0.1:6379")


@pytest.mark.parametrize("name", ["", "x", "0123456789AB", "0123456789ab0", "any"])
def test_what_is_no_hardware_id_is_refused(name: str) -> None:
    check_host("hardware:0123456789ab", "10.0.0.1:6379")
    with pytest.raises(ConfigError, match=rf"12 hexadecimal digits, but got 'hardware:{name}'"):
        check_host(f"hardware:{name}", "10.0.0.1:6379")


def test_this_machine_needs_no_cluster() -> None:
    check_host("here", None)
