"""Requests and answers: lost ones, refusals, and servers that are no daemon."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from standin import LOST, TOKEN, Reply, StandIn, job, problem

from autosparse.client import exchange
from autosparse.client.address import find_address
from autosparse.client.daemon import Daemon
from autosparse.client.problems import NoDaemon, NotFound, Unreachable
from autosparse.errors import (
    AutosparseError,
    ConfigError,
    ExitCode,
    MissingDependency,
    NoValidConfiguration,
    Stopped,
    UsageError,
)

ASKED = {"verb": "tune", "settings": {"model": "resnet18"}}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def nobody(token: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address at which nothing listens."""
    url = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("AUTOSPARSE_SERVER", url)
    return url


# ------------------------------------------------------------------------------- who is spoken to


def test_the_token_and_the_version_are_shown(server: StandIn, daemon: Daemon) -> None:
    server.gives("/jobs/7", job())
    assert daemon.job(7).id == 7
    headers = server.seen[0].headers
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    assert headers["User-Agent"].startswith("autosparse/")
    assert headers["Accept-Encoding"] == "identity"


def test_no_daemon_is_something_missing_and_is_tried_again_first(
    nobody: str, waits: list[float]
) -> None:
    with Daemon(sleep=waits.append) as daemon, pytest.raises(Unreachable) as refused:
        daemon.job(7)
    assert refused.value.exit_code == ExitCode.MISSING
    assert nobody in str(refused.value)
    assert "autosparse serve" in str(refused.value)
    assert "AUTOSPARSE_SERVER" in str(refused.value)
    assert len(waits) == 2
    assert waits[0] < waits[1]


def test_a_name_that_nobody_has_is_something_missing(token: Path, waits: list[float]) -> None:
    address = find_address("https://no-such-host.invalid")
    with (
        Daemon(address, sleep=waits.append) as daemon,
        pytest.raises(MissingDependency, match="invalid"),
    ):
        daemon.job(7)


