"""The page in a real browser, over a daemon of short jobs: live, by keyboard, small and dark."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from headed import headed  # noqa: E402
from playwright.sync_api import Browser, BrowserContext, Page, expect  # noqa: E402
from shop import NEWER, OLDER, fill, reported, scheduled  # noqa: E402
from talking import TOKEN, served, service_of  # noqa: E402

from autosparse.daemon.access import Listening  # noqa: E402
from autosparse.daemon.service import Service  # noqa: E402
from autosparse.daemon.supervisor import Supervisor  # noqa: E402
from autosparse.jobs import daemons  # noqa: E402
from autosparse.jobs.queue import Queue  # noqa: E402
from autosparse.jobs.records import JobOptions, JobRequest  # noqa: E402
from autosparse.jobs.states import State  # noqa: E402
from autosparse.jobs.store import Store  # noqa: E402
from autosparse.schedules.store import Schedules  # noqa: E402
from autosparse.web.app import make_app  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WORKER = Path(__file__).parent.parent / "daemon" / "worker.py"
ZONE = "Asia/Kolkata"
SOON_MS = 20_000


@dataclass
class Daemon:
    """A daemon that works on short jobs and answers at an address."""

    service: Service
    address: str

    def submit(self, *include: str, label: str = "", trials: int | None = None) -> int:
        settings = {"model": "resnet20", "include": list(include), "trials": trials}
        options = JobOptions(label=label)
        request = JobRequest(verb="search", settings=settings, options=options)
        return self.service.queue.submit(request)[0].id


@dataclass
class Watched:
    """A page, and what it said and asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("console", lambda said: self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda asked: self.hosts.add(urlsplit(asked.url).netloc))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def daemon(store: Store, tmp_path: Path) -> Iterator[Daemon]:
    me = daemons.this_daemon("b5ab65236d15")
    service = service_of(store, tmp_path / "results", me.id)
    queue = Queue(store, lease_s=3.0)
    supervisor = Supervisor(
        queue, me, service.place, program=(sys.executable, str(WORKER)), retry_s=0.05, tick_s=0.1
    )
    service = dataclasses.replace(
        service, queue=queue, schedules=Schedules(queue), wake=supervisor.look_at_once
    )
    stop = threading.Event()
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    try:
        with served(make_app(service, Listening(), TOKEN)) as address:
            yield Daemon(service, address)
    finally:
        stop.set()
        supervisor.wake()
        thread.join(30)
        supervisor.close()


@pytest.fixture
def idle(store: Store, tmp_path: Path) -> Iterator[Daemon]:
    """Works on nothing: what is put there stays."""
    service = service_of(store, tmp_path / "results")
    with served(make_app(service, Listening(), TOKEN)) as address:
        yield Daemon(service, address)


def opened(browser: Browser, **how: object) -> BrowserContext:
    return browser.new_context(timezone_id=ZONE, locale="en-GB", **how)  # type: ignore[arg-type]


def entered(context: BrowserContext, address: str, path: str = "/") -> Watched:
    """Begins a session and opens a page."""
    watched = Watched(context.new_page())
    page = watched.page
    page.set_default_timeout(SOON_MS)
    page.goto(address + path)
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_url(address + path)
    return watched


def test_a_job_is_submitted_and_followed_to_its_end(browser: Browser, daemon: Daemon) -> None:
    with opened(browser) as context:
        watched = entered(context, daemon.address)
        page = watched.page
        page.get_by_label("Model").fill("resnet20")
        page.get_by_text("More settings").click()
        page.get_by_label("Trials").fill("120")
        page.get_by_role("button", name="Submit").click()
        page.wait_for_url(f"{daemon.address}/jobs/1")
        page.evaluate("window.unchanged = true")
        expect(page.locator("#state")).to_have_text("running", timeout=SOON_MS)
        bar = page.locator("#running progress")
        bar.wait_for()
        seen = set()
        while page.locator("#state").inner_text() == "running" and len(seen) < 3:
            seen.add(bar.get_attribute("value") if bar.count() else None)
            page.wait_for_timeout(150)
        assert len(seen) == 3
        expect(page.locator("#state")).to_have_text("done", timeout=SOON_MS)
        expect(page.locator("#happened li")).to_have_count(4)
        assert page.evaluate("window.unchanged") is True  # it was not loaded anew
        assert watched.complaints == []
        assert watched.hosts == {urlsplit(daemon.address).netloc}


