"""The verbs that look: profile, doctor, kernels, models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autosparse.cli import options
from autosparse.cli.output import emit, emit_facts, emit_json, emit_table
from autosparse.cli.reading import patterns
from autosparse.cli.working import working
from autosparse.errors import ExitCode, UsageError
from autosparse.units import format_bytes

if TYPE_CHECKING:
    from autosparse.hardware import Finding
    from autosparse.kernels.spec import KernelSpec
    from autosparse.records import CpuProfile, GpuProfile, HardwareProfile

_MAP = "Break-even map"


def _of_map(*names: str, help: str, default: str) -> Any:
    said = f"{help} (default: {default})."
    return typer.Option(*names, help=said, show_default=False, rich_help_panel=_MAP, metavar="")


_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


def profile(
    ctx: typer.Context,
    refresh: Annotated[bool, typer.Option("--refresh", help="Measure the limits again.")] = False,
    node_label: Annotated[
        bool,
        typer.Option(
            "--node-label", help='Print what a Ray node is started with here: ray start --labels "...".'
        ),
    ] = False,
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            help="With --node-label: what alone the node is for, measure or train.",
            metavar="",
        ),
    ] = None,
    break_even: Annotated[
        bool,
        typer.Option("--break-even", help="Find the least sparsity that wins, per shape and pattern."),
    ] = False,
    model: Annotated[
        str | None, _of_map("--model", "-m", help="Model whose layers are measured", default="resnet18")
    ] = None,
    threads: Annotated[
        str | None, _of_map("--threads", help="Worker threads", default="every usable core")
    ] = None,
    dtype: Annotated[
        str | None, _of_map("--dtype", help="Arithmetic type, f32 or bf16", default="f32")
    ] = None,
    pattern: Annotated[
        str | None, _of_map("--pattern", help="Patterns to try, as 1x16,block16", default="1xN")
    ] = None,
    block_n: Annotated[str | None, _of_map("--block-n", help="N of 1xN to try", default="all")] = None,
    batch_size: Annotated[
        str | None, _of_map("--batch-size", help="Samples per run", default="1")
    ] = None,
    input_shape: Annotated[
        str | None,
        _of_map("--input-shape", help="One sample, as 3x224x224", default="the model's own"),
    ] = None,
    database: Annotated[
        str | None, _of_map("--database", help="Tuning database", default="in AUTOSPARSE_HOME")
    ] = None,
    out: Annotated[
        str | None, _of_map("--out", "-o", help="File for the map", default="in AUTOSPARSE_HOME")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Describe this machine and what it can do at best."""
    wanted = {
        "model": model,
        "threads": threads,
        "dtype": dtype,
        "pattern": pattern,
        "block_n": block_n,
        "batch_size": batch_size,
        "input_shape": input_shape,
        "database": database,
        "out": out,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    if node_label and not (given or break_even or refresh):
        return _node_label(role, as_json)
    if node_label or role is not None:
        raise UsageError(
            "--node-label prints a label and measures nothing, and --role is of it, but got "
            f"{'--node-label with flags of other work' if node_label else '--role alone'}; write "
            "--node-label, and --role measure or train if need be"
        )
    if break_even:
        return _break_even(ctx, given, as_json)
    if given:
        flag = "--" + next(iter(given)).replace("_", "-")
        raise UsageError(f"{flag} is of the break-even map, but --break-even was not given; add it")
    from autosparse.devices import checkup

    with working(ctx.obj) as progress:
        telling = progress.of("profile")
        with telling.at("profile"):
            found = checkup.profile(refresh=refresh, progress=telling)
    if as_json:
        emit_json(found.to_json())
    else:
        emit_facts(_facts(found))
    return ExitCode.DONE


def _node_label(role: str | None, as_json: bool) -> int:
    from autosparse import hardware, values
    from autosparse.node_labels import ROLES, node_label

    checked = None if role is None else values.choice(ROLES)(role, "--role")
    label = node_label(hardware.hardware_id(), checked)
    if as_json:
        emit_json({"labels": dict(pair.split("=") for pair in label.split(","))})
    else:
        emit(label)
    return ExitCode.DONE


def _break_even(ctx: typer.Context, given: dict[str, str], as_json: bool) -> int:
    from autosparse import pipeline, values

    read = {
        "model": values.text,
        "threads": values.count(1),
        "dtype": values.choice(("f32", "bf16")),
        "batch_size": values.count(1),
        "input_shape": values.shape,
        "database": values.text,
        "out": values.path,
    }
    names = {"out": "file"}
    checked = {
        names.get(key, key): read[key](value, "--" + key.replace("_", "-"))
        for key, value in given.items()
        if key in read
    }
    if "pattern" in given or "block_n" in given:
        checked["patterns"] = patterns(given.get("pattern"), given.get("block_n"))
    request = pipeline.BreakEvenRequest(**checked)
    with working(ctx.obj) as progress:
        found = pipeline.measure_break_even(request, progress)
    if as_json:
        emit_json(found.to_json())
        return ExitCode.DONE
    columns = ("shape", "layers", *found.patterns)
    emit_table(columns, found.rows(), title=found.title())
    emit(found.text())
    return ExitCode.DONE


def _facts(found: HardwareProfile) -> Iterator[tuple[str, object]]:
    yield "hardware id", found.hardware_id
    yield from _cpu_facts(found.cpu)
    if not found.gpus:
        yield "GPU", found.gpu_note
    for gpu in found.gpus:
        yield f"GPU {gpu.place}", _gpu_line(gpu)
        yield f"GPU {gpu.place} at best", _gpu_limits(gpu)


def _cpu_facts(cpu: CpuProfile) -> Iterator[tuple[str, object]]:
    refused = sorted(set(cpu.isa_cpu) - set(cpu.isa_usable))
    quota = "" if cpu.quota_cores is None else f", quota {cpu.quota_cores:g}"
    yield "CPU", f"{cpu.model} ({cpu.vendor}, {cpu.architecture})"
    yield (
        "cores",
        f"{cpu.cores_physical} ({cpu.cores_logical} threads) in {cpu.numa_nodes} NUMA node(s)",
    )
    yield "usable", f"{cpu.cores_usable} cores (processors {_ranges(cpu.affinity)}{quota})"
    yield "shared cores", "yes, SMT siblings are both usable" if cpu.smt else "no"
    yield "vectors", f"{cpu.simd_width_bits} bits"
    yield "instruction sets", " ".join(cpu.isa_usable)
    yield "not granted", " ".join(refused) or "none"
    sizes = (("L1d", cpu.l1d_bytes), ("L2", cpu.l2_bytes), ("L3", cpu.l3_bytes))
    yield "caches", ", ".join(f"{level} {format_bytes(size)}" for level, size in sizes if size)
    yield "virtual machine", "yes" if cpu.is_virtual else "no"
    yield "microcode", cpu.microcode or "unreadable"
    yield "governor", cpu.governor or "unreadable"
    yield "boost", {True: "on", False: "off", None: "unreadable"}[cpu.turbo]
    yield "f32", _rates(cpu.f32_gflops_core, cpu.f32_gflops_all, cpu.cores_usable)
    yield "bf16", _rates(cpu.bf16_gflops_core, cpu.bf16_gflops_all, cpu.cores_usable)
    reads = cpu.read_gbytes_per_s.items()
    yield "reads", ", ".join(f"{level} {rate:.3g} GB/s" for level, rate in reads) + " (one core)"


def _ranges(numbers: tuple[int, ...]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _rates(core: float | None, every: float | None, cores: int) -> str:
    if core is None or every is None:
        return "no arithmetic of this type"
    return f"{core:.4g} GFLOP/s on one core, {every:.4g} on {cores}"


def _gpu_line(gpu: GpuProfile) -> str:
    parts = [
        gpu.name,
        f"{gpu.architecture} {gpu.compute_capability}",
        f"{gpu.multiprocessors or 'unknown'} multiprocessors",
        format_bytes(gpu.memory_bytes),
        f"clocks {gpu.max_sm_clock_mhz or '?'}/{gpu.max_memory_clock_mhz or '?'} MHz",
        f"cap {gpu.power_cap_watts:g} W" if gpu.power_cap_watts else "no power cap",
        f"2:4 sparse tensor cores: {'yes' if gpu.sparse_tensor_cores else 'no'}",
        f"MIG {'on' if gpu.mig else 'off'}",
        f"driver {gpu.driver}",
        f"id {gpu.device_id}",
    ]
    return ", ".join(parts)


def _gpu_limits(gpu: GpuProfile) -> str:
    if gpu.copy_gbytes_per_s is None or gpu.node_us is None:
        return "not measured: kernels cannot run on it here; see autosparse doctor"
    rates = (("bf16", gpu.bf16_tflops), ("f16", gpu.f16_tflops), ("fp8", gpu.fp8_tflops))
    parts = [f"{dtype} {rate:.4g} TFLOP/s" for dtype, rate in rates if rate]
    parts += [f"copies {gpu.copy_gbytes_per_s:.4g} GB/s", f"L2 {format_bytes(gpu.l2_bytes)}"]
    parts += [f"{gpu.node_us:.3g} us per kernel in a graph"]
    parts += [f"{gpu.load_clock_mhz} MHz under load"] if gpu.load_clock_mhz else []
    return ", ".join(parts)


def doctor(as_json: options.Json = False) -> int:
    """Say what on this machine spoils measurements and what is missing, and what to do about it."""
    from autosparse.hardware import examine

    findings = examine()
    if all(finding.severity != "fail" for finding in findings):
        from autosparse.devices.checkup import check_devices
        from autosparse.measuring.checkup import check_states  # runs the kernels

        findings = (*findings, *check_states(), *check_devices())
    if as_json:
        emit_json([finding.to_json() for finding in findings])
    else:
        emit("\n".join(line for finding in findings for line in _lines(finding)))
    failed = any(finding.severity == "fail" for finding in findings)
    return ExitCode.MISSING if failed else ExitCode.DONE


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{_MARKS[finding.severity]}  {finding.name}: {finding.message}"
    if finding.remedy:
        yield f"      -> {finding.remedy}"


def kernels(as_json: options.Json = False) -> int:
    """List every kernel: which can run here, and why the rest cannot."""
    from autosparse.kernels.spec import all_kernels

    rows = [(kernel, _why_not_here(kernel)) for kernel in all_kernels()]
    if as_json:
        emit_json([{**kernel.to_json(), "why_not": list(reasons)} for kernel, reasons in rows])
        return ExitCode.DONE
    emit_table(
        ("kernel", "family", "isa", "N", "tile", "dtype", "runs here"),
        (
            (
                kernel.name,
                kernel.family,
                kernel.isa,
                kernel.block_n or "dense",
                f"{kernel.tile_out}x{kernel.tile_pixels}",
                kernel.dtype,
                "yes" if not reasons else "no: " + "; ".join(reasons),
            )
            for kernel, reasons in rows
        ),
    )
    return ExitCode.DONE


def _why_not_here(kernel: KernelSpec) -> tuple[str, ...]:
    """Asks about a layer that suits every kernel, so that only the machine can speak against it."""
    from autosparse.kernels.spec import why_not
    from autosparse.records import DENSE, LayerShape, onexn

    layer = LayerShape(
        op="conv2d",
        batch_size=1,
        in_channels=64,
        out_channels=64,
        in_height=28,
        in_width=28,
        kernel=(3, 3),
        padding=(1, 1),
    )
    return why_not(kernel, layer, onexn(kernel.block_n) if kernel.block_n else DENSE)


def models(as_json: options.Json = False) -> int:
    """List the models of the zoo."""
    from autosparse.models import names

    if as_json:
        emit_json(list(names()))
    else:
        emit("\n".join(names()))
    return ExitCode.DONE


def hosts(address: options.Address = None, as_json: options.Json = False) -> int:
    """List the nodes of a Ray cluster: their hardware, what they are for, and who measures there."""
    if address is None:
        raise UsageError("hosts lists the nodes of a cluster, but none was named; add --address auto")
    from autosparse.hosts.nodes import cluster_hosts  # brings Ray

    found = cluster_hosts(address)
    if as_json:
        emit_json([host.to_json() for host in found])
        return ExitCode.DONE
    emit_table(
        ("node", "address", "hardware", "cpu", "cores", "for", "state"),
        (
            (
                host.hostname,
                host.address,
                host.hardware_id or host.why_unknown or "?",
                host.cpu,
                host.cores,
                ", ".join(host.roles),
                _standing(host.is_alive, host.busy_with),
            )
            for host in found
        ),
    )
    return ExitCode.DONE


def _standing(is_alive: bool, busy_with: str) -> str:
    if not is_alive:
        return "gone"
    return f"busy: {busy_with}" if busy_with else "idle"