def test_without_token_and_daemon_the_daemon_is_what_is_missing(
    nobody: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTOSPARSE_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(Unreachable, match="autosparse serve"):
        Daemon()


def test_a_token_that_is_missing_beside_a_daemon_is_a_usage_error(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTOSPARSE_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="token's file must be readable"):
        Daemon()
    assert [each.path for each in server.seen] == ["/healthz"]
    assert "Authorization" not in server.seen[0].headers


@pytest.mark.parametrize(
    ("mode", "content", "words"),
    [
        (0o644, TOKEN, "chmod 600"),
        (0o640, TOKEN, "chmod 600"),
        (0o600, "", "must hold one word"),
        (0o600, "short", "must hold one word"),
        (0o600, "two words that are long", "must hold one word"),
        (0o600, "a-token-with\x1b[2J-in-it", "must hold one word"),
        (0o600, "kein-gültiges-geheimnis", "must be readable"),
    ],
)
def test_a_token_that_breaks_a_rule_is_not_sent(
    server: StandIn, token: Path, mode: int, content: str, words: str
) -> None:
    token.write_text(content)
    token.chmod(mode)
    with pytest.raises(ConfigError, match=words):
        Daemon()
    assert not server.seen


def test_proxies_of_the_environment_do_not_stand_between_processes_of_one_machine(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    server.gives("/jobs/7", job())
    with Daemon(sleep=waits.append) as daemon:
        assert daemon.job(7).id == 7


def test_credentials_of_netrc_are_not_shown(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.gives("/jobs/7", job())
    with Daemon() as daemon:
        daemon.job(7)
    assert server.seen[0].headers["Authorization"] == f"Bearer {TOKEN}"


# ------------------------------------------------------------------------------------ lost answers


@pytest.mark.parametrize("lost", [LOST, Reply(502, "", "text/html"), problem(503, "database away")])
def test_a_submit_whose_answer_is_lost_comes_again_by_the_same_key(
    server: StandIn, daemon: Daemon, lost: Reply
) -> None:
    server.on("POST", "/jobs", lost, lost, Reply(201, job("submitted")))
    assert daemon.submit(ASKED).id == 7
    asked = server.asked("POST", "/jobs")
    assert len(asked) == 3
    assert len({each.headers["Idempotency-Key"] for each in asked}) == 1
    assert all(each.body == ASKED for each in asked)


def test_two_submits_have_two_keys(server: StandIn, daemon: Daemon) -> None:
    server.on("POST", "/jobs", Reply(201, job("submitted")))
    daemon.submit(ASKED)
    daemon.submit(ASKED)
    assert len({each.headers["Idempotency-Key"] for each in server.seen}) == 2


def test_after_three_lost_answers_nothing_answers(server: StandIn, daemon: Daemon) -> None:
    server.on("POST", "/jobs", LOST)
    with pytest.raises(Unreachable):
        daemon.submit(ASKED)
    assert len(server.seen) == 3


def test_a_503_that_stays_is_told_in_the_daemons_words(server: StandIn, daemon: Daemon) -> None:
    server.on("GET", "/jobs/7", problem(503, "the database must answer, but does not", 2))
    with pytest.raises(Unreachable, match="the database must answer") as refused:
        daemon.job(7)
    assert refused.value.exit_code == ExitCode.MISSING
    assert len(server.seen) == 3


def test_what_has_no_key_is_not_asked_twice_if_it_may_have_been_done(
    server: StandIn, daemon: Daemon
) -> None:
    server.on("POST", "/jobs/7/cancel", LOST, Reply(202, job()))
    with pytest.raises(Unreachable, match="look before you ask again"):
        daemon.cancel(7)
    assert len(server.seen) == 1


def test_what_never_reached_the_daemon_is_asked_again_whatever_it_is(
    server: StandIn, token: Path
) -> None:
    server.on("POST", "/jobs/7/cancel", Reply(202, job()))
    server.stop()

    def back(seconds: float) -> None:
        if server._server is None:
            server.start()

    with Daemon(sleep=back) as daemon:
        assert daemon.cancel(7).id == 7


def test_a_body_that_ends_early_is_a_lost_answer(server: StandIn, daemon: Daemon) -> None:
    def half() -> Iterator[bytes]:
        yield b'{"id": 7,'

    server.on("GET", "/jobs/7", Reply(parts=half, cut=True), Reply(body=job()))
    assert daemon.job(7).id == 7
    assert len(server.seen) == 2


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (422, 2, UsageError),
        (409, 2, UsageError),
        (424, 7, MissingDependency),
        (422, 4, NoValidConfiguration),
        (422, 6, Stopped),
        (422, None, UsageError),
        (422, 999, UsageError),
        (413, None, UsageError),
        (404, 2, NotFound),
        (500, None, AutosparseError),
        (500, 1, AutosparseError),
    ],
)
def test_a_refusal_is_the_error_that_the_daemon_names(
    server: StandIn, daemon: Daemon, status: int, code: int | None, kind: type[AutosparseError]
) -> None:
    server.on(
        "POST", "/jobs", problem(status, "model must be known, but got 'x'; write resnet18", code)
    )
    with pytest.raises(kind, match="model must be known, but got 'x'; write resnet18") as refused:
        daemon.submit(ASKED)
    assert refused.value.exit_code == kind.exit_code
    assert not isinstance(refused.value, NoDaemon)
    assert len(server.seen) == 1


def test_an_unknown_token_says_which_file_it_came_from(
    server: StandIn, daemon: Daemon, token: Path
) -> None:
    server.on("GET", "/jobs/7", problem(401, "a token must be shown"))
    with pytest.raises(UsageError) as refused:
        daemon.job(7)
    assert str(token) in str(refused.value)
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize("detail", [None, 5, ["a"], {"a": 1}, ""])
def test_a_problem_without_words_still_says_its_status(
    server: StandIn, daemon: Daemon, detail: object
) -> None:
    held = {"detail": detail, "status": 422}
    server.on("GET", "/jobs/7", Reply(422, held, "application/problem+json"))
    with pytest.raises(UsageError):
        daemon.job(7)


# ----------------------------------------------------------------------------- servers of other kinds


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_token_does_not_follow_redirects(server: StandIn, daemon: Daemon, status: int) -> None:
    with StandIn() as elsewhere:
        elsewhere.gives("/jobs/7", job())
        headers = {"Location": f"{elsewhere.url}/api/v1/jobs/7"}
        server.on("GET", "/jobs/7", Reply(status, headers=headers))
        server.on("GET", "/jobs/7/events", Reply(status, headers=headers))
        with pytest.raises(NoDaemon, match=elsewhere.url):
            daemon.job(7)
        with pytest.raises(NoDaemon, match=elsewhere.url), daemon.events(7):
            pass
        assert not elsewhere.seen


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html>hello</html>", "text/html"),
        Reply(404, b"<html>not found</html>", "text/html"),
        Reply(500, b"oops", "text/plain"),
        Reply(403, b"", ""),
        Reply(200, b"", ""),
        Reply(204),
        Reply(200, b"{"),
        Reply(200, b"\xff\xfe"),
        Reply(200, b"NaN"),
        Reply(200, b'{"id": ' + b"9" * 5000 + b"}"),
        Reply(200, b"[" * 100_000),
        Reply(200, b"null"),
        Reply(200, b"[]"),
        Reply(200, b'"text"'),
        Reply(200, {"id": "7", "verb": "tune", "state": "running"}),
        Reply(200, {"id": 7, "verb": "tune"}),
        Reply(200, {**job(), "settings": []}),
        Reply(422, b"not json", "application/problem+json"),
        Reply(200, job(), headers={"Content-Encoding": "gzip"}),
    ],
)
def test_what_is_no_daemon_is_told_so(server: StandIn, daemon: Daemon, reply: Reply) -> None:
    server.on("GET", "/jobs/7", reply)
    with pytest.raises(NoDaemon, match="a daemon of autosparse must answer at") as refused:
        daemon.job(7)
    assert refused.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    "reply", [Reply(200, []), Reply(200, {"items": 1}), Reply(200, {"items": [5]})]
)
def test_a_list_that_is_none_is_no_daemons(server: StandIn, daemon: Daemon, reply: Reply) -> None:
    server.on("GET", "/jobs", reply)
    server.on("GET", "/schedules", reply)
    server.on("GET", "/schedules/3/next", reply)
    for ask in (lambda: daemon.jobs(limit=5), daemon.schedules, lambda: daemon.next_times(3, 5)):
        with pytest.raises(NoDaemon):
            ask()


