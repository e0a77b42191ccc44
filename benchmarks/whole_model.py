"""Whole models, ours dense and randomly pruned, against torch, ONNX Runtime and OpenVINO, in turn.

    python benchmarks/whole_model.py --model resnet18 --sparsity 0.5,0.75 --block-n 16 --threads 2

Every contestant runs the same module on the same random input with the same number of threads; they
take turns (A B B A), so that a drift of the machine hits all alike. Absent peers are named. Speed-ups
are against the fastest peer of each arithmetic type. Sparse contestants hold random uniform 1xN masks
on every convolution but the stem and those excluded. `--block-n 8,16,32` gives every layer whichever of
these N ran fastest, with its fastest kernel.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import json
import math
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autosparse import hardware, models
from autosparse.engine import CompiledModel, compile
from autosparse.graph import capture_layers
from autosparse.kernels import spec
from autosparse.kernels.binding import time_in_turn
from autosparse.kernels.layer import LayerProgram, random_blocks
from autosparse.plan import Plan
from autosparse.progress import Progress
from autosparse.records import DENSE, LayerChoice, LayerInfo, LayerShape, Pattern, onexn
from autosparse.tuning.stopwatch import (
    WHOLE,
    MeasurementPolicy,
    Timing,
    interleave,
    paired_ratio,
    python_runner,
)

Runner = Callable[[int], NDArray[np.int64]]
# As many programs in turn as make a layer's weights come from beyond L2, within reason.
COLD_BYTES, MOST_COPIES = 16 << 20, 16


# ------------------------------------------------------------------------------------------- peers


def torch_eager(module: nn.Module, x: Tensor, threads: int) -> dict[str, Runner]:
    """Eager mode, contiguous and channels last."""
    last = copy.deepcopy(module).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x_last = x.to(memory_format=torch.channels_last)

    def calling(net: nn.Module, value: Tensor) -> Runner:
        def call() -> None:
            with torch.inference_mode():
                net(value)

        return python_runner(call)

    return {"torch": calling(module, x), "torch channels-last": calling(last, x_last)}


def torch_compiled(module: nn.Module, x: Tensor, threads: int) -> dict[str, Runner]:
    """torch.compile with its default backend."""
    net = torch.compile(copy.deepcopy(module))

    def call() -> None:
        with torch.inference_mode():
            net(x)

    call()
    return {"torch.compile": python_runner(call)}


def _onnx(module: nn.Module, x: Tensor, folder: Path) -> Path:
    path = folder / "model.onnx"
    torch.onnx.export(module, (x,), str(path), dynamo=False, opset_version=17)
    return path


def onnxruntime(module: nn.Module, x: Tensor, threads: int) -> dict[str, Runner]:
    """ONNX Runtime on the CPU, all graph optimisations."""
    import onnx  # noqa: F401
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        path = _onnx(module, x, Path(folder))
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.numpy()}
    return {"onnxruntime": python_runner(lambda: session.run(None, feed))}


def openvino(module: nn.Module, x: Tensor, threads: int) -> dict[str, Runner]:
    """OpenVINO for latency, fp32 and, where the CPU has it, bf16."""
    import openvino as ov

    core = ov.Core()
    with tempfile.TemporaryDirectory() as folder:
        model = core.read_model(_onnx(module, x, Path(folder)))
    runners = {}
    for label, precision in (("openvino", "f32"), ("openvino bf16", "bf16")):
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            continue
        config = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
        }
        request = core.compile_model(model, "CPU", config).create_infer_request()
        request.set_input_tensor(ov.Tensor(x.numpy()))
        runners[label] = python_runner(request.infer)
    return runners


PEERS: Mapping[str, Callable[[nn.Module, Tensor, int], dict[str, Runner]]] = {
    "torch": torch_eager,
    "torch.compile": torch_compiled,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}


def peers(
    names: list[str], module: nn.Module, x: Tensor, threads: int
) -> tuple[dict[str, Runner], list[str]]:
    """Builds the peers; names those that are absent or refuse the model."""
    runners: dict[str, Runner] = {}
    absent = []
    for name in names:
        try:
            runners |= PEERS[name](module, x, threads)
        except ImportError as error:
            absent.append(f"{name}: not installed ({error.name})")
        except Exception as error:  # whatever a peer raises about a model is the peer's own affair
            absent.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
    return runners, absent


# -------------------------------------------------------------------------------------------- ours


def layer_us(shape: LayerShape, pattern: Pattern, sparsity: float, kernel: Any, threads: int) -> float:
    """Times one kernel on random weights, as cold as copies in turn make them."""
    generator = np.random.default_rng(0)
    size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
    weight = generator.standard_normal(size, dtype=np.float32)
    structure = None if pattern.is_dense else random_blocks(shape, pattern, sparsity, 0)
    wanted = math.ceil(COLD_BYTES / (4 * weight.size * (1 - sparsity) + 1))
    copies = [
        LayerProgram(shape, weight=weight, structure=structure, kernel=kernel, threads=threads)
        for _ in range(min(wanted, MOST_COPIES))
    ]
    x = generator.standard_normal(spec.input_shape(shape), dtype=np.float32)
    residual = generator.standard_normal(spec.output_shape(shape), dtype=np.float32)
    arguments = copies[0].arguments(x, residual if shape.residual else None)
    times = time_in_turn([each.program for each in copies], arguments, 3 * len(copies) + 9)
    for each in copies:
        each.close()
    return float(np.median(times[len(copies) :])) / 1e3


def fastest(layer: LayerInfo, patterns: list[Pattern], sparsity: float, threads: int) -> LayerChoice:
    """Gives the fastest (N, kernel) of one layer."""
    assert layer.shape is not None
    found: list[tuple[float, LayerChoice]] = []
    for pattern in patterns:
        for kernel in spec.kernels_for(layer.shape, pattern):
            amount = 0.0 if pattern.is_dense else sparsity
            taken = layer_us(layer.shape, pattern, amount, kernel, threads)
            found.append((taken, LayerChoice(pattern=pattern, sparsity=amount, kernel=kernel.name)))
    return min(found, key=lambda pair: pair[0])[1]


def make_plan(
    model: str, layers: tuple[LayerInfo, ...], args: argparse.Namespace, sparsity: float
) -> Plan:
    """Chooses kernels, and N where several are allowed, for every layer that a kernel can run."""
    chosen: dict[str, LayerChoice] = {}
    seen: dict[tuple[str, bool], LayerChoice] = {}
    for layer in layers:
        if layer.shape is None or layer.shape.groups > 1 or not layer.name:
            continue
        sparse = sparsity > 0 and is_pruned(layer, args.exclude)
        key = (layer.shape.key, sparse)
        if key not in seen:
            ways = [onexn(n) for n in args.block_n] if sparse else [DENSE]
            seen[key] = fastest(layer, ways, sparsity, args.threads)
        chosen[layer.name] = seen[key]
    return Plan(model=model, layers=chosen)


def is_pruned(layer: LayerInfo, exclude: list[str]) -> bool:
    """Convolutions that are neither the stem, nor refused, nor excluded."""
    if (
        layer.why_dense
        or layer.shape is None
        or layer.shape.op != "conv2d"
        or layer.shape.in_channels <= 4
    ):
        return False
    return not any(fnmatch.fnmatch(layer.name, glob) for glob in exclude)


def pruned(module: nn.Module, layers: tuple[LayerInfo, ...], plan: Plan) -> nn.Module:
    """Gives a copy of the module with random uniform masks as the plan says."""
    result = copy.deepcopy(module)
    for seed, layer in enumerate(layers):
        choice = plan.choice(layer.name)
        if choice.pattern.is_dense or layer.shape is None:
            continue
        blocks = random_blocks(layer.shape, choice.pattern, choice.sparsity, seed)
        live = blocks.to_mask(layer.shape.in_channels).repeat(blocks.block_n, axis=0)
        mask = torch.from_numpy(live[: layer.shape.out_channels].astype(np.float32))
        with torch.no_grad():
            result.get_parameter(f"{layer.name}.weight").mul_(mask[:, :, None, None])
    return result


# ------------------------------------------------------------------------------------------ report


def best_peers(timings: Mapping[str, Timing], own: Mapping[str, object]) -> dict[str, str]:
    """Gives arithmetic type to the fastest peer; our own dense model where there is no peer."""
    found = {}
    for dtype in ("f32", "bf16"):
        rivals = [n for n in timings if n not in own and n.endswith("bf16") == (dtype == "bf16")]
        if rivals:
            found[dtype] = min(rivals, key=lambda name: timings[name].median_us)
    return found or {"f32": "autosparse dense"}


def row(
    name: str, timings: Mapping[str, Timing], best: Mapping[str, str], own: CompiledModel | None
) -> dict[str, Any]:
    timing = timings[name]
    return {
        "name": name,
        "median_ms": timing.median_us / 1e3,
        "ci_ms": [timing.ci_low_us / 1e3, timing.ci_high_us / 1e3],
        "repeats": timing.repeats,
        "speedup": {dtype: list(paired_ratio(timings[peer], timing)) for dtype, peer in best.items()},
        "weight_bytes": own.weight_bytes if own else None,
        "arena_bytes": own.arena_bytes if own else None,
    }


def show(rows: list[dict[str, Any]], best: Mapping[str, str], absent: list[str]) -> None:
    heads = "".join(f"{'x ' + peer:>24s}" for peer in best.values())
    print(f"{'':24s} {'median ms':>10s}  {'95 % interval':>17s}{heads}")
    for each in sorted(rows, key=lambda r: -r["median_ms"]):
        low, high = each["ci_ms"]
        ratios = "".join(f"{r:10.2f} ({a:5.2f}-{b:5.2f})" for r, a, b in each["speedup"].values())
        print(f"{each['name']:24s} {each['median_ms']:10.3f}  {low:8.3f}-{high:8.3f}{ratios}")
    for line in absent:
        print(f"absent: {line}")


def numbers(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [kind(part) for part in text.split(",")]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--sparsity", type=numbers(float), default=[0.75], metavar="0.5,0.75")
    parser.add_argument("--block-n", type=numbers(int), default=[16], metavar="8,16")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--size", type=int, default=None, help="height and width of the input")
    parser.add_argument("--threads", type=int, default=hardware.usable_cores())
    parser.add_argument("--exclude", action="append", default=["*downsample*"], metavar="GLOB")
    parser.add_argument("--against", default="torch,onnxruntime,openvino", metavar=",".join(PEERS))
    parser.add_argument("--seconds", type=float, default=4.0, help="running time of each contestant")
    parser.add_argument("--operators", action="store_true", help="print the time of every operator")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    return parser.parse_args()


def main() -> None:
    warnings.filterwarnings("ignore")
    args = arguments()
    torch.set_num_threads(args.threads)
    loaded = models.resolve(args.model)
    channels, height, width = loaded.input_shape
    size = (args.size, args.size) if args.size else (height, width)
    x = torch.randn(args.batch_size, channels, *size, generator=torch.Generator().manual_seed(0))
    layers = capture_layers(loaded.module, (x,))
    names = [name for name in args.against.split(",") if name]
    runners, absent = peers(names, loaded.module, x, args.threads)
    own: dict[str, CompiledModel] = {}
    with ExitStack() as stack:
        for sparsity in [0.0, *args.sparsity]:
            plan = make_plan(args.model, layers, args, sparsity)
            module = pruned(loaded.module, layers, plan)
            model = stack.enter_context(compile(module, (x,), threads=args.threads, plan=plan))
            name = f"autosparse {sparsity:g}" if sparsity else "autosparse dense"
            own[name], runners[name] = model, model.run_times
        policy = MeasurementPolicy.from_json({**WHOLE.to_json(), "time_cap_us": args.seconds * 1e6})
        timings = interleave(runners, policy, Progress())
        best = best_peers(timings, own)
        rows = [row(name, timings, best, own.get(name)) for name in timings]
        show(rows, best, absent)
        operators = {name: model.measure_operators(20) for name, model in own.items()}
        if args.operators:
            for name, found in operators.items():
                print(name, json.dumps({k: round(v, 1) for k, v in found.items()}, indent=1))
    if args.json:
        record = {
            "model": args.model,
            "input_shape": list(x.shape),
            "threads": args.threads,
            "block_n": args.block_n,
            "hardware": hardware.detect().to_json(),
            "best_peers": best,
            "rows": rows,
            "operators_us": operators,
            "absent": absent,
        }
        args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
