"""The page in a real browser: it draws, reacts, fits narrow screens, and never asks the network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autosparse.report import build
from autosparse.report.canvas import BLUE, DARK
from autosparse.report.document import Document, load

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


class Browser:
    """A headless browser with one tab, spoken to over a pipe."""

    def __init__(self, profile: Path) -> None:
        to_child, self._out = os.pipe()
        self._in, from_child = os.pipe()
        # The browser reads commands from descriptor 3 and writes to 4.
        script = f'exec 3<&{to_child} 4>&{from_child}; exec "$@"'
        chromium = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *chromium],
            pass_fds=(to_child, from_child),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._in, 1 << 16)
            assert chunk, "the browser went away"
            self._buffer += chunk
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, path: Path, *, width: int, dark: bool = False) -> None:
        self.events.clear()
        self.resize(width)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()

    def resize(self, width: int) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)

    def value(self, expression: str) -> Any:
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def complaints(self) -> list[dict[str, Any]]:
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [event for event in self.events if event["method"] in kinds]

    def requests(self) -> list[str]:
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    tab = Browser(tmp_path_factory.mktemp("profile"))
    yield tab
    tab.close()


POINTS = "document.querySelectorAll('#figure-trials .scatterlayer .points path').length"
TRIALS_LEGEND = (
    "[...document.querySelectorAll('.legend button')].find(b => /trial/.test(b.textContent)).click()"
)


def test_it_draws_without_errors_and_without_the_network(
    browser: Browser, make_run: Callable[..., Path]
) -> None:
    run = make_run()
    browser.open(build(run), width=1400)
    assert browser.value(POINTS) >= 57  # trials that completed
    configs = POINTS.replace("trials", "pareto")
    assert browser.value(configs) >= len(load(run).configs)
    assert browser.value("document.querySelectorAll('.js-plotly-plot').length") == 4
    assert browser.complaints() == []
    assert all(url.startswith(("file://", "data:")) for url in browser.requests())
    assert browser.value(
        "[...document.querySelectorAll('[data-title]')].map(b => b.dataset.title)"
    ) == [*("Download plot", "Zoom", "Pan", "Reset axes") * 4]


@pytest.mark.parametrize("options", [{"configs": 24}, {"configs": 0, "trials": 0, "budget_ms": 3.0}])
def test_no_sideways_scrolling(
    browser: Browser, make_run: Callable[..., Path], options: dict[str, Any]
) -> None:
    browser.open(build(make_run(**options)), width=320)
    for width in (320, 390, 768, 1400, 390):
        browser.resize(width)
        browser.value("new Promise(done => setTimeout(done, 250))")  # figures follow with a delay
        assert browser.value("innerWidth") == width
        outside = f"""[...document.querySelectorAll('main *, header *')].filter(e =>
            e.offsetParent && !e.closest('.scroll, pre, svg, nav')
            && e.getBoundingClientRect().right > {width} + 1
        ).map(e => e.outerHTML.slice(0, 90))"""
        assert browser.value(outside) == []
        assert browser.value("document.documentElement.scrollWidth") <= width


def test_colours_follow_the_system(browser: Browser, make_run: Callable[..., Path]) -> None:
    page = build(make_run())
    fill = (
        "[...new Set([...document.querySelectorAll('#figure-calibration .points path')]"
        ".map(p => getComputedStyle(p).fill))][0]"
    )
    for dark, color in ((False, BLUE), (True, DARK[BLUE])):
        browser.open(page, width=1000, dark=dark)
        rgb = ", ".join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))
        assert browser.value(fill) == f"rgb({rgb})"
    body = browser.value("getComputedStyle(document.body).backgroundColor")
    assert body == "rgb(15, 19, 24)"


def test_the_page_reacts(browser: Browser, make_run: Callable[..., Path]) -> None:
    run = make_run()
    browser.open(build(run), width=1200)
    _legend_and_view(browser)
    _sorting(browser)
    _choosing(browser, load(run))
    assert browser.complaints() == []


def _legend_and_view(browser: Browser) -> None:
    before = browser.value(POINTS)
    browser.value(TRIALS_LEGEND)
    assert browser.value(POINTS) <= before - 57
    figure = "document.getElementById('figure-trials')"
    span = f"(([low, high]) => high - low)({figure}._fullLayout.yaxis.range)"
    narrow = browser.value(span)
    browser.value("document.querySelector('[data-figure=trials][data-view=all]').click()")
    browser.value(TRIALS_LEGEND)
    assert browser.value(span) > narrow


def _sorting(browser: Browser) -> None:
    column = "[...document.querySelectorAll('.sortable tbody tr')].map(r => +r.cells[4].dataset.value)"
    click = "document.querySelectorAll('.sortable th button')[4].click()"
    browser.value(click)
    assert browser.value(column) == sorted(browser.value(column))
    browser.value(click)
    assert browser.value(column) == sorted(browser.value(column), reverse=True)


def _choosing(browser: Browser, document: Document) -> None:
    shown = "[...document.querySelectorAll('[data-layers]:not([hidden])')].map(b => b.dataset.layers)"
    assert browser.value(shown) == [document.verdict.id]
    other = document.configs[0].id
    browser.value(f"document.querySelector('.sortable [data-pick=\"{other}\"]').click()")
    assert browser.value(shown) == [other]
    assert browser.value("document.getElementById('pick-config').value") == other


def test_hostile_names_run_nothing(browser: Browser, make_run: Callable[..., Path]) -> None:
    evil = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>"

    def poison(d: dict[str, Any]) -> None:
        d.update(model=evil, dtypes=[evil])
        d["configs"][0]["id"] = evil
        d["baselines"][0]["name"] = evil
        d["dense"]["peers"] = {evil: d["dense"]["peers"]["torch"]}

    browser.open(build(make_run(edit=poison)), width=1000)
    points = "[...Array(7).keys()].map(i => ({curveNumber: i, pointNumber: 0}))"
    browser.value(f"Plotly.Fx.hover('figure-pareto', {points})")
    assert browser.value("window.pwned === undefined && document.images.length === 0")
    assert browser.complaints() == []