def test_a_body_without_end_is_left(
    server: StandIn, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_MOST_BYTES", 2**20)
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 2**16
            yield b" " * 2**16

    server.on("GET", "/jobs/7", Reply(parts=endless))
    with pytest.raises(NoDaemon, match="longer than 1 MiB"):
        daemon.job(7)
    assert sent < 2**26


def test_a_body_that_drips_is_left(
    server: StandIn, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_WHOLE_S", 0.2)
    pause = threading.Event()

    def drops() -> Iterator[bytes]:
        while not pause.wait(0.01):
            yield b" "

    server.on("GET", "/jobs/7", Reply(parts=drops))
    with pytest.raises(NoDaemon, match="no end"):
        daemon.job(7)
    pause.set()


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00\x02\x02\x50", b""])
def test_what_speaks_no_http_does_not_answer(token: Path, waits: list[float], greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            while True:
                try:
                    other, _ = listening.accept()
                except OSError:
                    return
                with other:
                    other.sendall(greeting)

        threading.Thread(target=greet, daemon=True).start()
        address = find_address(f"http://127.0.0.1:{listening.getsockname()[1]}")
        with Daemon(address, sleep=waits.append) as daemon, pytest.raises(Unreachable):
            daemon.job(7)
        listening.shutdown(socket.SHUT_RDWR)


# ---------------------------------------------------------------------------------------------- TLS


@pytest.fixture
def certified(server: StandIn, tmp_path: Path) -> Path:
    """The file of the certificate by which the stand-in speaks TLS from now on."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        ],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"openssl makes no certificate: {made.stderr[-200:]!r}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    assert server._server is not None
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    return certificate


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(
    server: StandIn, certified: Path, waits: list[float]
) -> None:
    address = find_address(server.url.replace("http", "https"))
    with Daemon(address, sleep=waits.append) as daemon, pytest.raises(MissingDependency) as refused:
        daemon.job(7)
    assert "SSL_CERT_FILE" in str(refused.value)
    assert not waits
    assert not server.seen


def test_a_certificate_of_ones_own_is_named_in_the_environment(
    server: StandIn, certified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certified))
    server.gives("/jobs/7", job())
    with Daemon(find_address(server.url.replace("http", "https"))) as daemon:
        assert daemon.job(7).id == 7


def test_tls_with_a_server_that_speaks_none_is_refused(server: StandIn, waits: list[float]) -> None:
    address = find_address(server.url.replace("http", "https"))
    with (
        Daemon(address, sleep=waits.append) as daemon,
        pytest.raises(MissingDependency, match="write http"),
    ):
        daemon.job(7)


# ------------------------------------------------------------------------------------ what is asked


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}, os])
def test_what_json_cannot_hold_is_refused_before_it_is_sent(
    server: StandIn, daemon: Daemon, value: object
) -> None:
    with pytest.raises(UsageError, match="must be text, numbers"):
        daemon.submit({"verb": "tune", "settings": {"model": value}})
    assert not server.seen


def test_jobs_come_in_pages(server: StandIn, daemon: Daemon) -> None:
    pages: list[Callable[[], Reply] | Reply] = [
        Reply(body={"items": [job(id=each) for each in range(500, 300, -1)], "next": "x"}),
        Reply(body={"items": [job(id=each) for each in range(300, 250, -1)], "next": None}),
    ]
    server.on("GET", "/jobs", *pages)
    found = daemon.jobs(["running", "waiting"], limit=1000)
    assert [each.id for each in found] == list(range(500, 250, -1))
    assert [each.query for each in server.seen] == [
        {"limit": ["200"], "state": ["running", "waiting"]},
        {"limit": ["200"], "state": ["running", "waiting"], "before": ["301"]},
    ]


def test_a_list_that_goes_round_in_circles_ends(server: StandIn, daemon: Daemon) -> None:
    server.gives("/jobs", {"items": [job(id=each) for each in range(500, 300, -1)], "next": "x"})
    assert len(daemon.jobs(limit=10_000)) <= 400
