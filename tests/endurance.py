"""What takes too long for every day: `python -m tests.endurance kills --count 30`, `... together`
and `... daemon --count 30`.

kills     a search is killed (SIGKILL) at random moments and continued, as often as asked for. Every one
          that ends has to end as one that nobody disturbed.
together  two searches at once, of homes of their own, have to end as one alone.
daemon    20 jobs in a queue, in SQLite and PostgreSQL, worked on by one daemon and by two; daemons and
          processes of jobs are killed (SIGKILL) at random moments, as often as asked for of each. Every
          job has to end once, in one run, worked on by one process at a time.

To end alike is: the same exit code, the same verdict, and fronts from the same fastest to the same
slowest configuration, within intervals and a tolerance. Configurations are held against the dense
model that ran in turn with them: how much the host did in those minutes is nothing a search decides.
Ends with 1 if anything differed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "daemon"))
import postgres
from killing import survive

from tests.pipeline.conftest import DATA, MODEL, SPACE

LIMIT_S = 1200.0
# Two searches may differ by their intervals and by this much: by the layout in memory.
TOLERANCE = 0.10


@dataclass(frozen=True)
class Place:
    """A folder to search in, and the home of its caches."""

    folder: Path
    home: Path

    @classmethod
    def made(cls, parent: Path, name: str, home: Path | None = None) -> Place:
        folder = parent / name
        folder.mkdir(parents=True)
        (folder / "net.py").write_text(MODEL)
        (folder / "my_data.py").write_text(DATA)
        (folder / "space.yaml").write_text(SPACE)
        return cls(folder, home or folder / "home")

    def start(self, *extra: str) -> subprocess.Popen[str]:
        words = [
            "search", "--model", "net.py:build", "--data", "my_data.py:load", "--data-resolution", "12",
            "--input-shape", "3x96x96", "--space", "space.yaml", "--top-k", "2", "--out", "results",
            "--dtype", "f32", "-q", "--json", *extra,
        ]  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-m", "autosparse", *words],
            env={**os.environ, "AUTOSPARSE_HOME": str(self.home)},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@dataclass(frozen=True)
class Ending:
    """How a search ended.

    Attributes:
        code: exit code.
        document: pareto.json, empty unless it is 0.
        words: what it complained of.
    """

    code: int
    document: Mapping[str, Any]
    words: str

    def __str__(self) -> str:
        if not self.document:
            return f"exit code {self.code}: {self.words[-300:]}"
        dense = self.document["dense"]["latency"]["median_ms"]
        points = (
            f"{config['measured_latency_ms']:.4f} ms {config['accuracy']:.3f}"
            for config in self.document["configs"]
        )
        return f"dense {dense:.4f} ms; {', '.join(points)}"


def ended(process: subprocess.Popen[str]) -> Ending:
    """Waits for a search."""
    said, words = process.communicate(timeout=LIMIT_S)
    return Ending(process.returncode, json.loads(said) if process.returncode == 0 else {}, words)


def differences(found: Ending, wanted: Ending) -> list[str]:
    """Says in what a search ended otherwise than another; nothing where they agree."""
    if found.code != wanted.code:
        return [f"exit code {found.code} instead of {wanted.code}: {found.words[-300:]}"]
    problems = []
    for what, pick in _FIGURES.items():
        (low, high), (least, most) = pick(found.document), pick(wanted.document)
        if low > most * (1 + TOLERANCE) or high < least * (1 - TOLERANCE):
            problems.append(f"{what}: {low:.4f} to {high:.4f} instead of {least:.4f} to {most:.4f}")
    verdicts = [each.document["verdict"]["id"] is not None for each in (found, wanted)]
    if verdicts[0] != verdicts[1]:
        problems.append(f"verdict: a configuration fits is {verdicts[0]} instead of {verdicts[1]}")
    return problems


def _speedup(document: Mapping[str, Any], end: Any) -> tuple[float, float]:
    config = end(document["configs"], key=lambda each: each["speedup"])
    low_ms, high_ms = config["latency_ci_ms"]
    dense_ms = config["speedup"] * config["measured_latency_ms"]
    return dense_ms / high_ms, dense_ms / low_ms


_FIGURES: Mapping[str, Any] = {
    "fastest configuration over dense": lambda document: _speedup(document, max),
    "slowest configuration over dense": lambda document: _speedup(document, min),
}


def kills(parent: Path, count: int, seed: int) -> int:
    """Kills searches at random moments; gives how many ended otherwise than an undisturbed one."""
    chance = random.Random(seed)
    place = Place.made(parent, "kills")
    begun = time.monotonic()
    wanted = ended(place.start())
    whole_s = time.monotonic() - begun
    print(f"undisturbed, {whole_s:.0f} s: {wanted}", flush=True)
    wrong = killed = searches = 0
    fresh = Place.made(parent, "resumed")  # a home of its own: kills hit every stage, tuning included
    while killed < count:
        searches += 1
        while True:
            process = fresh.start()
            moment_s = chance.uniform(0, whole_s)
            try:
                process.wait(timeout=moment_s)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                killed += 1
                print(f"kill {killed} after {moment_s:.1f} s", flush=True)
                if killed >= count:
                    process = fresh.start()
                    break
        found = ended(process)
        problems = differences(found, wanted)
        wrong += bool(problems)
        print(f"search {searches}: {'; '.join(problems) or 'as undisturbed'}: {found}", flush=True)
        fresh = Place.made(parent, f"resumed-{searches}")
    print(f"{killed} kills, {searches} searches, {wrong} ended otherwise")
    return wrong


def together(parent: Path) -> int:
    """Runs two searches at once; gives how many ended otherwise than one alone."""
    wanted = ended(Place.made(parent, "alone").start())
    print(f"alone: {wanted}", flush=True)
    running = [Place.made(parent, name).start() for name in ("first", "second")]
    wrong = 0
    for name, found in zip(("first", "second"), [ended(each) for each in running], strict=True):
        problems = differences(found, wanted)
        wrong += bool(problems)
        print(f"{name} of two: {'; '.join(problems) or 'as alone'}: {found}", flush=True)
    return wrong


def daemon(parent: Path, count: int, seed: int) -> int:
    """Kills daemons and processes of jobs; gives how many of the four arrangements did not hold."""
    wrong = 0
    with contextlib.ExitStack() as stack:
        why = postgres.why_none()
        server = "" if why else stack.enter_context(postgres.server())
        for kind, daemons in itertools.product(("sqlite", "postgresql"), (1, 2)):
            if kind == "postgresql" and why:
                print(f"{kind}: skipped: {why}", flush=True)
                continue
            folder = parent / f"{kind}-{daemons}"
            folder.mkdir()
            own = f"sqlite:///{folder / 'jobs.db'}"
            url = own if kind == "sqlite" else postgres.new_database(server)
            begun_s = time.monotonic()
            try:
                told: object = survive(
                    url, folder, jobs=20, kills=count, daemons=daemons, seed=seed, limit_s=LIMIT_S
                )
            except AssertionError as error:
                wrong += 1
                told = f"DOES NOT HOLD: {error}"
            took_s = time.monotonic() - begun_s
            print(f"{kind}, {daemons} daemons: {told} killed, {took_s:.0f} s", flush=True)
    return wrong


def main(words: Sequence[str] | None = None) -> int:
    """Runs what was asked for; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    killing = verbs.add_parser("kills")
    killing.add_argument("--count", type=int, default=30)
    killing.add_argument("--seed", type=int, default=0)
    verbs.add_parser("together")
    serving = verbs.add_parser("daemon")
    serving.add_argument("--count", type=int, default=30)
    serving.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="endurance-") as folder:
        if asked.verb == "kills":
            return int(kills(Path(folder), asked.count, asked.seed) > 0)
        if asked.verb == "daemon":
            return int(daemon(Path(folder), asked.count, asked.seed) > 0)
        return int(together(Path(folder)) > 0)


if __name__ == "__main__":
    sys.exit(main())
