"""No page runs what others wrote, none can be driven by another site, and nobody sees one uninvited."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from headed import headed
from reading import Page
from shop import HOSTILE, NEWER, OLDER, SCRIPT, fill, hostile_run, reported, scheduled
from talking import TOKEN, URL, TestClient, client_of

from autosparse.daemon.access import Listening
from autosparse.daemon.service import Service
from autosparse.jobs.records import JobOptions
from autosparse.jobs.states import State
from autosparse.web.app import make_app
from autosparse.web.pages.files import OPEN_PATHS
from autosparse.web.pages.route import own_path
from autosparse.web.pages.view import plain
from autosparse.web.session import COOKIE

HTML = {"Accept": "text/html"}
FOREIGN = [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {}]


@pytest.fixture
def browser(app: FastAPI) -> Iterator[TestClient]:
    """Has a session, and sends what browsers do."""
    with client_of(app, "", **HTML) as client:
        answer = client.post("/login", data={"token": TOKEN}, headers={"Origin": URL})
        assert answer.status_code == 200 and client.cookies[COOKIE]
        yield client


@pytest.fixture
def paths(service: Service) -> list[str]:
    """All pages of a store that holds hostile text wherever text can be."""
    job = fill(service)
    scheduled(service, f"odd {HOSTILE}".replace("/", ""))
    odd = hostile_run(service.place.results)
    for name in (OLDER, NEWER):
        reported(service.place.results, name)
    pages = [f"/jobs/{number}" for number in range(1, job.id + 3)]
    pages += [f"/?state={state}" for state in State]
    pages += ["/", "/runs", f"/runs/{odd.name}", f"/runs/{OLDER}", f"/compare?a={OLDER}&b={NEWER}"]
    pages += ["/hosts", "/schedules", "/watches", "/login", "/jobs/999", "/runs/none"]
    return [*pages, f"/compare?a={HOSTILE}&b={HOSTILE}", f"/schedules?cron={HOSTILE}&model={HOSTILE}"]


def test_nothing_that_others_wrote_is_run(browser: TestClient, paths: list[str]) -> None:
    seen = 0
    for path in paths:
        answer = browser.get(path)
        assert answer.status_code < 500 and SCRIPT not in answer.text, path
        assert "699937" not in answer.text, path  # the product that is asked for
        page = Page(answer.text)
        seen += SCRIPT in page.said
        for tag, attributes in page.elements:
            assert tag != "style" and "style" not in attributes, path
            assert not any(name.startswith("on") for name in attributes), (path, attributes)
            for name in ("href", "src", "action", "formaction"):
                target = attributes.get(name, "/")
                assert re.match(r"/(?!/)|#", target), (path, target)
        for script in page.all("script"):
            assert script["src"].startswith("/static/page.js?v=") and "" == page.of("script")
        assert not page.all("img")
    assert seen >= 6  # so that the text was there


def test_every_page_forbids_scripts_but_its_own(browser: TestClient, paths: list[str]) -> None:
    for path in paths:
        headers = browser.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"


def test_forms_of_other_sites_change_nothing(
    browser: TestClient, service: Service, paths: list[str]
) -> None:
    headed(service.place.results / "net.autosparse")
    job = service.queue.jobs(states=[State.RUNNING])[0]
    forms = {
        "/jobs": {"model": "resnet20"},
        f"/jobs/{job.id}/cancel": {},
        "/jobs/5/resume": {},
        "/schedules": {"model": "resnet20", "cron": "@daily"},
        "/schedules/1/pause": {},
        "/schedules/1/remove": {},
        "/watches": {"artifact": "results/net.autosparse", "latency_budget": "5ms"},
        "/hosts/look": {},
        "/logout": {},
    }
    before = _all(service)
    for path, data in forms.items():
        for headers in FOREIGN:
            answer = browser.post(path, data=data, headers=headers, follow_redirects=False)
            assert answer.status_code == 403, (path, headers)
    assert _all(service) == before
    for path, data in forms.items():
        answer = browser.post(path, data=data, headers={"Origin": URL}, follow_redirects=False)
        assert answer.status_code == 303, (path, answer.text)
    assert _all(service) != before


def _all(service: Service) -> object:
    return service.queue.jobs(limit=1000), service.schedules.all()


def test_a_form_of_another_site_begins_no_session(app: FastAPI) -> None:
    with client_of(app, "") as client:
        for headers in FOREIGN[:3]:
            answer = client.post("/login", data={"token": TOKEN}, headers=headers)
            assert answer.status_code == 403 and COOKIE not in client.cookies


def test_whoever_has_no_session_sees_nothing_but_the_login(app: FastAPI, paths: list[str]) -> None:
    with client_of(app, "", **HTML) as client:
        for path in paths:
            answer = client.get(path, follow_redirects=False)
            if path != "/login":
                assert answer.status_code == 303 and answer.headers["location"].startswith(
                    "/login?next=%2F"
                )
        for path in OPEN_PATHS:
            answer = client.get(path)
            assert answer.status_code == 200 and answer.headers["cache-control"].startswith("public")
        assert client.post("/jobs", data={"model": "resnet20"}).status_code == 401
        assert client.get("/static/none", follow_redirects=False).status_code == 303


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], f"{TOKEN}x", "\u00e9", "x" * 100_000])
def test_a_wrong_token_begins_no_session(app: FastAPI, token: str) -> None:
    with client_of(app, "", **HTML) as client:
        answer = client.post("/login", data={"token": token}, headers={"Origin": URL})
        assert answer.status_code == 401 and COOKIE not in client.cookies
        assert "another one" in Page(answer.text).of("error-token")
        assert len(token) < 5 or token not in answer.text  # it is not shown


def test_a_session_leads_back_and_ends(app: FastAPI, service: Service) -> None:
    fill(service)
    with client_of(app, "", **HTML) as client:
        asked = client.get("/jobs/1?x=1")
        assert asked.url.path == "/login" and Page(asked.text).hidden("next") == "/jobs/1?x=1"
        data = {"token": TOKEN, "next": "/jobs/1?x=1"}
        answer = client.post("/login", data=data, headers={"Origin": URL})
        assert str(answer.url).endswith("/jobs/1?x=1") and "resnet18" in answer.text
        assert client.post("/logout", headers={"Origin": URL}).url.path == "/login"
        assert client.get("/").url.path == "/login"


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "/\\evil.example", "https://evil.example", "evil", "", "/\r\nSet-Cookie: a=b"],
)
def test_a_session_leads_to_no_other_site(app: FastAPI, target: str) -> None:
    assert own_path(target) == "/"
    with client_of(app, "", **HTML) as client:
        data = {"token": TOKEN, "next": target}
        answer = client.post("/login", data=data, headers={"Origin": URL}, follow_redirects=False)
        assert answer.headers["location"] == "/"


@pytest.mark.parametrize("behind_proxy", [False, True])
def test_the_cookie_is_the_browsers_alone(service: Service, behind_proxy: bool) -> None:
    app = make_app(service, Listening(behind_proxy=behind_proxy), TOKEN)
    origin = URL.replace("http", "https") if behind_proxy else URL
    with client_of(app, "") as client:
        answer = client.post(
            "/login", data={"token": TOKEN}, headers={"Origin": origin}, follow_redirects=False
        )
        flags = answer.headers["set-cookie"]
        assert (
            "HttpOnly" in flags and "SameSite=Strict" in flags and ("Secure" in flags) == behind_proxy
        )


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "application/json", 422),
        (b"model=%ff", "application/x-www-form-urlencoded", 422),
        ("model=\u00e9".encode(), "application/x-www-form-urlencoded", 422),
        (b"&".join(b"a=1" for _ in range(500)), "application/x-www-form-urlencoded", 422),
        (b"model=" + b"x" * 2**21, "application/x-www-form-urlencoded", 413),
        (b"model=resnet20%00", "application/x-www-form-urlencoded", 422),
        (b"label=%ED%A0%80&model=resnet20", "application/x-www-form-urlencoded", 422),
        (b"", "application/x-www-form-urlencoded", 422),
    ],
)
def test_odd_forms_store_nothing(
    browser: TestClient, service: Service, content: bytes, kind: str, status: int
) -> None:
    headers = {"Origin": URL, "Content-Type": kind}
    for path in ("/jobs", "/schedules", "/watches"):
        answer = browser.post(path, content=content, headers=headers)
        assert answer.status_code == status, answer.text
    assert service.queue.jobs() == [] and service.schedules.all() == []


def test_the_page_is_no_part_of_the_api(app: FastAPI) -> None:
    assert all(
        path.startswith(("/api/", "/healthz", "/readyz", "/metrics")) for path in app.openapi()["paths"]
    )


def test_names_of_jobs_cannot_be_those_of_markup(browser: TestClient, service: Service) -> None:
    headed(service.place.results / "net.autosparse")
    service.add_watch("results/net.autosparse", "5ms", JobOptions(label=HOSTILE), name="odd <b>")
    assert "<b>odd" not in browser.get("/watches").text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("a\x00b\x07", "a\ufffdb\ufffd"),
        ("\u202egnp.exe", "\ufffdgnp.exe"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("\x1b[", ""),
        ("\udc80", "\udc80"),
    ],
)
def test_text_is_shown_without_what_acts(text: str, shown: str) -> None:
    assert plain(text) == shown
