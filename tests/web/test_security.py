"""Who is heard, and that those who are not leave nothing behind."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from talking import BEARER, TOKEN, TUNE, URL, TestClient, a_run, client_of, speaking

from autosparse.daemon.access import Listening
from autosparse.daemon.service import Service
from autosparse.jobs.schema import JOBS, SCHEDULES, TRANSITIONS
from autosparse.web.app import make_app
from autosparse.web.session import COOKIE, make_session, set_cookie

MEBIBYTE = 2**20
OWN = {"Origin": URL}
ANYTHING = (
    *(("GET", "/api/v1/jobs"), ("POST", "/api/v1/jobs"), ("GET", "/api/v1/openapi.json")),
    *(("GET", "/nothing"), ("PUT", "/api/v1/jobs"), ("GET", "/metrics"), ("OPTIONS", "/")),
    *(("GET", "/api/v1/jobs/1/events"), ("GET", "/healthz/"), ("GET", "/login/x")),
)
OTHER_HOSTS = (
    *("evil.example", "evil.example:8337", "127.0.0.1.evil.example", "127.0.0.2:8337"),
    *("", "localhost.", "[::2]:8337", "127.0.0.1:8337@evil.example", "127.0.0.1:x", "::1"),
)
OTHER_ORIGINS = (
    *("https://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:8338", ""),
    *("https://127.0.0.1:8337", "http://localhost:8337", "http://127.0.0.1:8337.evil.example"),
    *("http://127.0.0.1:8337@evil.example", "file://", "http://127.0.0.1:8337/"),
)


@pytest.fixture
def stranger(app: FastAPI) -> Iterator[TestClient]:
    with client_of(app, token="") as stranger:
        yield stranger


@pytest.fixture(autouse=True)
def nothing_begun(service: Service) -> Iterator[None]:
    """No refused request stores a row, starts a process, or makes a file."""
    before = _all_there_is(service)
    yield
    assert _all_there_is(service) == before


def _all_there_is(service: Service) -> tuple[object, ...]:
    with service.queue.store.reading() as connection:
        rows = [
            connection.execute(sa.select(sa.func.count()).select_from(table)).scalar()
            for table in (JOBS, TRANSITIONS, SCHEDULES)
        ]
    return (*rows, _jobs_processes(service), sorted(service.place.results.rglob("*")))


def _jobs_processes(service: Service) -> set[int]:
    """Gives what runs for this daemon alone: other tests' libraries begin and end processes as well."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if str(service.place.results) in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


def assert_problem(response: object, status: int) -> dict[str, object]:
    assert response.status_code == status, response.text  # type: ignore[attr-defined]
    assert response.headers["content-type"] == "application/problem+json"  # type: ignore[attr-defined]
    problem = response.json()  # type: ignore[attr-defined]
    assert problem["status"] == status and problem["detail"] and problem["title"]
    assert "Traceback" not in response.text  # type: ignore[attr-defined]
    return dict(problem)


