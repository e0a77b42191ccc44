"""What `doctor` says of the host's states: which there are, how often each was seen, what it costs."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from autosparse import hardware
from autosparse.hardware import Finding
from autosparse.kernels import spec
from autosparse.kernels.binding import NativeProgram
from autosparse.measuring.histories import load_histories, prober_for, save_history
from autosparse.measuring.lock import measuring
from autosparse.measuring.pace import SLOWED
from autosparse.measuring.states import APART, NEAR, History, Prober
from autosparse.records import HOST_STATES, Activation, LayerShape

# What costs more than this between the states is worth a warning.
_MUCH = 1.1
# A neighbour who takes more of the time than this is worth one, too.
_OFTEN = 0.05
_WATCHED_S = 1.0
_RUNS = 10
# Four layers as ResNets have them in their middle: each reads what both processors have just written.
_CHANNELS, _SIDE, _LAYERS = 128, 28, 4


def check_states(
    threads: int | None = None,
    *,
    prober: Prober | None = None,
    run_us: Callable[[], float] | None = None,
) -> Iterator[Finding]:
    """Tells the host's state, how often each was seen, and how long the same work takes in either.

    It watches the host for a second. What it finds is kept with the host's history, as the host may be
    in one state today and in the other tomorrow.

    Args:
        threads: worker threads; None is every usable core.
        prober: tells the state; None is this host's own.
        run_us: runs some work on so many threads once or more and gives microseconds; None is a chain
            of dense convolutions.
    """
    threads = hardware.usable_cores() if threads is None else threads
    if threads < 2:
        yield Finding(name="host state", severity="ok", message="one processor has no states")
        return
    with measuring("the states of the host"):
        prober = prober_for(threads) if prober is None else prober
        if prober is None:
            return
        known = load_histories(hardware.hardware_id()).get(threads, History()).work_us
        if run_us is not None:
            found = _watched(prober, run_us)
        else:
            with _chain(threads) as program:
                found = _watched(prober, lambda: _timed_us(program))
        prober.learn()
        history = dataclasses.replace(prober.history, work_us=_least(known, found))
        save_history(hardware.hardware_id(), threads, history)
    yield _finding(history, prober().label, threads)
    yield _pace_finding(history)


def _watched(prober: Prober, run_us: Callable[[], float]) -> dict[str, float]:
    """Gives the median time of some work in every state that the host is in meanwhile."""
    samples: dict[str, list[float]] = {}
    until = time.monotonic() + _WATCHED_S
    before = prober()
    while time.monotonic() < until:
        took_us = run_us()
        after = prober()
        if before.label == after.label and before.is_usable and after.is_usable:
            samples.setdefault(after.label, []).append(took_us)
        before = after
    return {state: float(np.median(found)) for state, found in samples.items()}


def _least(known: Mapping[str, float], found: Mapping[str, float]) -> dict[str, float]:
    """Keeps the least time per state: whatever else ran on the host only adds to it."""
    states = {*known, *found} & HOST_STATES.keys()
    return {s: min(known.get(s, math.inf), found.get(s, math.inf)) for s in sorted(states)}


def _finding(history: History, now: str, threads: int) -> Finding:
    shares, probes = history.shares(), len(history.handovers_ns)
    if history.split_ns is None:
        typical_ns = history.typical_ns("") or 0.0
        return Finding(
            name="host state",
            severity="ok",
            message=f"one state seen on {threads} threads in {probes} probes: a cache line takes "
            f"{typical_ns:.3g} ns from one processor to the next",
        )
    seen = ", ".join(
        f"{HOST_STATES[state]} in {share:.0%} ({history.typical_ns(state):.3g} ns per cache line)"
        for state, share in shares.items()
    )
    here = HOST_STATES.get(now, "not to be told")
    costs = _costs(history)
    return Finding(
        name="host state",
        severity="warn" if (history.cost or 0.0) > _MUCH else "ok",
        message=f"two states known on {threads} threads; of {probes} probes {seen}; now: {here}; "
        f"{costs}",
        remedy="figures of the two are never mixed, and search --judged worst|best says which one "
        "decides; to have only one, keep the machine's processors on one cache"
        if len(shares) > 1
        else "",
    )


def _pace_finding(history: History) -> Finding:
    share, full = history.slowed_share, history.marks.full
    if share is None or full is None:
        return Finding(name="host pace", severity="ok", message="the processors' pace is not watched")
    return Finding(
        name="host pace",
        severity="warn" if share > _OFTEN else "ok",
        message=f"of {len(history.paces)} probes {share:.0%} found a core that did less than "
        f"{SLOWED:.0%} of what it can, {full.gflops:.3g} GFLOP/s in f32, {full.gbytes_per_s:.3g} GB/s "
        f"from its cache and {full.gintegers_per_s:.3g} integer instructions per ns: "
        "another guest of the hypervisor was using it, or another process",
        remedy="nothing that is timed meanwhile counts, so measuring takes longer; it ends on a host "
        "whose cores are nobody else's"
        if share > _OFTEN
        else "",
    )


def _costs(history: History) -> str:
    if history.cost is None:
        return "what that costs is not known before both were seen by a doctor"
    return (
        f"convolutions take {history.cost:.2f} times as long apart ({history.work_us[APART]:.4g} us, "
        f"else {history.work_us[NEAR]:.4g})"
    )


def _timed_us(program: NativeProgram) -> float:
    inputs = [np.zeros(shape, np.float32) for shape in program.input_shapes()]
    return float(np.median(program.time(inputs, _RUNS)[0])) / 1e3


def _chain(threads: int) -> NativeProgram:
    shape = LayerShape(
        op="conv2d", batch_size=1, in_channels=_CHANNELS, out_channels=_CHANNELS, in_height=_SIDE,
        in_width=_SIDE, kernel=(3, 3), padding=(1, 1), activation=Activation.RELU,
    )  # fmt: skip
    generator = np.random.default_rng(0)
    weight = generator.standard_normal(shape.weight_shape, dtype=np.float32) / np.float32(_CHANNELS)
    program = NativeProgram(threads, pin=True)
    source = program.tensor(shape.input_shape)
    program.input(source)
    for _ in range(_LAYERS):
        sink = program.tensor(shape.output_shape)
        operator = spec.native_op(shape, 0, inputs=(source,), output=sink)
        program.op(dataclasses.replace(operator, weight=weight))
        source = sink
    program.output(source)
    program.finish()
    return program
