"""What this host was seen like, kept per number of threads in the home folder."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

from autosparse import hardware
from autosparse.errors import RunError, UsageError
from autosparse.measuring.pace import Pace
from autosparse.measuring.states import History, Prober, watched
from autosparse.records import CpuProfile
from autosparse.storage import paths
from autosparse.storage.files import read_json, write_json

log = logging.getLogger(__name__)


def history_file(hardware_id: str) -> Path:
    """Gives the file that keeps what one host was seen like."""
    return paths.home_folder() / "states" / f"{hardware_id}.json"


def load_histories(hardware_id: str) -> dict[int, History]:
    """Reads threads to history of one host; nothing where there is none yet, or it is damaged."""
    try:
        found: Mapping[str, object] = read_json(history_file(hardware_id))
        return {int(threads): History.from_json(each) for threads, each in found.items()}  # type: ignore[arg-type]
    except (RunError, TypeError, ValueError, AttributeError, UsageError):
        return {}


def save_history(hardware_id: str, threads: int, history: History) -> None:
    """Keeps the history of one number of threads; does nothing where the home cannot be written."""
    known = load_histories(hardware_id) | {threads: history}
    file = history_file(hardware_id)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {str(count): each.to_json() for count, each in sorted(known.items())})
    except (RunError, OSError) as error:
        log.info("the states of this host are not kept: %s", error)


def prober_for(threads: int) -> Prober | None:
    """Gives what tells this host's state, of which its history is known; as `states.watched`."""
    if not 1 <= threads <= hardware.usable_cores():
        return None
    known = load_histories(hardware.hardware_id())
    history = known.get(threads, History())
    return watched(threads, dataclasses.replace(history, limit=_limit(threads, known)))


def _limit(threads: int, known: Mapping[int, History]) -> Pace:
    """Gives what each of so many threads can do, whatever was seen of late.

    The processors of a virtual machine are all alike, and who shares them may stay for longer than a
    history reaches back. So what fewer of them could do once all can do, but for their clock, which may
    fall when more of them work; and what as many could do once they still can. Other machines may have
    cores of several kinds, and grow slower by themselves, as they get warm: what they do counts.
    """
    cpu = hardware.detect().cpu
    limit = Pace(gflops=_gflops(cpu, threads), gbytes_per_s=0.0)
    if not cpu.is_virtual:
        return limit
    for fewer, history in known.items():
        full = history.marks.full
        if fewer > threads or full is None:
            continue
        before = _gflops(cpu, fewer)
        clock = min(1.0, limit.gflops / before) if before else 1.0
        limit = limit.best(
            Pace(
                gflops=0.0,
                gbytes_per_s=full.gbytes_per_s if fewer == threads else 0.0,
                gintegers_per_s=clock * full.gintegers_per_s,
            )
        )
    return limit


def _gflops(cpu: CpuProfile, threads: int) -> float:
    """Gives what this host was measured to do on each of so many threads; 0 where it never was."""
    if cpu.f32_gflops_core is None or cpu.f32_gflops_all is None:
        return 0.0
    if threads == 1 or cpu.cores_usable == 1:
        return cpu.f32_gflops_core
    # Several cores may clock lower than one: between the two figures by their number.
    more = (cpu.f32_gflops_all - cpu.f32_gflops_core) / (cpu.cores_usable - 1)
    return (cpu.f32_gflops_core + more * (threads - 1)) / threads


def keep(prober: Prober | None) -> None:
    """Adds what a prober has seen to the host's history."""
    if prober is not None:
        prober.learn()
        save_history(hardware.hardware_id(), prober.threads, prober.history)