class TestTokens:
    @pytest.mark.parametrize(
        "shown",
        [
            {},
            {"Authorization": ""},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer wrong"},
            {"Authorization": TOKEN},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": f"Bearer {TOKEN[:-1]}"},
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": f"Bearer {TOKEN.upper()}"},
            {"Authorization": b"Bearer \xff\xfe"},
            {"Cookie": f"{COOKIE}={TOKEN}"},
            {"X-Token": TOKEN},
        ],
    )
    def test_nothing_is_said_without_the_token(
        self, stranger: TestClient, shown: dict[str, str]
    ) -> None:
        for method, path in ANYTHING:
            response = stranger.request(method, path, headers=shown)
            assert_problem(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"

    def test_two_tokens_are_none(self, stranger: TestClient) -> None:
        both = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer x")]
        assert_problem(stranger.get("/api/v1/jobs", headers=both), 401)

    def test_the_token_in_the_query_is_none(self, stranger: TestClient) -> None:
        assert_problem(stranger.get(f"/api/v1/jobs?token={TOKEN}&access_token={TOKEN}"), 401)

    def test_the_token_opens(self, client: TestClient) -> None:
        assert client.get("/api/v1/jobs").status_code == 200
        assert_problem(client.get("/nothing"), 404)

    def test_the_scheme_is_read_in_any_case(self, stranger: TestClient) -> None:
        shown = {"Authorization": f"bearer {TOKEN}"}
        assert stranger.get("/api/v1/jobs", headers=shown).status_code == 200

    def test_health_needs_none(self, stranger: TestClient) -> None:
        assert stranger.get("/healthz").status_code == stranger.get("/readyz").status_code == 200

    def test_figures_need_one_unless_told_otherwise(self, service: Service) -> None:
        with client_of(make_app(service, Listening(), TOKEN, open_metrics=True), "") as everybody:
            assert everybody.get("/metrics").status_code == 200
            assert everybody.get("/api/v1/jobs").status_code == 401


class TestHosts:
    @pytest.mark.parametrize("path", ["/api/v1/jobs", "/healthz"])
    def test_other_names_are_refused(self, client: TestClient, path: str) -> None:
        for host in OTHER_HOSTS:
            assert_problem(client.get(path, headers={"Host": host}), 421)

    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "127.0.0.1:8337", "localhost:9", "LOCALHOST", "[::1]", "[::1]:8337"]
    )
    def test_own_names_are_heard_with_any_port(self, client: TestClient, host: str) -> None:
        assert client.get("/api/v1/jobs", headers={"Host": host}).status_code == 200

    def test_two_hosts_are_none(self, client: TestClient) -> None:
        both = [("Host", "127.0.0.1:8337"), ("Host", "evil.example")]
        assert_problem(client.get("/healthz", headers=both), 421)

    def test_allowed_names_are_heard(self, service: Service) -> None:
        listening = Listening(allowed_hosts=("Box.lan",))
        with client_of(make_app(service, listening, TOKEN)) as client:
            assert client.get("/api/v1/jobs", headers={"Host": "box.lan:8337"}).status_code == 200
            assert_problem(client.get("/api/v1/jobs", headers={"Host": "box.lan.evil"}), 421)


class TestOrigins:
    @pytest.mark.parametrize(("method", "path"), [("POST", "/api/v1/jobs"), ("GET", "/healthz")])
    def test_pages_of_others_are_refused_with_the_token_too(
        self, client: TestClient, method: str, path: str
    ) -> None:
        for origin in OTHER_ORIGINS:
            assert_problem(client.request(method, path, headers={"Origin": origin}, json=TUNE), 403)

    def test_one_of_two_origins_is_enough(self, client: TestClient) -> None:
        both = [("Origin", URL), ("Origin", "https://evil.example")]
        assert_problem(client.get("/api/v1/jobs", headers=both), 403)

    @pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "anything"])
    def test_what_browsers_call_another_site_is_refused(self, client: TestClient, site: str) -> None:
        assert_problem(client.get("/api/v1/jobs", headers={"Sec-Fetch-Site": site}), 403)

    @pytest.mark.parametrize(
        "headers", [OWN, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]
    )
    def test_its_own_pages_are_heard(self, client: TestClient, headers: dict[str, str]) -> None:
        assert client.get("/api/v1/jobs", headers=headers).status_code == 200

    def test_no_page_is_told_that_it_may_read(self, client: TestClient) -> None:
        for headers in (OWN, {"Origin": "https://evil.example"}):
            response = client.get("/api/v1/jobs", headers=headers)
            assert not [name for name in response.headers if name.startswith("access-control")]

    @pytest.mark.parametrize(
        ("listening", "origin"),
        [
            (Listening(allowed_hosts=("box.lan",), behind_proxy=True), "https://box.lan"),
            (Listening(allowed_hosts=("box.lan",)), "http://box.lan"),
        ],
    )
    def test_default_ports_are_left_out(
        self, service: Service, listening: Listening, origin: str
    ) -> None:
        with client_of(make_app(service, listening, TOKEN)) as client:
            own = {"Host": "box.lan", "Origin": origin}
            assert client.get("/api/v1/jobs", headers=own).status_code == 200
            other = {"Host": "box.lan", "Origin": origin.replace("http", "ftp")}
            assert client.get("/api/v1/jobs", headers=other).status_code == 403