def test_a_job_is_cancelled_by_keyboard_alone(browser: Browser, daemon: Daemon) -> None:
    daemon.submit("endless")
    with opened(browser) as context:
        watched = entered(context, daemon.address)
        page = watched.page
        expect(page.locator("#job-1")).to_contain_text("running", timeout=SOON_MS)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        for _ in range(60):
            if page.evaluate("document.activeElement.getAttribute('aria-label')") == "Cancel job 1":
                break
            page.keyboard.press("Tab")
        style = "getComputedStyle(document.activeElement)"
        assert page.evaluate(f"{style}.outlineStyle") == "solid"
        page.keyboard.press("Enter")
        page.wait_for_url(f"{daemon.address}/jobs/1")
        expect(page.locator("#state")).to_have_text("cancelled", timeout=SOON_MS)
        assert watched.complaints == []
    assert daemon.service.queue.get(1).state == State.CANCELLED


def test_the_queue_changes_under_the_readers_hands(browser: Browser, daemon: Daemon) -> None:
    daemon.submit("endless", label="first")
    with opened(browser) as context:
        watched = entered(context, daemon.address)
        page = watched.page
        button = page.get_by_role("button", name="Cancel job 1")
        expect(page.locator("#job-1")).to_contain_text("steps", timeout=SOON_MS)
        page.get_by_label("Latency budget").fill("5ms")
        page.get_by_text("More settings").click()
        button.focus()
        daemon.submit(label="second")
        expect(page.locator("#job-2")).to_contain_text("done", timeout=SOON_MS)
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Cancel job 1"
        assert page.get_by_label("Latency budget").input_value() == "5ms"
        assert page.get_by_label("Trials").is_visible()
        daemon.service.cancel(1)
        expect(page.locator("#ended #job-1")).to_contain_text("cancelled", timeout=SOON_MS)
        assert page.evaluate("document.activeElement.id") == "open"  # of the button that went away
        expect(page.locator("#summary")).to_have_text("Nothing is in line")
        assert watched.complaints == []


@pytest.fixture
def full(idle: Daemon) -> Daemon:
    for name in (OLDER, NEWER):
        reported(idle.service.place.results, name, report=name == OLDER)
    fill(idle.service)
    scheduled(idle.service)
    headed(idle.service.place.results / "net.autosparse")
    idle.service.add_watch("results/net.autosparse", "5ms", JobOptions())
    return idle


PAGES = (
    *("/", "/jobs/7", "/jobs/6", "/runs", f"/runs/{OLDER}", f"/compare?a={OLDER}&b={NEWER}"),
    *("/hosts", "/schedules?cron=@daily", "/watches", "/runs/none"),
)

