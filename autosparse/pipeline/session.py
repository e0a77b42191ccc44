"""One measuring session: whole models, compiled and run in turn in a process of their own.

What is compared is measured in one session, A B A B, so that a machine that drifts drifts for all. The
process is a fresh one on this machine at normal priority, as a deployed model's would be: workers of a
pool may sit on another host, and run at a low priority at which any other process starves them.

    python -m autosparse.pipeline.session REQUEST.json RESULT.json DESCRIPTOR

It tells how far it is by one JSON object per line, written to an open file descriptor of its own:
standard output may be written to by a user's model.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from autosparse import models
from autosparse.engine import CompiledModel, compile
from autosparse.errors import AutosparseError
from autosparse.files import read_json, write_json
from autosparse.patterns import sparsify
from autosparse.plan import Plan
from autosparse.progress import Progress, ProgressEvent
from autosparse.records import Record, WholeLatency
from autosparse.tuning.stopwatch import MeasurementPolicy, Timing, interleave, python_runner

Runner = Callable[[int], NDArray[np.int64]]

_SESSION_US = 20e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant(Record):
    """One model in a session.

    Attributes:
        name: label of its figure.
        weights: file of a state dict; None draws random weights, which is enough for a latency.
        plan: what to prune before compiling, and which kernels to use; None leaves all dense.
        pruned: whether the weights hold the plan's zeros already.
        engine: ``autosparse`` compiles it, ``torch`` runs it eagerly, the better of two layouts.
        dtype: arithmetic type; that of the plan, if there is one.
    """

    name: str
    weights: str | None = None
    plan: Plan | None = None
    pruned: bool = False
    engine: Literal["autosparse", "torch"] = "autosparse"
    dtype: str = "f32"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest(Record):
    """What to measure, and how; `compact_weights` as in `autosparse.compile`."""

    model: str
    classes: int
    input_shape: tuple[int, ...]
    batch_size: int
    threads: int
    contestants: tuple[Contestant, ...]
    policy: MeasurementPolicy
    database: str | None = None
    seed: int = 0
    compact_weights: bool = False

    def with_contestants(self, contestants: tuple[Contestant, ...]) -> SessionRequest:
        """Gives this request for other contestants, who share the time that a session may take."""
        share_us = min(self.policy.time_cap_us, _SESSION_US / len(contestants))
        policy = dataclasses.replace(self.policy, time_cap_us=share_us)
        return dataclasses.replace(self, contestants=contestants, policy=policy)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime(Record):
    """How one layer ran inside the whole model."""

    name: str
    label: str
    kernel: str
    sparsity: float
    median_us: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestantResult(Record):
    """Figures of one contestant: the whole, and its layers where autosparse ran it.

    Attributes:
        name: the contestant.
        latency: the whole model.
        layers: weight-bearing layers inside it.
        other_us: operators without weights: pooling, additions, copies at the borders.
        weight_bytes: packed weights and index lists.
    """

    name: str
    latency: WholeLatency
    layers: tuple[LayerTime, ...] = ()
    other_us: float = 0.0
    weight_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionResult(Record):
    """What a session gives back, in the order of its contestants."""

    results: tuple[ContestantResult, ...]

    def of(self, name: str) -> ContestantResult:
        """Gives the figures of one contestant."""
        return next(result for result in self.results if result.name == name)


def run_apart(request: SessionRequest, progress: Progress) -> SessionResult:
    """Runs a session in a process of its own. The caller sees to it that nothing else runs meanwhile.

    A session is short and its figures belong together, so a stop is heeded only after it.

    Args:
        request: what to measure.
        progress: told what the process tells.

    Raises:
        AutosparseError: the process failed; names the last line it said.
    """
    with tempfile.TemporaryDirectory(prefix="autosparse-session-") as folder:
        asked, answer, words = (
            Path(folder) / name for name in ("request.json", "result.json", "words")
        )
        write_json(asked, request.to_json())
        call = [sys.executable, "-m", "autosparse.pipeline.session", str(asked), str(answer)]
        code = _follow(call, words, progress)
        if code != 0 or not answer.exists():
            said = words.read_text(errors="replace").strip().splitlines() or [f"exit code {code}"]
            raise AutosparseError(
                f"whole models must be measurable, but the session ended with: {said[-1]}"
            )
        return SessionResult.from_json(read_json(answer))


def _follow(call: Sequence[str], words: Path, progress: Progress) -> int:
    """Runs a session's process and passes on its events; gives its exit code."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as events, words.open("w") as said, ExitStack() as starting:
        starting.enter_context(progress.step("start a measuring session"))
        process = subprocess.Popen(
            [*call, str(writing)],
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
            pass_fds=[writing],
        )
        os.close(writing)
        try:
            for line in events:
                starting.close()
                event = ProgressEvent(**json.loads(line))
                progress.emit(event.kind, event.step, event.done, event.total, event.message)
        except BaseException:  # nobody will read the figures: do not let it measure on
            process.kill()
            raise
        finally:
            code = process.wait()
    return code