class TestSessions:
    def cookie(self, value: str) -> dict[str, str]:
        return {"Cookie": f"theme=dark; {COOKIE}={value}"}

    def test_a_session_opens(self, stranger: TestClient) -> None:
        session = self.cookie(make_session(TOKEN, time.time()))
        assert stranger.get("/api/v1/jobs", headers=session).status_code == 200

    def test_it_ends(self, stranger: TestClient) -> None:
        session = make_session(TOKEN, time.time() - 61, lasts_s=60)
        assert_problem(stranger.get("/api/v1/jobs", headers=self.cookie(session)), 401)

    def test_no_letter_of_it_can_be_changed(self, stranger: TestClient) -> None:
        session = make_session(TOKEN, time.time())
        for place in range(len(session)):
            other = "1" if session[place] != "1" else "2"
            forged = session[:place] + other + session[place + 1 :]
            assert stranger.get("/api/v1/jobs", headers=self.cookie(forged)).status_code == 401

    @pytest.mark.parametrize("value", ["", ".", "..", "9999999999..", "é.é.é", "1.2.3", '"'])
    def test_what_is_no_session_is_refused(self, stranger: TestClient, value: str) -> None:
        shown = {"Cookie": f"{COOKIE}={value}".encode()}
        assert_problem(stranger.get("/api/v1/jobs", headers=shown), 401)

    def test_one_of_another_token_is_none(self, stranger: TestClient) -> None:
        session = make_session(TOKEN + "x", time.time())
        assert_problem(stranger.get("/api/v1/jobs", headers=self.cookie(session)), 401)

    def test_a_wrong_token_beside_it_is_refused(self, stranger: TestClient) -> None:
        shown = {**self.cookie(make_session(TOKEN, time.time())), "Authorization": "Bearer x"}
        assert_problem(stranger.get("/api/v1/jobs", headers=shown), 401)

    @pytest.mark.parametrize("extra", [{}, {"Sec-Fetch-Site": "none"}])
    def test_it_changes_nothing_unless_its_page_asks(
        self, stranger: TestClient, extra: dict[str, str]
    ) -> None:
        session = self.cookie(make_session(TOKEN, time.time()))
        assert_problem(stranger.post("/api/v1/jobs", json=TUNE, headers={**session, **extra}), 403)

    @pytest.mark.parametrize("extra", [OWN, {"Sec-Fetch-Site": "same-origin"}])
    def test_its_page_may_ask(self, stranger: TestClient, extra: dict[str, str]) -> None:
        session = self.cookie(make_session(TOKEN, time.time()))
        response = stranger.post("/api/v1/jobs/1/cancel", headers={**session, **extra})
        assert_problem(response, 404)

    def test_its_cookie_is_for_this_site_and_no_script(self) -> None:
        text = set_cookie("v", secure=True)
        assert {"HttpOnly", "SameSite=Strict", "Secure", "Path=/"} <= set(text.split("; "))
        assert "Secure" not in set_cookie("v", secure=False).split("; ")
        assert "Max-Age=0" in set_cookie("", secure=True)

    def test_browsers_are_sent_to_the_login_where_there_is_one(self, service: Service) -> None:
        app = make_app(service, Listening(), TOKEN, login_path="/login")
        with client_of(app, "", Accept="text/html,*/*") as browser:
            response = browser.get("/jobs?a=1&b=2", follow_redirects=False)
            assert response.status_code == 303
            assert response.headers["location"] == "/login?next=%2Fjobs%3Fa%3D1%26b%3D2"
            assert_problem(browser.get("/api/v1/jobs"), 401)
            assert_problem(browser.post("/jobs"), 401)
            assert_problem(browser.get("/jobs", headers={"Authorization": "Bearer x"}), 401)