# The least contrast of text with what lies behind it, over 3 for large text: at least 4.5 by WCAG AA.
CONTRAST = """() => {
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (text) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const found = rgba(getComputedStyle(each).backgroundColor);
      if (found[3] > 200) return found;
    }
    return [255, 255, 255, 255];
  };
  let least = [99, ""];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, .hidden, .skip, option")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(rgba(style.color)), light(behind(element))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const ratio = ((a + 0.05) / (b + 0.05)) * (large ? 1.5 : 1);
    if (ratio < least[0]) least = [ratio, element.outerHTML.slice(0, 120)];
  }
  return least;
}"""


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_every_page_fits_and_can_be_read(
    browser: Browser, full: Daemon, width: int, scheme: str
) -> None:
    with opened(browser, viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
        watched = entered(context, full.address)
        page = watched.page
        for path in PAGES:
            page.goto(full.address + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            least, where = page.evaluate(CONTRAST)
            assert least >= 4.5, (path, where)
            dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (dark == "rgb(15, 19, 24)") == (scheme == "dark")
        quiet = [said for said in watched.complaints if "404" not in said]  # of /runs/none
        assert quiet == [] and watched.hosts == {urlsplit(full.address).netloc}


def test_times_are_the_readers(browser: Browser, full: Daemon) -> None:
    with opened(browser) as context:
        page = entered(context, full.address, "/schedules").page
        shown = page.locator("#schedule-1 .times li").first
        assert "02:30 CE" in shown.inner_text()
        there = shown.locator("time")
        hour = int(str(there.get_attribute("datetime"))[11:13])  # of UTC; Kolkata is 5:30 ahead
        assert f"{(hour + 6) % 24:02}:00" in there.inner_text()
        assert "UTC" in str(there.get_attribute("title"))


def test_a_schedule_is_previewed_while_it_is_typed(browser: Browser, idle: Daemon) -> None:
    with opened(browser) as context:
        watched = entered(context, idle.address, "/schedules")
        page = watched.page
        assert page.get_by_label("Time zone").input_value() in (ZONE, "Asia/Calcutta")
        page.get_by_label("When").fill("30 2 * * *")
        expect(page.locator("#preview li")).to_have_count(5)
        page.get_by_label("When").fill("61 2 * * *")
        expect(page.locator("#preview .error")).to_contain_text("minute of a cron expression")
        assert page.get_by_label("When").input_value() == "61 2 * * *" and watched.complaints == []
        page.get_by_label("When").fill("@daily")
        page.get_by_label("Model").fill("resnet20")
        page.get_by_role("button", name="Add").click()
        expect(page.locator("#schedule-1")).to_contain_text("At 00:00")
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.get_by_role("button", name="Remove").click()
        expect(page.locator("#schedule-1")).to_be_visible()
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Remove").click()
        expect(page.locator("#schedules")).to_contain_text("There are none yet")


def test_all_works_without_scripts(browser: Browser, idle: Daemon) -> None:
    with opened(browser, java_script_enabled=False) as context:
        page = entered(context, idle.address).page
        page.get_by_label("Model").fill("resnet20")
        page.get_by_role("button", name="Submit").click()
        page.wait_for_url(f"{idle.address}/jobs/1")
        assert "UTC" in page.locator("#happened time").first.inner_text()
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#state")).to_have_text("cancelled")
        page.goto(f"{idle.address}/schedules")
        page.get_by_label("When").fill("@weekly")
        page.get_by_role("button", name="Show the next times").click()
        expect(page.locator("#preview li")).to_have_count(5)
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url(f"{idle.address}/login")


def test_a_session_that_has_ended_leads_to_the_login(browser: Browser, idle: Daemon) -> None:
    with opened(browser) as context:
        page = entered(context, idle.address).page
        context.clear_cookies()
        idle.submit()
        page.wait_for_url(f"{idle.address}/login?next=%2F")


def test_a_daemon_that_is_away_is_told_and_waited_for(browser: Browser, idle: Daemon) -> None:
    with opened(browser) as context:
        page = entered(context, idle.address).page
        page.wait_for_timeout(300)
        context.set_offline(True)
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(page.locator("#connection")).to_contain_text("does not answer", timeout=SOON_MS)
        context.set_offline(False)
        idle.submit(label="meanwhile")
        expect(page.locator("#job-1")).to_contain_text("meanwhile", timeout=SOON_MS)
        expect(page.locator("#connection")).to_have_text("")


def test_a_report_is_framed_and_draws(browser: Browser, full: Daemon) -> None:
    with opened(browser) as context:
        watched = entered(context, full.address, f"/runs/{OLDER}")
        page = watched.page
        frame = page.frame_locator("iframe.report")
        page.locator("iframe.report").scroll_into_view_if_needed()
        expect(frame.locator(".js-plotly-plot").first).to_be_attached(timeout=SOON_MS)
        assert watched.complaints == [] and watched.hosts == {urlsplit(full.address).netloc}
