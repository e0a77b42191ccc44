"""A search's measuring session: plans compiled and run whole, in turn with the dense model.

What is compared is measured in one session, A B A B, so that a machine that drifts drifts for all.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from autosparse import models
from autosparse.engine import CompiledModel, compile
from autosparse.errors import AutosparseError
from autosparse.graph import Exported
from autosparse.hosts.host import Host
from autosparse.measuring.deciding import decide
from autosparse.measuring.stopwatch import MeasurementPolicy, Runner, python_runner
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparsify
from autosparse.progress import Progress
from autosparse.records import Record, WholeLatency
from autosparse.sessions.in_turn import UNEVENTFUL, Circumstances, Entrant, InTurn, run_in_turn
from autosparse.sessions.operators import operators_us

SESSION_US = 20e6
"""Running time of a session whose figures are published, over all of its contestants."""

# What is left open by that, as intervals cross the budget, is measured on for so long.
_DECIDING_US = 10e6
RUNNER = "autosparse.pipeline.measured.session:run"
# A session that takes longer than this, and than it was asked to measure, hangs.
_HUNG_S = 1800.0
_PATIENCE = 10.0


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
    """What to measure, and how; `compact_weights` as in `autosparse.compile`, `device` a kind.

    `judged` says which state of the host counts where it was seen in several: the ``worst`` or the
    ``best`` one. With `budget_us`, contestants whose interval crosses it are measured on, in turn with
    the first one.
    """

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
    judged: str = "worst"
    budget_us: float | None = None
    device: str = "cpu"

    def with_contestants(
        self, contestants: tuple[Contestant, ...], session_us: float = SESSION_US
    ) -> SessionRequest:
        """Gives this request for other contestants, who share the time that a session may take."""
        share_us = min(self.policy.time_cap_us, session_us / len(contestants))
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
        latency: the whole model, in the state of the host that counts.
        states: state of the host to the whole model's latency in it, the slowest first; that of
            `latency` where nothing is given, as by files that know no states.
        layers: weight-bearing layers inside it.
        other_us: operators without weights: pooling, additions, copies at the borders.
        weight_bytes: packed weights and index lists.
        deciding_s: seconds of further turns, as its interval had crossed the budget; 0 if it had not.
    """

    name: str
    latency: WholeLatency
    states: Mapping[str, WholeLatency] = field(default_factory=dict)
    layers: tuple[LayerTime, ...] = ()
    other_us: float = 0.0
    weight_bytes: int = 0
    deciding_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.states:
            object.__setattr__(self, "states", {self.latency.state: self.latency})

    def judged_in(self, state: str) -> ContestantResult:
        """Gives the figures with the latency of a state, as they are if it was not measured in it."""
        return dataclasses.replace(self, latency=self.states.get(state, self.latency))


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionResult(Record):
    """What a session gives back, in the order of its contestants.

    Attributes:
        results: figures, in the order of the contestants.
        circumstances: how it was on the host.
        disturbed: why the figures may be off; empty if they are not.
    """

    results: tuple[ContestantResult, ...]
    circumstances: Circumstances = UNEVENTFUL
    disturbed: str = ""

    def of(self, name: str) -> ContestantResult:
        """Gives the figures of one contestant."""
        return next(result for result in self.results if result.name == name)


def run_apart(request: SessionRequest, progress: Progress, host: Host) -> SessionResult:
    """Runs a session in a process of its own. The caller sees to it that nothing else runs meanwhile.

    Args:
        request: what to measure.
        progress: told what the process tells; a stop ends it at once.
        host: where it runs.

    Raises:
        AutosparseError: the process failed; names the last line it said.
        Stopped: a stop was requested.
    """
    limit_s = _HUNG_S + _PATIENCE * len(request.contestants) * request.policy.time_cap_us / 1e6
    step = "start a measuring session"
    return SessionResult.from_json(
        host.time_whole(RUNNER, request.to_json(), step=step, limit_s=limit_s, progress=progress)
    )