class TestBodies:
    @pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/schedules", "/nothing"])
    def test_one_that_says_it_is_too_large_is_not_read(self, client: TestClient, path: str) -> None:
        headers = {"Content-Length": str(10**9), "Content-Type": "application/json"}
        assert_problem(client.post(path, content=b"{}", headers=headers), 413)

    @pytest.mark.parametrize("said", ["9" * 5000, str(2**64), str(MEBIBYTE + 1)])
    def test_any_number_is_understood(self, client: TestClient, said: str) -> None:
        headers = {"Content-Length": said, "Content-Type": "application/json"}
        assert_problem(client.post("/api/v1/jobs", content=b"{}", headers=headers), 413)

    def test_a_gigabyte_in_chunks_is_cut_off_early(self, address: str) -> None:
        sent = 0

        def chunks() -> Iterator[bytes]:
            nonlocal sent
            yield b'{"verb": "'
            for _ in range(16 * 1024):
                sent += 65536
                yield b"x" * 65536

        memory = psutil.Process().memory_info().rss
        with speaking(address) as client:
            headers = {"Content-Type": "application/json"}
            try:
                response = client.post("/api/v1/jobs", content=chunks(), headers=headers)
                assert_problem(response, 413)
            except OSError:  # the server has hung up while it was still sent
                pass
            except Exception as error:
                assert "httpx" in type(error).__module__, error
            assert client.get("/healthz").status_code == 200
        assert sent < 64 * MEBIBYTE
        assert psutil.Process().memory_info().rss - memory < 200 * MEBIBYTE

    def test_one_just_within_is_read(self, client: TestClient) -> None:
        text = b'{"verb": "tune", "settings": {}}' + b" " * MEBIBYTE
        headers = {"Content-Type": "application/json"}
        assert_problem(client.post("/api/v1/jobs", content=text[:MEBIBYTE], headers=headers), 422)
        assert_problem(client.post("/api/v1/jobs", content=text, headers=headers), 413)

    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
    )
    def test_what_forms_can_send_is_refused(self, client: TestClient, kind: str) -> None:
        headers = {"Content-Type": kind}
        assert_problem(client.post("/api/v1/jobs", content=b'{"verb":"tune"}', headers=headers), 415)

    @pytest.mark.parametrize(
        "text",
        [
            *(b"{", b"\xff\xfe{}", b"[" * 100_000, b"{'a': 1}", b"1" * 5000, b'{"verb": "\x01"}'),
            b'{"verb":"tune","settings":{"model":"resnet20","seed":' + b"1" * 5000 + b"}}",
        ],
    )
    def test_what_is_no_json_is_refused(self, client: TestClient, text: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        assert_problem(client.post("/api/v1/jobs", content=text, headers=headers), 400)


class TestFiles:
    OUTSIDE = (
        *("../secret", "..%2fsecret", "%2e%2e%2fsecret", "%252e%252e%252fsecret", "..%252fsecret"),
        *("/etc/passwd", "%2fetc%2fpasswd", "....//secret", "..;/secret", "..\\secret", "%00", "~"),
        *("results/../../secret", ".", "..", "%2e%2e", "secret%00", "\u2025/secret"),
    )

    @pytest.fixture(autouse=True)
    def secret(self, service: Service, nothing_begun: None) -> Iterator[Path]:
        secret = a_run(service.place.results.parent, "secret")
        (secret / "report.html").write_text("the secret")
        (secret / "stderr.log").write_text("the secret")
        yield secret
        assert (secret / "report.html").exists()

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            *(("GET", "/api/v1/runs/{}"), ("GET", "/api/v1/runs/{}/report")),
            *(
                ("DELETE", "/api/v1/runs/{}"),
                ("GET", "/api/v1/jobs/{}"),
                ("GET", "/api/v1/jobs/{}/log"),
            ),
            *(("GET", "/api/v1/jobs/{}/result"), ("GET", "/api/v1/jobs/{}/events")),
            *(("GET", "/api/v1/jobs/{}/transitions"), ("POST", "/api/v1/jobs/{}/cancel")),
            *(("POST", "/api/v1/jobs/{}/resume"), ("GET", "/api/v1/schedules/{}")),
            *(("DELETE", "/api/v1/schedules/{}"), ("POST", "/api/v1/schedules/{}/pause")),
            *(("POST", "/api/v1/schedules/{}/resume"), ("GET", "/api/v1/schedules/{}/next")),
            *(("GET", "/api/v1/schedules/{}/occurrences"), ("GET", "/{}"), ("GET", "/api/v1/{}")),
        ],
    )
    def test_no_path_leads_outside(self, app: FastAPI, method: str, path: str) -> None:
        for named in self.OUTSIDE:
            status, text = raw(app, method, path.format(named))
            assert status in (404, 405, 422), (named, status, text)
            assert b"the secret" not in text and b"root:" not in text

    def test_a_link_to_a_run_outside_is_none(
        self, service: Service, client: TestClient, secret: Path
    ) -> None:
        link = service.place.results / "linked"
        link.symlink_to(secret)
        try:
            assert_problem(client.get("/api/v1/runs/linked"), 404)
            assert_problem(client.delete("/api/v1/runs/linked"), 404)
        finally:
            link.unlink()

    def test_a_run_of_the_working_folder_is_none(
        self, client: TestClient, secret: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(secret.parent)
        assert_problem(client.get("/api/v1/runs/secret/report"), 404)


def raw(app: FastAPI, method: str, target: str) -> tuple[int, bytes]:
    """Sends a target as it stands: clients would tidy it up before. Decoded once, as servers do."""
    import asyncio
    from urllib.parse import unquote

    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"authorization", BEARER["Authorization"].encode())],
        "server": ("127.0.0.1", 8337),
        "client": ("127.0.0.1", 1),
        "state": {},
    }
    said: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        said.append(message)

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    body = b"".join(message.get("body", b"") for message in said)  # type: ignore[misc]
    return int(said[0]["status"]), body  # type: ignore[call-overload]


