"""A comparison's measuring session: everybody is made ready, checked, and run in turn."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from autosparse.compare import layer_sums, rates, verify
from autosparse.compare.own_engine import OwnModel, OwnRunning, open_own
from autosparse.compare.peer import Running, Unsupported, Variant, find
from autosparse.compare.records import (
    OURS,
    RIVAL_DTYPES,
    Contestant,
    Elsewhere,
    LayerSum,
    LayerTime,
    Memory,
    Own,
    Ratio,
    Refusal,
    Result,
    Session,
    Subject,
    Zeros,
)
from autosparse.compare.task import Task
from autosparse.database import TuningDatabase
from autosparse.devices import kind_and_number
from autosparse.measuring.stopwatch import MeasurementPolicy, Timing
from autosparse.measuring.turns import disturbed_rounds, paired_ratio
from autosparse.progress import Progress, Step
from autosparse.records import HardwareProfile, Record
from autosparse.sessions.in_turn import Entrant, InTurn, run_in_turn

log = logging.getLogger(__name__)

_REASON_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest(Record):
    """What to run in turn, and how.

    Attributes:
        subject: the model.
        shape: of the input, batch included.
        threads: worker threads of everybody.
        folder: where files for engines that read files are kept.
        peers: other engines, by name.
        own: contestants on our engine.
        peers_masked: whether peers also run every model with zeros.
        policy: how long to measure.
        database: URL of the tuning database; None is the user's own.
        dense_flops: operations of one run without zeros.
        dense_weights: weight elements without zeros.
        hardware: the host, with its measured limits.
        compact_weights: as in `Asked`.
        layers_alone: as in `Asked`.
        device: where everybody runs, ``cpu`` or as `devices.find` takes it.
    """

    subject: Subject
    shape: tuple[int, ...]
    threads: int
    folder: str
    peers: tuple[str, ...]
    own: tuple[Own, ...]
    peers_masked: bool
    policy: MeasurementPolicy
    database: str | None
    dense_flops: int
    dense_weights: int
    hardware: HardwareProfile
    compact_weights: bool = False
    layers_alone: bool = False
    device: str = "cpu"

    def task(self, zeros: Zeros | None = None) -> Task:
        """Gives the model with some zeros."""
        return Task(
            subject=self.subject,
            shape=self.shape,
            threads=self.threads,
            folder=Path(self.folder),
            zeros=zeros,
            device=self.device,
        )

    @property
    def kind(self) -> str:
        """Kind of the device."""
        return kind_and_number(self.device)[0]

    def all_zeros(self) -> tuple[Zeros, ...]:
        """Gives the zeros of our contestants, the first of each name."""
        found = {own.zeros.name: own.zeros for own in reversed(self.own) if own.zeros is not None}
        return tuple(reversed(found.values()))


@dataclass(slots=True)
class _Ready:
    """A contestant that may take its turns."""

    contestant: Contestant
    running: Running
    error: float
    own: OwnRunning | None = None
    flops: int | None = None  # of one run; None where it is the dense model's


@dataclass(slots=True)
class _Field:
    """Who runs, and who was refused."""

    ready: list[_Ready] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


def run(values: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Runs a session given and told as plain values: what the child process is called with."""
    return run_session(SessionRequest.from_json(values), progress).to_json()


def run_session(request: SessionRequest, progress: Progress | None = None) -> Session:
    """Makes everybody ready, refuses wrong outputs, and runs the rest in turn, in this process."""
    torch.set_num_threads(request.threads)
    progress = progress or Progress()
    with ExitStack() as stack:
        # Compiling reads the database, which a plan of the user's own does not make.
        stack.enter_context(TuningDatabase(request.database))
        taking_part = _gather(request, stack)
        refused = tuple(taking_part.refused)
        if not taking_part.ready:
            return Session(threads=request.threads, rounds=0, disturbed=(), results=(), refused=refused)
        found = run_in_turn(
            [_entrant(each) for each in taking_part.ready],
            request.policy,
            threads=request.threads,
            batch_size=request.subject.batch_size,
            progress=progress,
            device=request.device,
        )
        results = tuple(_results(request, taking_part.ready, found, progress))
    return Session(
        threads=request.threads,
        rounds=len(results[0].turns_us),
        disturbed=disturbed_rounds(found.timings[found.state]),
        results=results,
        refused=refused,
        circumstances=found.circumstances,
    )


