"""Where the daemon is: what is an address, and where a token does not go."""

from __future__ import annotations

import pytest

from autosparse.client.address import DEFAULT, find_address
from autosparse.errors import ConfigError


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOSPARSE_SERVER", raising=False)


def test_without_a_name_it_is_this_machine() -> None:
    assert find_address().url == DEFAULT
    assert find_address().is_here


def test_a_flag_counts_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSPARSE_SERVER", "http://127.0.0.1:1")
    assert find_address().url == "http://127.0.0.1:1"
    assert find_address("http://127.0.0.1:2").url == "http://127.0.0.1:2"


@pytest.mark.parametrize(
    ("text", "is_tls", "is_here"),
    [
        ("http://localhost:8337", False, True),
        ("http://[::1]:8337/", False, True),
        ("https://127.0.0.2", True, True),
        ("https://host.example:443/behind/", True, False),
        (" https://host.example ", True, False),
    ],
)
def test_addresses(text: str, is_tls: bool, is_here: bool) -> None:
    found = find_address(text)
    assert (found.is_tls, found.is_here) == (is_tls, is_here)
    assert not found.url.endswith("/")


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1:8337", "localhost", "ftp://localhost", "http://", "http://localhost:http"),
        *("http://localhost:99999", "http://user:secret@localhost", "http://localhost/?a=b"),
        *("http://localhost/#a", "http://loc alhost", "http://[::1", "file:///etc/passwd", "\x1b[2J"),
        *("http://localhost\n", "x" * 10000),
    ],
)
def test_what_is_no_address_is_refused_with_one(text: str) -> None:
    if text == "http://localhost\n":  # the end of a line in a variable does no harm
        assert find_address(text).url == "http://localhost"
        return
    with pytest.raises(
        ConfigError, match=r"must be the address of a daemon.*write http://127"
    ) as refused:
        find_address(text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("host", ["host.example:8337", "192.168.0.1:8337", "0.0.0.0:8337"])
def test_a_token_is_not_sent_readable_to_another_machine(host: str) -> None:
    with pytest.raises(ConfigError, match=rf"write https://{host}, or .*ssh -L"):
        find_address(f"http://{host}")