class TestCode:
    @pytest.mark.parametrize(
        "settings",
        [
            {"model": "evil.py:make"},
            {"model": "results/evil.py:make"},
            {"model": "/tmp/evil.py:make"},
            {"model": "resnet20", "data": "evil.py:make"},
            {"model": "resnet20", "data": "results/evil.py:make"},
        ],
    )
    @pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/schedules"])
    def test_a_factory_is_refused_unless_code_is_allowed(
        self, client: TestClient, path: str, settings: dict[str, str]
    ) -> None:
        asked = {"verb": "search", "settings": settings}
        asked |= {"cron": "0 3 * * *"} if path.endswith("schedules") else {}  # type: ignore[dict-item]
        problem = assert_problem(client.post(path, json=asked), 422)
        assert "--allow-code" in str(problem["detail"]) and problem["exit_code"] == 2

    @pytest.mark.parametrize(
        "settings",
        [
            {"model": "resnet20", "weights": "/etc/passwd"},
            {"model": "resnet20", "weights": "results/../../../etc/passwd"},
            {"model": "resnet20", "data": "imagefolder:/etc"},
            {"model": "resnet20", "space": "/etc/passwd"},
            {"model": "resnet20", "recipe": "../x.yaml"},
            {"model": "hf:/etc"},
            {"model": "resnet20", "out": "/tmp/elsewhere"},
            {"model": "resnet20", "database": "sqlite:////tmp/x.db"},
        ],
    )
    def test_files_outside_of_the_roots_are_refused(
        self, client: TestClient, settings: dict[str, str]
    ) -> None:
        asked = {"verb": "search", "settings": settings}
        assert_problem(client.post("/api/v1/jobs", json=asked), 422)


class TestAnswers:
    @pytest.mark.parametrize("path", ["/api/v1/jobs", "/nothing", "/healthz", "/metrics"])
    def test_browsers_are_told_to_run_and_keep_nothing(self, client: TestClient, path: str) -> None:
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"

    def test_refusals_at_the_door_say_so_too(self, client: TestClient) -> None:
        headers = client.get("/healthz", headers={"Host": "evil"}).headers
        assert headers["cache-control"] == "no-store" and "content-security-policy" in headers

    def test_what_goes_wrong_inside_is_logged_and_not_told(
        self, app: FastAPI, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken:
            def jobs(self, **_: object) -> None:
                raise ZeroDivisionError("a secret of the inside")

        app.state.service = dataclasses.replace(service, queue=Broken())
        with client_of(app) as client:
            response = client.get("/api/v1/jobs")
        problem = assert_problem(response, 500)
        assert "secret" not in response.text
        incident = str(problem["incident"])
        assert incident in str(problem["detail"])
        logged = next(record for record in caplog.records if incident in record.getMessage())
        assert logged.exc_info is not None and logged.exc_info[0] is ZeroDivisionError