def run_session(request: SessionRequest, progress: Progress) -> SessionResult:
    """Compiles every contestant, runs them in turn, and times their layers, in this process."""
    torch.set_num_threads(request.threads)
    generator = torch.Generator().manual_seed(request.seed)
    sample = torch.randn(request.batch_size, *request.input_shape, generator=generator)
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        compiled: dict[str, CompiledModel] = {}
        with progress.step("compile whole models", len(request.contestants)) as step:
            for contestant in request.contestants:
                module = _module(request, contestant)
                if contestant.engine == "torch":
                    runners[contestant.name] = _torch_runner(module, sample)
                else:
                    program = stack.enter_context(_compiled(request, contestant, module, sample))
                    compiled[contestant.name] = program
                    runners[contestant.name] = program.run_times
                step.advance(1, contestant.name)
        timings = interleave(runners, request.policy, progress)
        results = []
        with progress.step("time layers within whole models", len(request.contestants)) as step:
            for contestant in request.contestants:
                name = contestant.name
                results.append(_result(request, contestant, timings[name], compiled.get(name)))
                step.advance(1, name)
    return SessionResult(results=tuple(results))


def _module(request: SessionRequest, contestant: Contestant) -> torch.nn.Module:
    weights = None if contestant.weights is None else Path(contestant.weights)
    loaded = models.resolve(request.model, classes=request.classes, weights=weights, seed=request.seed)
    if contestant.plan is not None and not contestant.pruned:
        sparsify(loaded.module, contestant.plan)
    return loaded.module


@contextmanager
def _compiled(
    request: SessionRequest,
    contestant: Contestant,
    module: torch.nn.Module,
    sample: torch.Tensor,
) -> Iterator[CompiledModel]:
    program = compile(
        module,
        (sample,),
        dtype=contestant.dtype,
        threads=request.threads,
        plan=contestant.plan,
        database=request.database,
        compact_weights=request.compact_weights,
    )
    try:
        yield program
    finally:
        program.close()


def _result(
    request: SessionRequest,
    contestant: Contestant,
    timing: Timing,
    program: CompiledModel | None,
) -> ContestantResult:
    latency = timing.whole_latency(
        threads=request.threads,
        batch_size=request.batch_size,
        dtype=contestant.dtype,
        engine=contestant.engine,
    )
    if program is None:
        return ContestantResult(name=contestant.name, latency=latency)
    times = program.measure_operators()
    layers = tuple(
        LayerTime(
            name=layer.name,
            label="dense" if layer.sparsity == 0 else f"{layer.pattern}@{layer.sparsity:g}",
            kernel=layer.kernel,
            sparsity=layer.sparsity,
            median_us=times.get(layer.name, 0.0),
            why=layer.why,
        )
        for layer in program.layers
    )
    return ContestantResult(
        name=contestant.name,
        latency=latency,
        layers=layers,
        other_us=sum(us for name, us in times.items() if name not in {x.name for x in layers}),
        weight_bytes=program.weight_bytes,
    )


def _torch_runner(module: torch.nn.Module, sample: torch.Tensor) -> Runner:
    """Gives torch's eager mode in the layout that is faster here, channels last or contiguous."""

    def runner(form: torch.memory_format) -> Runner:
        moved = copy.deepcopy(module).to(memory_format=form)  # type: ignore[call-overload]
        inputs = sample.to(memory_format=form)

        def call() -> torch.Tensor:
            with torch.inference_mode():
                return moved(inputs)  # type: ignore[no-any-return]

        return python_runner(call)

    forms = [runner(torch.channels_last), runner(torch.contiguous_format)]
    for run in forms:
        run(3)
    return min(forms, key=lambda run: float(np.median(run(7))))


def _main(asked: str, answer: str, descriptor: str) -> None:
    with os.fdopen(int(descriptor), "w") as events:

        def tell(event: ProgressEvent) -> None:
            # A parent that was killed reads no more: the session dies of the broken pipe.
            events.write(json.dumps(dataclasses.asdict(event)) + "\n")
            events.flush()

        request = SessionRequest.from_json(read_json(Path(asked)))
        write_json(Path(answer), run_session(request, Progress(tell)).to_json())


if __name__ == "__main__":
    _main(*sys.argv[1:])
