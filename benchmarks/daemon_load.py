"""What a daemon answers while a job measures, and what its answering does to what is measured.

    python benchmarks/daemon_load.py [--rounds 3] [--clients 100] [--streams 20] [--out FILE]

Quiet and loaded rounds take turns, A B A B. In each a daemon of a new home, with a processor of its own
(``--own-cores 1``), tunes some layers of ResNet-20 on one thread. In loaded rounds so many clients ask
for the job and the queue every second meanwhile, and so many follow its events, from a process on the
daemon's processor, so that they take nothing of the job's. Printed are the percentiles of the answers,
and per measured row the loaded median over the quiet one; beside them what two quiet rounds differ by,
which is what a host does by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from autosparse import hardware
from autosparse.database import TuningDatabase
from autosparse.records import Measurement
from autosparse.statistics import median_ci
from autosparse.storage.files import write_json

LAYERS = ("layer2*",)
SETTINGS = {"model": "resnet20", "dtype": "f32", "threads": 1, "include": list(LAYERS)}
LIMIT_S = 900.0
_OPEN = ("submitted", "waiting", "running")


@dataclass(frozen=True)
class Round:
    """What one round gave.

    Attributes:
        rows: key of a measurement to it.
        took_s: how long the job took.
        stolen: share of the host's processors that the machine beneath gave to others meanwhile.
        answers_s: how long answers took; empty in a quiet round.
        events: that were heard by all streams.
        wrong: answers that were no success.
    """

    rows: Mapping[str, Measurement]
    took_s: float
    stolen: float
    answers_s: Sequence[float] = ()
    events: int = 0
    wrong: int = 0


def one_round(asked: argparse.Namespace, *, loaded: bool) -> Round:
    with tempfile.TemporaryDirectory(prefix="daemon-load-") as folder:
        home = Path(folder) / "home"
        environment = {**os.environ, "AUTOSPARSE_HOME": str(home)}
        command = [
            sys.executable,
            "-m",
            "autosparse",
            "serve",
            "--port",
            "0",
            "--own-cores",
            "1",
            "--json",
        ]
        daemon = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            told = read_told(daemon)
            token = Path(told["token_file"]).read_text().strip()
            begun_s, before = time.monotonic(), psutil.cpu_times()
            number = submit(told["url"], token)
            heard: dict[str, Any] = {}
            if loaded:
                heard = load(told["url"], token, number, asked, os.sched_getaffinity(daemon.pid))
            wait(told["url"], token, number)
            took_s, stolen = time.monotonic() - begun_s, stolen_since(before)
        finally:
            daemon.terminate()
            daemon.wait()
        with TuningDatabase(str(home / "tuning.db")) as database:
            rows = {str(row.key): row for row in database.rows() if row.median_us is not None}
    return Round(rows, took_s, stolen, **heard)


def stolen_since(before: Any) -> float:
    spent_s = [now_s - then_s for now_s, then_s in zip(psutil.cpu_times(), before, strict=True)]
    return float(spent_s[before._fields.index("steal")] / sum(spent_s[: before._fields.index("guest")]))


def read_told(daemon: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert daemon.stdout is not None
    lines = list(
        itertools.takewhile(lambda line: line.strip() != b"}", iter(daemon.stdout.readline, b""))
    )
    told: dict[str, Any] = json.loads(b"".join([*lines, b"}"]))
    return told


def client_of(url: str, token: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, trust_env=False)


def submit(url: str, token: str) -> int:
    with client_of(url, token) as client:
        answer = client.post("/api/v1/jobs", json={"verb": "tune", "settings": SETTINGS})
        answer.raise_for_status()
        return int(answer.json()["id"])


def wait(url: str, token: str, number: int) -> None:
    until_s = time.monotonic() + LIMIT_S
    with client_of(url, token) as client:
        while (job := client.get(f"/api/v1/jobs/{number}").json())["state"] in _OPEN:
            if time.monotonic() > until_s:
                raise SystemExit(f"the job did not end: {job}")
            time.sleep(2)
    if job["state"] != "done":
        raise SystemExit(f"the job must be done, but: {job}")


# ------------------------------------------------------------------------------------------- the load


def load(
    url: str, token: str, number: int, asked: argparse.Namespace, cores: set[int]
) -> dict[str, Any]:
    """Has another process ask and listen until the job ends, on the daemon's processors."""
    words = {"url": url, "number": number, "clients": asked.clients, "streams": asked.streams}
    ended = subprocess.run(
        [sys.executable, __file__, "--as-load", json.dumps({**words, "cores": sorted(cores)})],
        env={**os.environ, "DAEMON_TOKEN": token},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


async def be_load(words: Mapping[str, Any]) -> dict[str, Any]:
    os.sched_setaffinity(0, words["cores"])
    headers = {"authorization": f"Bearer {os.environ['DAEMON_TOKEN']}"}
    job = f"{words['url']}/api/v1/jobs/{words['number']}"
    queue = f"{words['url']}/api/v1/jobs?limit=20"
    answers_s: list[float] = []
    counts = {"events": 0, "wrong": 0}
    ended = asyncio.Event()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=60, limits=limits) as client:

        async def poll(which: int) -> None:
            await asyncio.sleep(which / words["clients"])  # spread over the second
            while not ended.is_set():
                begun_s = time.perf_counter()
                answer = await client.get(job if which % 2 else queue)
                answers_s.append(time.perf_counter() - begun_s)
                counts["wrong"] += answer.status_code != 200
                if which % 2 and answer.json()["state"] not in _OPEN:
                    ended.set()
                await asyncio.sleep(max(0.0, 1.0 - (time.perf_counter() - begun_s)))

        async def listen() -> None:
            async with client.stream("GET", f"{job}/events", timeout=None) as stream:
                async for line in stream.aiter_lines():
                    counts["events"] += line.startswith("event:")

        streams = [asyncio.create_task(listen()) for _ in range(words["streams"])]
        await asyncio.gather(*(poll(which) for which in range(words["clients"])))
        await asyncio.wait(streams, timeout=10)
        for stream in streams:
            stream.cancel()
    return {"answers_s": answers_s, **counts}