def _entrant(ready: _Ready) -> Entrant:
    """Everybody is rested before, as it is not known whose threads spin."""
    who = ready.contestant
    return Entrant(name=who.name, run=ready.running.run, engine=who.engine, dtype=who.dtype, spins=True)


# --------------------------------------------------------------------------------------- making ready


def _gather(request: SessionRequest, stack: ExitStack) -> _Field:
    found = _Field()
    dense = verify.reference(request.task())
    variants = [(name, each) for name in request.peers for each in find(name).on(request.kind)]
    alike = [(name, variant) for name, variant in variants if variant.instead is None]
    for name, variant in alike:
        _add_peer(request.task(), name, variant, dense, found, stack)
    for zeros in request.all_zeros() if request.peers_masked else ():
        task = request.task(zeros)
        expected = verify.reference(task)
        for name, variant in alike:
            _add_peer(task, name, variant, expected, found, stack)
    for name, variant in variants:
        for zeros in request.all_zeros() if variant.instead else ():
            _add_other(request.task(zeros), name, variant, found, stack)
    for own in request.own:
        expected = dense if own.zeros is None else verify.reference(request.task(own.zeros))
        _add_own(request, own, expected, found, stack)
    return found


def _add_peer(
    task: Task,
    engine: str,
    variant: Variant,
    expected: Sequence[NDArray[Any]],
    found: _Field,
    stack: ExitStack,
) -> None:
    zeros = task.zeros.name if task.zeros else ""
    has = f"as {zeros}" if variant.instead else f"{zeros} zeros"
    name = f"{variant.name}, {has}" if zeros else variant.name
    contestant = Contestant(name=name, engine=engine, dtype=variant.dtype, zeros=zeros)
    try:
        running = variant.open(task)
        outputs = running.outputs()
    except Unsupported as reason:
        found.refused.append(Refusal(name=name, kind="absent", reason=str(reason)))
    except Exception as error:  # whatever a peer raises about a model is the peer's own affair
        log.debug("%s failed", name, exc_info=True)
        found.refused.append(Refusal(name=name, kind="failed", reason=_told(error)))
    else:
        stack.callback(running.close)
        _admit(_Ready(contestant, running, verify.error(outputs, expected)), found)


def _add_other(task: Task, engine: str, variant: Variant, found: _Field, stack: ExitStack) -> None:
    """Makes a peer ready that runs another model in place of one with zeros."""
    assert variant.instead is not None
    try:
        other = variant.instead(task)
        expected = verify.reference(other)
    except Unsupported as reason:
        found.refused.append(Refusal(name=variant.name, kind="absent", reason=str(reason)))
        return
    known = len(found.ready)
    _add_peer(other, engine, variant, expected, found, stack)
    for ready in found.ready[known:]:
        ready.flops = getattr(other, "flops", None)


def _add_own(
    request: SessionRequest,
    own: Own,
    expected: Sequence[NDArray[Any]],
    found: _Field,
    stack: ExitStack,
) -> None:
    zeros = own.zeros.name if own.zeros else ""
    try:
        opened = open_own(
            own,
            request.task(own.zeros),
            request.database,
            compact_weights=request.compact_weights,
        )
        stack.callback(opened.running.close)
        outputs = opened.running.outputs()
    except Exception as error:  # the others still run; the comparison ends with an error all the same
        log.debug("%s failed", own.name, exc_info=True)
        refusal = Refusal(name=own.name, kind="failed", reason=_told(error), ours=True)
        found.refused.append(refusal)
    else:
        contestant = Contestant(name=own.name, engine=OURS, dtype=opened.model.dtype, zeros=zeros)
        error_found = verify.error(outputs, expected)
        _admit(_Ready(contestant, opened.running, error_found, opened), found)


def _admit(ready: _Ready, found: _Field) -> None:
    who = ready.contestant
    wrong = verify.why_wrong(ready.error, who.dtype)
    if wrong:
        found.refused.append(Refusal(name=who.name, kind="wrong", reason=wrong, ours=who.is_ours))
    else:
        found.ready.append(ready)


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:_REASON_CHARACTERS]}"


