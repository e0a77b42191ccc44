"""Processes that read and decode images ahead of their use, and come back for the next pass."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from autosparse.errors import DataError
from autosparse.hardware.cores import usable_cores

_MOST_WORKERS = 16  # more than that wait for the one process that takes what they made

Job = TypeVar("Job")
Made = TypeVar("Made")


def default_workers() -> int:
    """Gives one process per usable core; none where processes may not have children of their own."""
    return 0 if multiprocessing.current_process().daemon else min(usable_cores(), _MOST_WORKERS)


class _Jobs(Generic[Job]):
    """What a pass has to do: the loader keeps this object and begins it anew for every pass."""

    def __init__(self) -> None:
        self.pending: Iterator[Job] = iter(())

    def __iter__(self) -> Iterator[Job]:
        return self.pending


class Crew(Generic[Job, Made]):
    """Some processes that do the jobs of one pass after another.

    They are forked, as a fresh interpreter would import torch in each, and run a user's script again
    that does not guard its main part. They end with this object, and within seconds of this process.

    Args:
        work: does a job when it is indexed with it.
        workers: processes, at least one.
        pinned: whether tensors come in pinned memory, for copies to a GPU that nothing waits for.
    """

    def __init__(self, work: Dataset[Made], workers: int, *, pinned: bool) -> None:
        self._jobs: _Jobs[Job] = _Jobs()
        self._loader: DataLoader[Any] | None = DataLoader(
            work,
            batch_size=None,
            sampler=self._jobs,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pinned,
            worker_init_fn=_ignore_interrupts,
            multiprocessing_context="fork",
            persistent_workers=True,
            # Else the loader draws from the generator that a training step draws from.
            generator=torch.Generator(),
        )
        self.pinned = pinned

    @property
    def usable(self) -> bool:
        """Whether all its processes can do another pass."""
        return self._loader is not None

    def work(self, jobs: Iterator[Job]) -> Iterator[Made]:
        """Does jobs, some ahead, and gives what they made in their order.

        Raises:
            DataError: a process died.
        """
        assert self._loader is not None
        self._jobs.pending = jobs
        try:
            with _signals_held():
                made = iter(self._loader)
            yield from made
        except GeneratorExit:  # nobody wants the rest; the next pass drops what is on its way
            raise
        except (RuntimeError, OSError, EOFError) as problem:  # the latter two amid a hand-over
            self.close()
            raise DataError(
                "a process that decodes images must live until its work is done, but: "
                f"{str(problem).strip()}; is memory, or /dev/shm, full? 0 workers need neither"
            ) from problem
        except BaseException:  # it broke off what cannot be taken up again
            self.close()
            raise

    def close(self) -> None:
        """Ends the processes; the loader does so as soon as nothing refers to it."""
        self._loader = None


def _ignore_interrupts(worker: int) -> None:
    """Leaves Ctrl-C, which a terminal sends to all, to the process that the others end with."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_it_is(made: Made) -> Made:
    return made


@contextmanager
def _signals_held() -> Iterator[None]:
    """Keeps signals out of the start of processes, and undoes what a loader makes of one.

    Python drops an exception, such as that of Ctrl-C, that comes up while it forks. And a loader turns
    the signal that a child died into an error amid any code; it notices the death all the same, when
    the next batch does not come.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGCHLD)]
    signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        for number, handler in before:
            # None stands for one that is not Python's, which cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if held:
            signal.raise_signal(signal.SIGINT)
