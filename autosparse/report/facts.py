"""Labelled values of the report: key facts, hardware, measurement policy, versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from autosparse.records import (
    Accuracy,
    CpuProfile,
    GpuProfile,
    HardwareProfile,
    SplitName,
    WholeLatency,
)
from autosparse.report import words
from autosparse.report.document import Document
from autosparse.report.source import Source
from autosparse.report.verdict import dense_reference
from autosparse.units import format_bytes

Fact = tuple[str, str]
SPLITS: tuple[SplitName, ...] = ("test", "validation")

# Instruction sets worth naming on a page; the profile holds the whole list.
_NOTABLE = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "neon", "sve")


def key_facts(source: Source) -> list[Fact]:
    """Gives the facts without which the numbers of the page mean nothing."""
    document = source.document
    device = source.hardware.cpu.model if source.hardware else f"hardware {document.hardware_id}"
    shape = words.TIMES.join(str(n) for n in (document.batch_size, *document.input_shape))
    data = document.data or "not recorded"
    if document.data_resolution:
        data += f" at {document.data_resolution}{words.TIMES}{document.data_resolution}"
    return [
        ("Device", device),
        ("Threads", str(document.threads)),
        ("Arithmetic", _arithmetic(document)),
        *([("Kernels", words.COMPACT_WEIGHTS)] if document.compact_weights else []),
        ("Latency measured at", shape if document.input_shape else f"batch {document.batch_size}"),
        ("Accuracy on", data),
        *([("State of the host", host_state(document))] if document.host_state else []),
        *([("Dense weights", words.GIVEN_WEIGHTS)] if document.given_weights else []),
        ("Budget", words.budget(document.budget_ms) if document.budget_ms else "none, whole front"),
    ]


def _arithmetic(document: Document) -> str:
    left_out = (f"no {dtype}: {why}" for dtype, why in document.no_dtypes.items())
    return "; ".join([" or ".join(document.dtypes), *left_out])


def host_state(document: Document) -> str:
    """Says which state of the host latencies are of, and which others it was seen in."""
    others = [words.state(state) for state in document.host_states if state != document.host_state]
    here = words.state(document.host_state)
    if not others:
        return f"{here}, all the while"
    which = "slowest" if document.judged == "worst" else "fastest"
    seen = f"{here}, the {which} one seen, unless another is named; also seen: {', '.join(others)}"
    return seen + _state_of_predictions(document)


def _state_of_predictions(document: Document) -> str:
    """Says which state predictions are of, where latencies beside them are of another one."""
    state = "" if document.calibration is None else document.calibration.state
    if state in ("", document.host_state):
        return ""
    return f"; predictions are of {words.state(state)}"


def dense_accuracies(document: Document) -> list[tuple[str, ...]]:
    """Gives what was done to the dense model, its type, and its accuracy on test and on validation."""
    dense = document.dense
    dtypes = list(dict.fromkeys(["f32", *dense.accuracies, *dense.validation]))
    rows: list[tuple[str, ...]] = []
    for dtype in dtypes:
        # `on` gives that in f32 where a type has none, which is not this type's.
        found = [_percent_on(split, dense.on(split, dtype), dtype) for split in SPLITS]
        if set(found) != {words.NONE}:
            rows.append(("as it is", dtype, *found))
    rows += [
        (
            f"{words.kind(each.kind)}, {words.count(each.epochs, 'epoch')}",
            each.accuracy.dtype,
            *(_percent_on(split, each.on(split), each.accuracy.dtype) for split in SPLITS),
        )
        for each in dense.trained
    ]
    return rows


def _percent_on(split: SplitName, accuracy: Accuracy | None, dtype: str) -> str:
    if accuracy is None or (accuracy.split, accuracy.dtype) != (split, dtype):
        return words.NONE
    return f"{words.percent(accuracy.value)} of {accuracy.samples}"


def dense_rows(document: Document) -> list[tuple[str, str, str, str, str]]:
    """Gives engine, median, interval, runs and setting of every dense run, fastest first.

    Where the host was seen in several states, each has a row of its own; those of the state that counts
    come first.
    """
    runs = sorted(document.dense.runs.items(), key=lambda item: item[1].median_ms)
    others = [
        (engine, latency)
        for state in document.host_states
        if state != document.host_state
        for engine, _ in runs
        if (latency := document.dense.latency_states.get(engine, {}).get(state)) is not None
    ]
    return [
        (
            engine,
            words.ms(run.median_ms),
            words.span_ms((run.ci_low_ms, run.ci_high_ms)),
            str(run.repeats),
            f"{run.dtype}, {words.count(run.threads, 'thread')}, batch {run.batch_size}"
            f"{f', {words.state(run.state)}' if run.state else ''}",
        )
        for engine, run in (*runs, *others)
    ]


def elsewhere(document: Document, latencies: Mapping[str, WholeLatency]) -> list[str]:
    """Gives a latency in every state of the host but that which counts, each with its state."""
    return [
        f"{words.state(state)}: {words.ms_ci(each.median_ms, (each.ci_low_ms, each.ci_high_ms))}"
        for state, each in latencies.items()
        if state != document.host_state
    ]


def reference_note(document: Document) -> str:
    """Says what speed-ups are counted from."""
    reference = dense_reference(document)
    if reference is None:
        return "No dense run was measured, so no speed-up can be given."
    name = f"dense {reference.engine}, {words.ms(reference.latency.median_ms)}"
    if not reference.beaten:
        return f"Speed-ups count from {name}, the only dense run measured."
    others = ", ".join(reference.beaten)
    return f"Speed-ups count from {name}, the fastest dense run (slower: {others})."


def hardware(profile: HardwareProfile) -> list[Fact]:
    """Gives what a reader needs to know of the machine."""
    facts = [("Hardware id", profile.hardware_id), *_cpu(profile.cpu)]
    facts += [(f"GPU {gpu.index}", _gpu(gpu)) for gpu in profile.gpus]
    if not profile.gpus:
        facts.append(("GPU", profile.gpu_note or "none"))
    return facts


def _cpu(cpu: CpuProfile) -> list[Fact]:
    isa = [name for name in cpu.isa_usable if name in _NOTABLE or name.startswith(("avx512", "amx"))]
    withheld = sorted(set(cpu.isa_cpu) - set(cpu.isa_usable))
    quota = f", quota {cpu.quota_cores:g} cores" if cpu.quota_cores else ""
    facts = [
        ("CPU", cpu.model),
        (
            "Cores",
            f"{cpu.cores_usable} usable of {cpu.cores_physical} physical, {cpu.cores_logical} logical"
            f"{quota}{', SMT' if cpu.smt else ''}",
        ),
        (
            "Instruction sets",
            ", ".join(isa or cpu.isa_usable) + f" ({cpu.simd_width_bits}-bit vectors)",
        ),
        (
            "Caches",
            ", ".join(
                f"{name} {format_bytes(size) if size else 'unknown'}"
                for name, size in (("L1d", cpu.l1d_bytes), ("L2", cpu.l2_bytes), ("L3", cpu.l3_bytes))
            ),
        ),
        ("Frequency", f"governor {cpu.governor or 'unreadable'}, turbo {_on_off(cpu.turbo)}"),
        ("Arithmetic, measured", _rates(cpu)),
        ("Read bandwidth, measured", _bandwidth(cpu.read_gbytes_per_s)),
    ]
    if withheld:
        facts.insert(3, ("Withheld by the system", ", ".join(withheld)))
    return facts


def _on_off(value: bool | None) -> str:
    return "unreadable" if value is None else "on" if value else "off"


def _rates(cpu: CpuProfile) -> str:
    pairs = (
        ("f32", cpu.f32_gflops_core, cpu.f32_gflops_all),
        ("bf16", cpu.bf16_gflops_core, cpu.bf16_gflops_all),
    )
    known = [
        f"{dtype} {words.plain(core)} GFLOP/s on one core, {words.plain(every)} on all"
        for dtype, core, every in pairs
        if core is not None
    ]
    return "; ".join(known) or "not measured"


def _bandwidth(rates: Mapping[str, float]) -> str:
    known = [f"{level.upper()} {words.plain(rate)} GB/s" for level, rate in rates.items()]
    return ", ".join(known) + " (one core)" if known else "not measured"


def _gpu(gpu: GpuProfile) -> str:
    sparse = "with" if gpu.sparse_tensor_cores else "without"
    return (
        f"{gpu.name}, compute capability {gpu.compute_capability}, "
        f"{format_bytes(gpu.memory_bytes)}, driver {gpu.driver}, {sparse} sparse tensor cores"
    )


def policy(document: Document) -> list[Fact]:
    """Gives the measurement policy, each value as the run recorded it."""
    return [(_label(name), _value(value)) for name, value in document.policy.items()]


def _label(name: str) -> str:
    stem, _, unit = name.rpartition("_")
    if stem and unit in ("us", "ms", "s"):
        return f"{stem.replace('_', ' ').capitalize()} ({unit})"
    return re.sub(r"\bci\b", "interval", name.replace("_", " ")).capitalize()


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_value(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def taken_over(document: Document) -> str:
    """Says which earlier run a run followed, and which of its trainings are of which run."""
    rows = [(each.id, each.taken_from) for each in document.configs]
    rows += [(each.id or "", each.taken_from) for each in document.baselines]
    rows += [("dense", each.taken_from) for each in document.dense.trained]
    by_run: dict[str, dict[str, None]] = {}
    for name, run in rows:
        if run:
            by_run.setdefault(run, {})[name] = None
    taken = [f"trained in {run}: {', '.join(names)}" for run, names in by_run.items()]
    return "; ".join([document.since, *(taken or ["nothing that was trained there is part of it"])])


def provenance(document: Document) -> list[Fact]:
    """Gives what a second run needs to be the same."""
    facts = [
        ("autosparse", document.version or "not recorded"),
        *document.versions.items(),
        ("Seed", str(document.seed) if document.seed is not None else "not recorded"),
        ("Created (UTC)", document.created_at or "not recorded"),
        *([("Since", taken_over(document))] if document.since else []),
    ]
    return list(dict(facts).items())