# ------------------------------------------------------------------------------------------ the ratios


def compared(before: Round, after: Round) -> dict[str, float]:
    """Gives how rows of two rounds differ: ratios of medians, and how many lie within intervals."""
    both = [(before.rows[key], after.rows[key]) for key in before.rows if key in after.rows]
    ratios = [(b.median_us or 1.0) / (a.median_us or 1.0) for a, b in both]
    within = [(a.ci_low_us or 0) <= (b.median_us or 0) <= (a.ci_high_us or 0) for a, b in both]
    overlap = [
        (a.ci_low_us or 0) <= (b.ci_high_us or 0) and (b.ci_low_us or 0) <= (a.ci_high_us or 0)
        for a, b in both
    ]
    median, low, high = median_ci(ratios)
    return {
        "rows": len(both),
        "ratio": median,
        "ratio_low": low,
        "ratio_high": high,
        "within": sum(within) / len(within),
        "overlapping": sum(overlap) / len(overlap),
    }


def told(name: str, found: Mapping[str, float]) -> str:
    return (
        f"{name:16} {found['rows']:4.0f} rows, median ratio {found['ratio']:.4f} "
        f"({found['ratio_low']:.4f} to {found['ratio_high']:.4f}), {100 * found['within']:.0f} % "
        f"within the other's interval, {100 * found['overlapping']:.0f} % of intervals overlap"
    )


def of_round(one: Round) -> dict[str, float]:
    found = {"took_s": one.took_s, "stolen": one.stolen, "rows": len(one.rows)}
    if one.answers_s:
        found["answers"] = len(one.answers_s)
        found["p99_ms"] = 1e3 * percentile(one.answers_s, 0.99)
        found["largest_ms"] = 1e3 * max(one.answers_s)
    return found


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of each kind")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--as-load", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.as_load:
        print(json.dumps(asyncio.run(be_load(json.loads(asked.as_load)))))
        return
    begun_at = datetime.now(UTC).isoformat(timespec="seconds")
    quiet: list[Round] = []
    loaded: list[Round] = []
    for _ in range(asked.rounds):
        quiet.append(one_round(asked, loaded=False))
        loaded.append(one_round(asked, loaded=True))
        took = loaded[-1].answers_s
        print(
            f"round {len(loaded)}: {len(took)} answers, median {1e3 * statistics.median(took):.1f} ms, "
            f"p99 {1e3 * percentile(took, 0.99):.1f} ms, {loaded[-1].wrong} wrong, "
            f"{loaded[-1].events} events; the job took {quiet[-1].took_s:.0f} s quiet and "
            f"{loaded[-1].took_s:.0f} s loaded, with {quiet[-1].stolen:.1%} and "
            f"{loaded[-1].stolen:.1%} of the processors stolen",
            flush=True,
        )
        print(told("loaded / quiet", compared(quiet[-1], loaded[-1])), flush=True)
    took = [each for one in loaded for each in one.answers_s]
    against = [compared(a, b) for a, b in itertools.product(quiet, loaded)]
    by_itself = [compared(a, b) for a, b in itertools.permutations(quiet, 2)]
    for name, pairs in (("loaded / quiet", against), ("quiet / quiet", by_itself)):
        for each in pairs:
            print(told(name, each))
    cpu = hardware.detect().cpu
    print(f"{cpu.model}, {os.cpu_count()} processors; p99 {1e3 * percentile(took, 0.99):.1f} ms")
    if asked.out:
        write_json(
            asked.out,
            {
                "cpu": cpu.model,
                "hardware_id": hardware.hardware_id(),
                "processors": os.cpu_count(),
                "begun_at": begun_at,
                "job": {"verb": "tune", **SETTINGS},
                "clients": asked.clients,
                "streams": asked.streams,
                "answers": len(took),
                "median_ms": 1e3 * statistics.median(took),
                "p99_ms": 1e3 * percentile(took, 0.99),
                "largest_ms": 1e3 * max(took),
                "wrong": sum(one.wrong for one in loaded),
                "quiet_rounds": [of_round(one) for one in quiet],
                "loaded_rounds": [of_round(one) for one in loaded],
                "loaded_over_quiet": against,
                "quiet_over_quiet": by_itself,
            },
        )


if __name__ == "__main__":
    main()
