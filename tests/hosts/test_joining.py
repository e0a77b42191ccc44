"""Clusters that ask for a token, and one that does not: joined, or refused at once and why."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from raylets import TOKEN, Raylets

from autosparse.errors import ConfigError, MissingDependency
from autosparse.local_ray import LocalRay
from autosparse.searching import joining
from autosparse.searching.joining import join, leave
from autosparse.searching.parallel import Pool

VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")


def started(mode: str) -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="asn-", dir="/tmp"))
    raylets = Raylets(folder, {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": TOKEN})
    try:
        raylets.head("--num-cpus=1", environ={})
        yield raylets.address
    finally:
        raylets.close()


@pytest.fixture(scope="module")
def closed() -> Iterator[str]:
    yield from started("token")


@pytest.fixture(scope="module")
def opened() -> Iterator[str]:
    yield from started("disabled")


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a token; gives the home folder."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def in_variable(home: Path, token: str, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("RAY_AUTH_TOKEN", token)


def in_named_file(home: Path, token: str, patch: pytest.MonkeyPatch) -> None:
    (home / "secret").write_text(f"{token}\n")
    patch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "secret"))


def in_home(home: Path, token: str, patch: pytest.MonkeyPatch) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(token)


Place = Callable[[Path, str, pytest.MonkeyPatch], None]
PLACES = pytest.mark.parametrize("place", [in_variable, in_named_file, in_home])


def works(address: str) -> bool:
    with Pool(cores=1, address=address) as pool:
        handle = pool.submit(int, "7")
        pool.wait([handle], 60.0)
        return handle.outcome is not None and handle.outcome.value == 7


@PLACES
def test_a_token_lets_in_from_wherever_it_is(
    closed: str, nobody: Path, monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    place(nobody, TOKEN, monkeypatch)
    before = {name: os.environ.get(name) for name in VARIABLES}
    assert works(closed)
    assert {name: os.environ.get(name) for name in VARIABLES} == before


def test_the_address_may_be_that_of_the_environment_and_the_mode_be_named(
    closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", closed)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert works("auto")


@PLACES
def test_a_wrong_token_is_refused(
    closed: str, nobody: Path, monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    place(nobody, TOKEN[::-1], monkeypatch)
    with pytest.raises(
        ConfigError, match=r"^the Ray cluster at .* its token, but got another"
    ) as caught:
        join(closed)
    assert TOKEN[::-1] not in str(caught.value)


@pytest.mark.parametrize("mode", ["", "token", "disabled"])
def test_no_token_is_refused(closed: str, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(ConfigError, match=r"its token, but got none; put what `ray get-auth-token`"):
        join(closed)


def test_what_stands_in_the_way_of_a_right_token_is_named(
    closed: str, nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match=r"leave RAY_AUTH_MODE out, which is disabled"):
        join(closed)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name)
    (nobody / "empty").touch()
    for file in ("empty", "absent"):
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(nobody / file))
        with pytest.raises(ConfigError, match=r"^RAY_AUTH_TOKEN_PATH must name a file with a token"):
            join(closed)


def test_an_open_cluster_is_joined_with_or_without_a_token(
    opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert works(opened)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert works(opened)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(
        ConfigError, match=r"must ask for a token where RAY_AUTH_MODE is token, but it le"
    ):
        join(opened)


@pytest.mark.long
def test_clusters_of_all_kinds_one_after_the_other(
    closed: str, opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray keeps the first token that it sees, unless it is told otherwise."""
    with LocalRay(cores=1):
        pass
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    for address in (closed, opened):
        join(address)
        leave()
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    with LocalRay(cores=1):
        pass
    with pytest.raises(ConfigError, match=r"but got none"):
        join(closed)


def test_what_listens_and_is_no_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        joining,
        "_PATIENCE",
        {"RAY_py_gcs_connect_timeout_s": "1", "RAY_gcs_rpc_server_connect_timeout_s": "1"},
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(MissingDependency, match=r"what listens there does not speak as one"):
            join(f"127.0.0.1:{server.getsockname()[1]}")
