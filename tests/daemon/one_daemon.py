"""A daemon's working part in a process of its own, whose jobs are of `worker.py`."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path

from autosparse.daemon.supervisor import Supervisor
from autosparse.jobs import daemons
from autosparse.jobs.queue import Queue
from autosparse.jobs.roots import Roots
from autosparse.jobs.store import Store
from autosparse.jobs.verbs import Place
from autosparse.schedules.store import Schedules

WORKER = Path(__file__).parent / "worker.py"


def main(url: str, results: Path, slots: int, lease_s: float) -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    place = Place(results=results, database=url, roots=Roots(folders={"results": results}))
    stop = threading.Event()
    with Store(url) as store:
        queue = Queue(store, lease_s=lease_s)
        supervisor = Supervisor(
            queue,
            daemons.this_daemon("hw"),
            place,
            slots=slots,
            program=(sys.executable, str(WORKER)),
            retry_s=0.05,
            tick_s=0.1,
        )
        supervisor.beside(Schedules(queue).make_due_jobs)
        signal.signal(signal.SIGTERM, lambda *_: (stop.set(), supervisor.wake()))
        with supervisor:
            supervisor.run(stop)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
