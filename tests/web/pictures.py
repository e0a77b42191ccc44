"""Takes the pictures of the page that the README shows, over a daemon with real jobs.

    python -m tests.web.pictures [FOLDER]

It takes some ten minutes, most of them for the first search, and needs Chromium and Playwright.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
WIDTH, HEIGHT = 1240, 900
LIMIT_S = 2400.0
SEARCH = {"model": "resnet20", "dtype": "f32", "train": "none", "top_k": 3}
FINISHED = {**SEARCH, "latency_budget": "200us", "trials": 40}
RUNNING = {**SEARCH, "latency_budget": "200us", "trials": 300, "seed": 1}
# How far the study shall be when the picture is taken.
PART = 0.4


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place, _daemon(Path(place)) as (url, token):
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=f"{url}/api/v1", headers=headers, trust_env=False) as api:
            first = _submit(api, FINISHED, label="first front")
            _submit(api, {**SEARCH, "latency_budget": "1us"}, label="too fast to be true")
            _until(lambda: _job(api, first)["state"] == "done")
            running = _submit(api, RUNNING, label="300 configurations")
            _submit(api, {**SEARCH, "model": "mobilenet_v1"}, label="tonight", priority=-5)
            _submit(api, {**SEARCH, "model": "resnet32", "latency_budget": "300us"})
            weekly = {"cron": "0 3 * * sun", "timezone": "Europe/Berlin", "name": "weekly"}
            api.post("/schedules", json={"verb": "search", "settings": SEARCH, **weekly})
            _until(lambda: _is_far(_job(api, running)))
            _take(url, token, {"page-queue": "/", "page-job": f"/jobs/{running}"}, folder)


@contextmanager
def _daemon(place: Path) -> Iterator[tuple[str, str]]:
    words = [sys.executable, "-m", "autosparse", "serve", "--port", "0", "--jobs", "1", "--json"]
    words += ["--results", str(place / "results"), "--database", f"sqlite:///{place / 'jobs.db'}"]
    environment = {**os.environ, "AUTOSPARSE_HOME": str(place / "home")}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        said = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        yield said["url"], Path(said["token_file"]).read_text().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _submit(api: httpx.Client, settings: dict[str, Any], **options: Any) -> int:
    answer = api.post("/jobs", json={"verb": "search", "settings": settings, **options})
    answer.raise_for_status()
    return int(answer.json()["id"])


def _job(api: httpx.Client, number: int) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/jobs/{number}").json()
    assert found["state"] in ("submitted", "waiting", "running", "done"), found["message"]
    return found


def _is_far(job: dict[str, Any]) -> bool:
    progress = job["progress"] or {"step": "", "done": 0, "total": 1}
    return progress["step"] == "search" and progress["done"] >= PART * progress["total"]


def _until(holds: Any) -> None:
    until_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < until_s, "it did not come true in time"
        time.sleep(0.5)


def _take(url: str, token: str, pages: dict[str, str], folder: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        size = {"width": WIDTH, "height": HEIGHT}
        context = browser.new_context(viewport=size, timezone_id="Europe/Berlin", locale="en-GB")  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(url)
        page.fill("#token", token)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{url}/")
        for name, path in pages.items():
            page.goto(url + path)
            page.wait_for_timeout(500)
            page.screenshot(path=folder / f"{name}.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs")