def run(values: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Runs a session given and told as plain values: what the child process is called with."""
    return run_session(SessionRequest.from_json(values), progress).to_json()


def run_session(request: SessionRequest, progress: Progress) -> SessionResult:
    """Compiles every contestant, runs them in turn, and times their layers, in this process."""
    torch.set_num_threads(request.threads)
    generator = torch.Generator().manual_seed(request.seed)
    sample = torch.randn(request.batch_size, *request.input_shape, generator=generator)
    with ExitStack() as stack:
        entrants: list[Entrant] = []
        compiled: dict[str, CompiledModel] = {}
        with progress.step("compile whole models", len(request.contestants)) as step:
            captured = Exported(_module(request, request.contestants[0]), (sample,))
            for contestant in request.contestants:
                captured.module.load_state_dict(_module(request, contestant).state_dict())
                if contestant.engine == "torch":
                    run = _torch(request, contestant.dtype, captured, sample)
                else:
                    program = stack.enter_context(_compiled(request, contestant, captured, sample))
                    compiled[contestant.name] = program
                    run = program.run_times
                entrants.append(_entrant(contestant, run))
                step.advance(1, contestant.name)
        found = run_in_turn(
            entrants,
            request.policy,
            threads=request.threads,
            batch_size=request.batch_size,
            judged=request.judged,
            progress=progress,
            device=request.device,
        )
        deciding_s = _decide(request, found, progress)
        results = []
        with progress.step("time layers within whole models", len(request.contestants)) as step:
            for name in found.entrants:
                states = found.latencies(name)
                result = ContestantResult(
                    name=name,
                    latency=states[found.state],
                    states=states,
                    deciding_s=deciding_s.get(name, 0.0),
                )
                if name in compiled:
                    result = _with_layers(result, compiled[name], found)
                results.append(result)
                step.advance(1, name)
    return SessionResult(
        results=tuple(results),
        circumstances=found.circumstances,
        disturbed=found.circumstances.why_disturbed,
    )


def _entrant(contestant: Contestant, run: Runner) -> Entrant:
    return Entrant(
        name=contestant.name,
        run=run,
        engine=contestant.engine,
        dtype=contestant.dtype,
        spins=contestant.engine == "torch",
    )


def _decide(request: SessionRequest, found: InTurn, progress: Progress) -> dict[str, float]:
    """Measures on whose interval crosses the budget; gives name to the seconds that it took."""
    if request.budget_us is None:
        return {}
    timings = found.timings[found.state]
    decision = decide(
        {name: each.run for name, each in found.entrants.items()},
        timings,
        request.budget_us,
        request.policy,
        progress,
        canary=request.contestants[0].name,
        cap_us=_DECIDING_US,
        state=found.state,
        spinning=[name for name, each in found.entrants.items() if each.spins],
        prober=found.prober,
    )
    timings.update(decision.timings)
    return dict.fromkeys(decision.timings, decision.seconds)


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
    captured: Exported,
    sample: torch.Tensor,
) -> Iterator[CompiledModel]:
    is_here = request.device == "cpu"  # a GPU has no threads to choose, nor kernels that expand weights
    program = compile(
        captured,
        (sample,),
        dtype=contestant.dtype,
        threads=request.threads if is_here else None,
        plan=contestant.plan,
        database=request.database,
        compact_weights=request.compact_weights and is_here,
        use_zeros=contestant.plan is not None,  # dense is dense, whatever was pruned before
        device=request.device,
    )
    with program:
        if program.engine != contestant.engine:
            raise AutosparseError(
                f"{contestant.name} must be measured on {contestant.engine}, but would run through "
                f"{program.engine}: {'; '.join(program.why)}"
            )
        yield program


def _with_layers(result: ContestantResult, program: CompiledModel, found: InTurn) -> ContestantResult:
    """Adds what the operators of a compiled model take within it, in the state that counts."""
    times = operators_us(program, found.prober, found.state)
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
    return dataclasses.replace(
        result,
        layers=layers,
        other_us=sum(us for name, us in times.items() if name not in {x.name for x in layers}),
        weight_bytes=program.weight_bytes,
    )


def _torch(request: SessionRequest, dtype: str, captured: Exported, sample: torch.Tensor) -> Runner:
    """Gives torch without us: on a processor eager, on a GPU its operators in a CUDA graph."""
    if request.device == "cpu":
        return _torch_runner(captured.module, sample)
    from autosparse.engine.gpu.compiling import place_of, torch_alone

    return torch_alone(captured, place_of(request.device), dtype).run_times


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
