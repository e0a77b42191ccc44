"""`autosparse serve` as a process: what it refuses, what it answers, how it ends and begins again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from autosparse import serving
from autosparse.daemon.access import Listening
from autosparse.jobs.queue import Queue
from autosparse.jobs.states import State
from autosparse.jobs.store import Store

LIMIT_S = 60.0


@dataclass
class Served:
    process: subprocess.Popen[str]
    url: str
    token_file: Path
    verify: ssl.SSLContext | bool = True

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token_file.read_text().strip()}"}
        with httpx.Client(verify=self.verify, trust_env=False, timeout=LIMIT_S) as client:
            return client.request(method, f"{self.url}{path}", headers=headers, **more)

    def job(self, number: int) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.call("GET", f"/api/v1/jobs/{number}").json()
        return found

    def until(self, number: int, *states: str) -> Mapping[str, Any]:
        until_s = time.monotonic() + LIMIT_S
        while (job := self.job(number))["state"] not in states:
            assert time.monotonic() < until_s, job
            time.sleep(0.1)
        return job


@contextmanager
def served(folder: Path, *flags: str, verify: ssl.SSLContext | bool = True) -> Iterator[Served]:
    command = [sys.executable, "-m", "autosparse", "serve", "--port", "0", "--json", *flags]
    with (folder / "serve.log").open("a") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder)
    assert process.stdout is not None
    try:
        said = ""
        while line := process.stdout.readline():
            said += line
            if line.rstrip() == "}":
                break
        assert said, (folder / "serve.log").read_text()
        told = json.loads(said)
        yield Served(process, told["url"], Path(told["token_file"]), verify)
    finally:
        process.terminate()
        try:
            process.wait(LIMIT_S)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def refused(folder: Path, *flags: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "autosparse", "serve", "--port", "0", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=folder)
    return ended.returncode, ended.stderr


class TestRefused:
    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (("--host", "0.0.0.0"), "must speak TLS"),
            (("--host", "192.168.1.5"), "--tls-cert"),
            (("--host", "::"), "--behind-proxy"),
            (("--tls-cert", "cert.pem"), "alone"),
            (("--tls-cert", "no.pem", "--tls-key", "no.pem"), "there is no file"),
            (("--host", "no.such.host.invalid", "--behind-proxy"), "must be able to listen"),
            (("--root", "data"), "NAME=DIR"),
            (("--root", "data=/no/such/folder"), "must name a folder"),
            (("--root", "results=/tmp"), "name of its own"),
            (("--root", "a b=/tmp"), "NAME=DIR"),
            (("--own-cores", "999"), "must leave one to jobs"),
            (("--log-format", "xml"), "json or text"),
            (("--database", "nosuch://x"), "SQLAlchemy URL"),
            (("--address", "http://x:1"), "host:port of a Ray cluster"),
        ],
    )
    def test_before_anything_is_made(
        self, tmp_path: Path, own_home: Path, flags: tuple[str, ...], said: str
    ) -> None:
        (tmp_path / "cert.pem").write_text("x")
        code, text = refused(tmp_path, *flags)
        assert code == 2 and said in text, text
        assert text.count("\n") == 1  # one message, no traceback
        if "listen" not in said and "URL" not in said:
            assert not (own_home / "daemon.token").exists() and not (tmp_path / "results").exists()

    def test_a_port_that_is_taken(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
            code, text = refused(tmp_path, "--port", port)
        assert code == 2 and f"port {port}" in text

    def test_a_token_that_others_can_read(self, tmp_path: Path, own_home: Path) -> None:
        (own_home / "daemon.token").write_text("t" * 43)
        (own_home / "daemon.token").chmod(0o644)
        code, text = refused(tmp_path)
        assert code == 2 and "chmod 600" in text


class TestServing:
    def test_a_token_is_made_once_for_its_user_alone(self, tmp_path: Path, own_home: Path) -> None:
        with served(tmp_path) as one:
            assert one.token_file == own_home / "daemon.token"
            assert stat.S_IMODE(one.token_file.stat().st_mode) == 0o600
            token = one.token_file.read_text()
            assert one.call("GET", "/api/v1/server").status_code == 200
            assert httpx.get(f"{one.url}/api/v1/server", trust_env=False).status_code == 401
            assert httpx.get(f"{one.url}/readyz", trust_env=False).status_code == 200
        with served(tmp_path) as again:
            assert again.token_file.read_text() == token

    def test_a_job_goes_on_with_the_next_daemon(self, tmp_path: Path) -> None:
        settings = {"model": "resnet20", "dtype": "f32", "threads": 1}
        with served(tmp_path) as one:
            asked = one.call("POST", "/api/v1/jobs", json={"verb": "tune", "settings": settings})
            assert asked.status_code == 201, asked.text
            number = asked.json()["id"]
            one.until(number, "running")
        queue = Queue(Store())
        left = queue.get(number)
        assert (left.state, left.failures) == (State.WAITING, 0)
        assert "its daemon stopped" in left.message
        with served(tmp_path) as next_one:
            next_one.until(number, "running")
            next_one.call("POST", f"/api/v1/jobs/{number}/cancel")
            job = next_one.until(number, "cancelled")
        assert job["attempt"] == 2
        told = (tmp_path / "results" / "jobs" / str(number) / "config.yaml").read_text()
        assert "model: resnet20" in told

    def test_what_jobs_may_read_is_below_its_roots(self, tmp_path: Path) -> None:
        data = tmp_path / "data"
        data.mkdir()
        (data / "net.py").write_text("def build():\n    raise SystemExit('it ran')\n")
        asked = {"verb": "tune", "settings": {"model": "data/net.py:build"}}
        with served(tmp_path, "--root", f"data={data}") as one:
            answer = one.call("POST", "/api/v1/jobs", json=asked)
            assert answer.status_code == 422 and "--allow-code" in answer.json()["detail"]
            assert one.call("GET", "/api/v1/jobs").json()["items"] == []
        with served(tmp_path, "--root", f"data={data}", "--allow-code") as one:
            answer = one.call("POST", "/api/v1/jobs", json=asked)
            assert answer.status_code == 201
            assert answer.json()["settings"]["model"] == f"{data}/net.py:build"
            one.call("POST", f"/api/v1/jobs/{answer.json()['id']}/cancel")

    def test_it_ends_at_once_when_asked_twice(self, tmp_path: Path) -> None:
        with served(tmp_path) as one:
            one.process.send_signal(signal.SIGINT)
            one.process.send_signal(signal.SIGINT)
            assert one.process.wait(LIMIT_S) == 0
        with served(tmp_path) as again:
            assert again.call("GET", "/api/v1/server").status_code == 200


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes keys, is absent")
def test_over_tls_it_listens_where_others_can_reach_it(tmp_path: Path) -> None:
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        cwd=tmp_path,
        capture_output=True,
    )
    assert made.returncode == 0, made.stderr
    cert = str(tmp_path / "cert.pem")
    flags = ("--host", "0.0.0.0", "--tls-cert", cert, "--tls-key", str(tmp_path / "key.pem"))
    with served(tmp_path, *flags, verify=ssl.create_default_context(cafile=cert)) as one:
        assert one.url.startswith("https://127.0.0.1:")
        assert one.call("GET", "/api/v1/server").status_code == 200


def test_processors_that_jobs_leave_to_the_daemon(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor cannot be shared out")
    asked = {"verb": "tune", "settings": {"model": "resnet20", "dtype": "f32"}}
    with served(tmp_path, "--own-cores", "1") as one:
        own = os.sched_getaffinity(one.process.pid)
        number = one.call("POST", "/api/v1/jobs", json=asked).json()["id"]
        one.until(number, "running")
        until_s = time.monotonic() + LIMIT_S
        while not (jobs := _jobs(one.process.pid)):
            assert time.monotonic() < until_s
            time.sleep(0.05)
        theirs = os.sched_getaffinity(jobs[0])
    assert len(own) == 1 and theirs and not own & theirs


def _jobs(pid: int) -> list[int]:
    """Gives the processes of jobs; a daemon begins others too, which look at the database for it."""
    found = psutil.Process(pid).children()
    return [child.pid for child in found if "tune" in child.cmdline()]


def test_answers_do_not_wait_for_a_client_to_say_that_their_head_has_come() -> None:
    with serving._listen(Listening(port=0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
