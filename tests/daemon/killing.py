"""Jobs, daemons that are killed again and again, and what must hold at the end all the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from worker import LOG, STEPS

from autosparse.jobs.queue import Queue
from autosparse.jobs.records import JobOptions, JobRequest
from autosparse.jobs.states import State
from autosparse.jobs.store import Store
from autosparse.run_folders import list_runs, read_jsonl
from autosparse.run_folders.state import read_state

DAEMON = Path(__file__).parent / "one_daemon.py"
LEASE_S = 3.0


@dataclass
class Shop:
    """A database, a folder of results, and daemons that work on them.

    Attributes:
        url: of the database.
        results: the folder.
        daemons: processes that are up.
        killed: how many of each were killed.
    """

    url: str
    results: Path
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)

    def start_daemon(self, slots: int = 3) -> None:
        log = (self.results / "daemon.log").open("ab")
        command = [sys.executable, str(DAEMON), self.url, str(self.results), str(slots), str(LEASE_S)]
        self.daemons.append(subprocess.Popen(command, stderr=log))
        log.close()

    def kill_daemon(self, chance: random.Random) -> None:
        """Kills one, and starts another in its place."""
        victim = chance.choice(self.daemons)
        victim.kill()
        victim.wait()
        self.daemons.remove(victim)
        self.killed["daemon"] += 1
        self.start_daemon()

    def kill_job(self, chance: random.Random) -> None:
        """Kills the process of a job that runs, if one does."""
        jobs = [child for each in self.daemons for child in _children(each.pid)]
        if jobs:
            with suppress(psutil.NoSuchProcess):
                chance.choice(jobs).kill()
                self.killed["job"] += 1

    def left(self, kills: int) -> bool:
        """Whether fewer of one kind were killed."""
        return min(self.killed["daemon"], self.killed["job"]) < kills

    def end(self) -> None:
        for each in self.daemons:
            each.send_signal(signal.SIGTERM)
        for each in self.daemons:
            with suppress(subprocess.TimeoutExpired):
                each.wait(20)
            each.kill()
            each.wait()


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


def request(number: int, include: Sequence[str] = ()) -> JobRequest:
    settings = {"model": "resnet20", "seed": number, "include": list(include)}
    return JobRequest(verb="search", settings=settings, options=JobOptions(retries=100))


def survive(
    url: str, results: Path, *, jobs: int, kills: int, daemons: int, seed: int, limit_s: float
) -> Counter[str]:
    """Has jobs done while daemons and jobs' processes are killed, each so many times.

    Returns:
        How many of each were killed.
    """
    chance = random.Random(seed)
    shop = Shop(url=url, results=results)
    with Store(url) as store:
        queue = Queue(store)
        numbers = [queue.submit(request(n))[0].id for n in range(jobs)]
        try:
            for _ in range(daemons):
                shop.start_daemon()
            until_s = time.monotonic() + limit_s
            while _is_open(queue) or shop.left(kills):
                assert time.monotonic() < until_s, f"stuck: {queue.depths()}, {shop.killed}"
                time.sleep(chance.uniform(0.05, 0.6))
                if shop.killed["daemon"] < kills and chance.random() < 0.4:
                    shop.kill_daemon(chance)
                if shop.killed["job"] < kills:
                    shop.kill_job(chance)
                if shop.left(kills) and not _is_open(queue):  # so there is more to be killed
                    numbers.append(queue.submit(request(len(numbers)))[0].id)
        finally:
            shop.end()
        check(queue, results, numbers)
    return shop.killed


def _is_open(queue: Queue) -> bool:
    depths = queue.depths()
    return any(depths[state] for state in (State.SUBMITTED, State.WAITING, State.RUNNING))


def check(queue: Queue, results: Path, numbers: Sequence[int]) -> None:
    """Holds that every job was done, once, by one process at a time, and nothing was left behind."""
    runs = Counter(read_state(run.path).job for run in list_runs(results))
    for number in numbers:
        job = queue.get(number)
        assert job.state == State.DONE, f"{job}\n{queue.transitions(number)}"
        ends = [row for row in queue.transitions(number) if row.after == State.DONE]
        assert len(ends) == 1, f"job {number} came to an end {len(ends)} times"
        assert runs[str(number)] == 1, f"job {number} made {runs[str(number)]} runs"
        rows = read_jsonl(results / job.run / LOG)
        assert [row["step"] for row in rows] == list(range(STEPS)), f"job {number}: {rows}"
    assert not _left(results), f"processes are left behind: {_left(results)}"


def _left(results: Path) -> list[str]:
    """Gives the processes that still work on these results."""
    time.sleep(0.2)
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if str(results) in command and process.info["pid"] != os.getpid():
            found.append(command)
    return found
