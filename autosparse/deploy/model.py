"""What every model that can be run and timed has in common, whoever made it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from autosparse.closing import Closing
from autosparse.deploy.manifest import LayerReport
from autosparse.deploy.runner import Runner
from autosparse.errors import UsageError
from autosparse.kernels.binding import MovedLines
from autosparse.measuring.lock import measuring
from autosparse.measuring.states import Prober, watched
from autosparse.measuring.stopwatch import WHOLE
from autosparse.measuring.stopwatch import measure as measure_runner
from autosparse.records import WholeLatency


class RunnableModel(Closing):
    """A model that runs, is timed, and frees its native memory and threads when it is closed.

    Calls and measurements of one model run one after another, from whatever threads they come.

    Args:
        runner: runs it; closed with the model.
        examples: inputs to time with.
        layers: every weight-bearing layer.
        threads: worker threads.
        dtype: arithmetic type.
        batch_size: samples per call.
        names: operator name to layer name.

    Attributes:
        layers: every weight-bearing layer with its kernel and why.
        threads: worker threads.
        dtype: arithmetic type.
        batch_size: samples per call.
    """

    _AGAIN = "make it again"

    def __init__(
        self,
        runner: Runner,
        examples: Sequence[Any],
        layers: tuple[LayerReport, ...],
        *,
        threads: int,
        dtype: str,
        batch_size: int,
        names: Mapping[str, str],
    ) -> None:
        self.layers = layers
        self.threads = threads
        self.dtype = dtype
        self.batch_size = batch_size
        self._runner: Runner | None = runner
        self._engine = runner.engine
        self._examples = tuple(examples)
        self._names = dict(names)
        self._lock = threading.Lock()

    @property
    def engine(self) -> str:
        """What runs it: ``autosparse`` or ``torch``."""
        return self._engine

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights in memory: packed weights and index lists."""
        return self._open().weight_bytes

    @property
    def arena_bytes(self) -> int:
        """Bytes of all activations; 0 through torch."""
        return self._open().arena_bytes

    def _run(self, inputs: Sequence[Any]) -> list[Any]:
        """Runs checked inputs; gives the leaves of the result."""
        with self._lock:
            return self._open().run(inputs)

    # -------------------------------------------------------------------------------- measuring

    def run_times(self, repeats: int) -> NDArray[np.int64]:
        """Runs `repeats` times on random inputs; gives one wall time per run, nanoseconds.

        Raises:
            UsageError: fewer than one repeat, or the model is closed.
        """
        _check_repeats(repeats)
        with self._lock:
            return self._open().time(self._examples, repeats)

    def measure(self, repeats: int | None = None) -> WholeLatency:
        """Measures the latency of one call, Python aside, until its median is known to 1 %.

        Args:
            repeats: exactly this many runs after the warm-up instead; at least 6.

        Raises:
            UsageError: too few repeats, or the model is closed.
        """
        policy = WHOLE
        if repeats is not None:
            policy = dataclasses.replace(WHOLE, min_repeats=repeats, max_repeats=repeats)
        return measure_runner(self.run_times, policy, prober=self._prober()).whole_latency(
            threads=self.threads, batch_size=self.batch_size, dtype=self.dtype, engine=self._engine
        )

    def _prober(self) -> Prober | None:
        """Gives what tells the state of a host of which nothing is known yet."""
        return watched(self.threads)

    def measure_operators(self, repeats: int = 50) -> dict[str, float]:
        """Gives the median time of every operator within whole runs, microseconds.

        Layers go by their name, other operators by the name torch gave them, and copying inputs and
        outputs by `runner.BORDERS`. Empty through torch.
        """
        return {name: float(np.median(ns)) / 1e3 for name, ns in self.operator_times(repeats).items()}

    def operator_times(self, repeats: int = 50) -> dict[str, NDArray[np.int64]]:
        """Gives the wall times of every operator within whole runs, nanoseconds, named as above."""
        _check_repeats(repeats)
        with measuring("operators of a model"), self._lock:
            runner = self._open()
            runner.time(self._examples, max(2, repeats // 10))
            taken = runner.time_operators(self._examples, repeats)
        return {self._names.get(name, name): ns for name, ns in taken.items()}

    def measure_layers(self, repeats: int = 50) -> dict[str, float]:
        """Gives the median time of every weight-bearing layer within whole runs, microseconds."""
        known = {layer.name for layer in self.layers}
        return {name: us for name, us in self.measure_operators(repeats).items() if name in known}

    def moved_lines(self) -> dict[str, MovedLines]:
        """Counts per operator the cache lines that move between processors in one of many calls.

        Computed from what operators read and write, not measured. Named as in `measure_operators`;
        all 0 on one thread, empty through torch.
        """
        with self._lock:
            moved = self._open().moved_lines()
        return {self._names.get(name, name): lines for name, lines in moved.items()}

    # -------------------------------------------------------------------------------- life cycle

    def _open(self) -> Runner:
        if self._runner is None:
            raise UsageError(f"this model is closed; {self._AGAIN}")
        return self._runner

    def close(self) -> None:
        """Frees memory and threads; further calls raise. Closing twice does nothing."""
        with self._lock:
            if self._runner is not None:
                self._runner.close()
            self._runner = None

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} holds native memory and threads and cannot be pickled or copied; "
            f"{self._AGAIN} where it is needed"
        )


def _check_repeats(repeats: int) -> None:
    if repeats < 1:
        raise UsageError(f"repeats must be at least 1, but got {repeats}")