# ------------------------------------------------------------------------------------------- results


def fastest_rivals(contestants: Sequence[Contestant], timings: Mapping[str, Timing]) -> dict[str, str]:
    """Gives type to the fastest peer on the dense model; our dense model where no peer ran at all."""
    peers = [c for c in contestants if not c.is_ours and not c.zeros]
    rivals = peers or [c for c in contestants if c.is_ours and not c.zeros]
    found: dict[str, str] = {}
    for dtype in RIVAL_DTYPES:
        names = [each.name for each in rivals if each.dtype == dtype]
        if names:
            found[dtype] = min(names, key=lambda name: timings[name].median_us)
    return found


def _ratios(
    timing: Timing, rivals: Mapping[str, str], timings: Mapping[str, Timing]
) -> Iterator[tuple[str, Ratio]]:
    for dtype, name in rivals.items():
        median, low, high = paired_ratio(timings[name], timing)
        yield dtype, Ratio(over=name, median=median, ci_low=low, ci_high=high)


def _results(
    request: SessionRequest, everyone: Sequence[_Ready], found: InTurn, progress: Progress
) -> Iterator[Result]:
    """Gives what everybody did; the layers of ours are timed meanwhile."""
    layers = sum(len(ready.own.model.layers) for ready in everyone if ready.own)
    with progress.step("time layers", layers) as step:
        for ready in everyone:
            yield _result(request, ready, everyone, found, step)


def _result(
    request: SessionRequest,
    ready: _Ready,
    everyone: Sequence[_Ready],
    found: InTurn,
    step: Step,
) -> Result:
    who, contestants = ready.contestant, [each.contestant for each in everyone]
    figures = {
        state: Elsewhere(
            latency=latency,
            ratios=dict(
                _ratios(
                    found.timings[state][who.name],
                    fastest_rivals(contestants, found.timings[state]),
                    found.timings[state],
                )
            ),
        )
        for state, latency in found.latencies(who.name).items()
    }
    here = figures.pop(found.state)
    timing = found.timings[found.state][who.name]
    limit = None  # of a GPU no one figure is: it follows its clock and power
    if request.kind == "cpu":
        limit = rates.limit_gflops(request.hardware.cpu, who.dtype, request.threads)
    result = Result(
        contestant=who,
        error=ready.error,
        tolerance=verify.TOLERANCE[who.dtype],
        latency=here.latency,
        turns_us=timing.turns_us,
        ratios=here.ratios,
        rates=rates.rates(
            ready.flops or request.dense_flops, request.dense_flops, timing.median_us, limit
        ),
        memory=Memory(size_bytes=None, how="not measured"),
        note="; ".join(filter(None, (timing.problem, ready.running.note))),
        elsewhere=figures,
    )
    if ready.own is None:
        return result
    facts = _own_facts(request, ready.own, timing, limit)
    layers, layer_sum = _layers(request, ready.own.model, found, timing, step)
    return replace(result, **facts, layers=layers, layer_sum=layer_sum)


def _layers(
    request: SessionRequest, model: OwnModel, found: InTurn, timing: Timing, step: Step
) -> tuple[tuple[LayerTime, ...], LayerSum | None]:
    """Times the layers inside the whole, and alone where that was asked for."""
    if not request.layers_alone:
        times = layer_sums.inside(model, found.prober, found.state)
        step.advance(len(times))
        return times, None
    alone = layer_sums.Alone(
        model.dtype,
        request.threads,
        request.dense_weights,
        request.hardware.cpu.l3_bytes,
        state=found.state,
        prober=found.prober,
    )
    return layer_sums.measure(model, alone, timing.median_us, step)


def _own_facts(
    request: SessionRequest, own: OwnRunning, timing: Timing, limit: float | None
) -> dict[str, Any]:
    """Gives what is known of our own contestants alone."""
    model = own.model
    return {
        "memory": own.memory,
        "weight_bytes": model.weight_bytes,
        "weight_share": rates.weight_share(model.weight_bytes, request.dense_weights, model.dtype),
        "rates": rates.rates(
            rates.kept_flops(model.layers), request.dense_flops, timing.median_us, limit
        ),
    }
