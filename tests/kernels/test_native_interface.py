"""The border to C: every broken rule is a message, never a crash."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from autosparse.errors import MissingDependency, NoKernel, PlanError, UsageError
from autosparse.kernels import binding, spec
from autosparse.kernels import native as interface
from autosparse.kernels.binding import NativeOp, NativeProgram, OpKind
from autosparse.kernels.layer import LayerProgram, random_blocks
from autosparse.records import LayerShape, Pattern, onexn

SHAPE = LayerShape(
    op="conv2d",
    batch_size=1,
    in_channels=8,
    out_channels=16,
    in_height=6,
    in_width=6,
    padding=(1, 1),
    kernel=(3, 3),
)
WEIGHT = np.ones((16, 8, 3, 3), np.float32)


def conv(**changes: Any) -> NativeOp:
    fields: dict[str, Any] = {
        "kind": OpKind.CONV,
        "inputs": (0,),
        "output": 1,
        "kernel_size": (3, 3),
        "padding": (1, 1, 1, 1),
        "weight": WEIGHT,
    }
    return NativeOp(**(fields | changes))


def program(out_shape: tuple[int, int, int, int] = (1, 16, 6, 6)) -> NativeProgram:
    made = NativeProgram(1)
    made.input(made.tensor((1, 8, 6, 6)))
    made.tensor(out_shape)
    return made


def lists(start: list[int], kept: list[int]) -> dict[str, Any]:
    return {
        "block_n": 8,
        "group_start": np.array(start, np.int32),
        "kept": np.array(kept, np.int32),
    }


BROKEN: dict[str, dict[str, Any]] = {
    "no weight": {"weight": None},
    "weight of another shape": {"weight": np.ones((16, 8, 1, 1), np.float32)},
    "double weights": {"weight": np.ones((16, 8, 3, 3))},
    "short bias": {"bias": np.ones(3, np.float32)},
    "zero stride": {"stride": (0, 1)},
    "zero kernel": {"kernel_size": (0, 3), "weight": np.ones((16, 8, 0, 3), np.float32)},
    "negative padding": {"padding": (-1, 0, 0, 0)},
    "huge padding": {"padding": (1 << 30, 0, 0, 0)},
    "wrong output extent": {"stride": (2, 2)},
    "kernel beyond the table": {"kernel": 10_000},
    "negative kernel": {"kernel": -3},
    "unknown input": {"inputs": (7,)},
    "unknown output": {"output": 5},
    "residual of another shape": {"residual": 0},
    "unknown residual": {"residual": 9},
    "unwritten input": {"inputs": (1,)},
    "two inputs": {"inputs": (0, 0)},
    "groups on a plain convolution": {"groups": 2, "weight": np.ones((16, 4, 3, 3), np.float32)},
    "dense with lists": {"group_start": np.zeros(3, np.int32)},
    "short group_start": lists([0, 1], [0]),
    "group_start not from zero": lists([1, 1, 2], [0, 1]),
    "descending group_start": lists([0, 3, 2], [0, 1]),
    "channel out of range": lists([0, 1, 2], [0, 8]),
    "negative channel": lists([0, 1, 2], [-1, 0]),
    "channel twice": lists([0, 2, 3], [3, 3, 0]),
    "channels descending": lists([0, 2, 3], [4, 3, 0]),
}


@pytest.mark.smoke
@pytest.mark.parametrize("changes", BROKEN.values(), ids=list(BROKEN))
def test_broken_operators_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"\w"):
        program().op(conv(**changes))


@pytest.mark.smoke
def test_kernels_refuse_with_their_reasons() -> None:
    sparse = next(k for k in spec.all_kernels() if k.block_n == 4 and k.isa == "generic")
    with pytest.raises(NoKernel, match=sparse.name):
        program().op(conv(kernel=sparse.row))
    reasons = spec.why_not(sparse, SHAPE, onexn(8))
    assert reasons == ("runs 1x4 patterns only, but the layer is 1x8",)
    with pytest.raises(NoKernel) as caught:
        spec.kernels_for(SHAPE, onexn(128))
    assert set(caught.value.reasons) == {k.name for k in spec.all_kernels() if k.dtype == "f32"}
    with pytest.raises(PlanError, match="not runs of 2"):
        spec.why_not(sparse, SHAPE, Pattern(group_out=4, unit_in=2))


@pytest.mark.parametrize("dtype", binding.DTYPE_NAMES)
@pytest.mark.parametrize("block_n", [0, 1, 8, 64])
def test_the_default_is_told_before_a_program_has_it(block_n: int, dtype: str) -> None:
    """It is the row that a program takes, and more kept inputs never make it cheaper."""
    if dtype == "bf16" and (why := spec.why_not_native(dtype)):
        pytest.skip(why)
    op = spec.native_op(SHAPE, block_n, output=1)
    kept = SHAPE.in_channels
    borders = SHAPE.input_shape, SHAPE.output_shape
    row, cycles = binding.kernel_default(op, dtype, *borders, kept)
    groups = -(-SHAPE.out_channels // block_n) if block_n else 0
    weight = np.ones((SHAPE.out_channels, SHAPE.in_channels, *SHAPE.kernel), np.float32)
    whole = {
        "group_start": np.arange(groups + 1, dtype=np.int32) * kept,
        "kept": np.tile(np.arange(kept, dtype=np.int32), groups),
    }
    made = NativeProgram(1)
    source, target = made.tensor(borders[0], dtype), made.tensor(borders[1], dtype)
    made.input(source)
    made.op(dataclasses.replace(op, weight=weight, **(whole if block_n else {})))
    made.output(target)
    made.finish()
    assert made.op_kernels() == (spec.all_kernels()[row].name,)
    less = binding.kernel_default(op, dtype, *borders, kept / 2)[1]
    assert 0 < less <= cycles
    assert block_n == 0 or binding.kernel_default(op, dtype, *borders, 0)[1] == 0


def test_a_default_of_nothing_is_refused() -> None:
    op, borders = spec.native_op(SHAPE, 8), (SHAPE.input_shape, SHAPE.output_shape)
    with pytest.raises(UsageError, match="kept must be at least 0"):
        binding.kernel_default(op, "f32", *borders, -1)
    with pytest.raises(UsageError, match="at least 1"):
        binding.kernel_default(op, "f32", (1, 0, 3, 3), borders[1], 4)
    with pytest.raises(NoKernel, match="1x3 patterns"):
        binding.kernel_default(dataclasses.replace(op, block_n=3), "f32", *borders, 4)


def test_lowered_isa_hides_wider_kernels() -> None:
    binding.limit_isa("generic")
    try:
        assert binding.detect_isa() == "generic"
        assert {kernel.isa for kernel in spec.kernels_for(SHAPE, onexn(8))} == {"generic"}
    finally:
        binding.limit_isa(None)
    with pytest.raises(UsageError, match="isa"):
        binding.limit_isa("sse9")


def test_unknown_kernel_names_the_nearest() -> None:
    name = spec.all_kernels()[0].name
    with pytest.raises(UsageError, match=name):
        spec.get(name.replace("f32", "f23"))


def test_order_of_calls() -> None:
    made = program()
    with pytest.raises(UsageError, match="output"):
        made.finish()
    with pytest.raises(UsageError, match="finish"):
        made.run([np.zeros((1, 8, 6, 6), np.float32)])
    made.op(conv())
    with pytest.raises(UsageError, match="once"):
        made.op(conv())
    made.output(1)
    made.finish()
    for late in (
        lambda: made.op(conv()),
        lambda: made.tensor((1, 1, 1, 1)),
        made.finish,
        lambda: made.output(1),
    ):
        with pytest.raises(UsageError):
            late()
    made.close()
    with pytest.raises(UsageError, match="closed"):
        made.run([np.zeros((1, 8, 6, 6), np.float32)])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 8, 6, 7), np.float32),
        np.zeros((1, 8, 6, 6)),
        np.zeros((1, 8, 6, 12), np.float32)[..., ::2],
    ],
    ids=["shape", "dtype", "strided"],
)
def test_wrong_arrays_are_refused(array: Any) -> None:
    layer = LayerProgram(SHAPE, weight=WEIGHT)
    with pytest.raises(UsageError, match="input 0"):
        layer.run(array)


@pytest.mark.parametrize("shape", [(1, 8, 6), (1, 0, 6, 6), (1, -1, 6, 6), (1 << 20, 1 << 20, 1, 1)])
def test_wrong_tensors_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        NativeProgram(1).tensor(shape)


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_wrong_thread_counts_are_refused(threads: int) -> None:
    with pytest.raises(UsageError, match="threads"):
        NativeProgram(threads)


def test_null_pointers_are_refused() -> None:
    c = interface.native()
    shape = (ctypes.c_int32 * 4)(1, 1, 1, 1)
    assert c.as_program_tensor(None, shape, 0) == -1
    assert c.as_program_op(None, None) == -1
    assert c.as_program_finish(None) == -1
    assert c.as_program_run(None, None, None) == -1
    assert c.as_kernel_get(0, None) == -1
    assert c.as_kernel_get(-1, ctypes.byref(interface.CKernelInfo())) == -1
    assert c.as_program_weight_bytes(None) == -1
    assert b"NULL" in c.as_last_error()
    c.as_program_free(None)
    layer = LayerProgram(SHAPE, weight=WEIGHT)
    handle = layer.program.handle
    assert c.as_program_run(handle, None, None) == -1
    assert c.as_program_run(handle, (ctypes.c_void_p * 1)(None), (ctypes.c_void_p * 1)(None)) == -1


def test_overlapping_runs_of_one_program_are_refused() -> None:
    made = program()
    made.op(conv())
    made.output(1)
    made.finish()
    x = np.ones((1, 8, 6, 6), np.float32)
    expected = made.run([x])[0]
    is_over = threading.Event()

    def time_again_and_again() -> None:
        while not is_over.is_set():
            with contextlib.suppress(UsageError):  # this thread may come second as well
                made.time([x], 5000)

    other = threading.Thread(target=time_again_and_again)
    other.start()
    try:
        with pytest.raises(UsageError, match="one call at a time"):
            for _ in range(100_000):
                made.run([x])
    finally:
        is_over.set()
        other.join()
    assert np.array_equal(made.run([x])[0], expected)
    with pytest.raises(UsageError, match="one twice"):
        binding.time_in_turn([made, made], [x], 2)


def test_a_library_of_another_layout_is_refused() -> None:
    described = interface.native().as_abi_layout().decode()
    path = interface.library_path()
    interface.check_layout(described, path)
    for wrong in ("", described.replace("kernel_h:", "height:"), described.replace(":4 ", ":8 ", 1)):
        with pytest.raises(MissingDependency, match=r"lay out as_op .* reinstall"):
            interface.check_layout(wrong, path)
    swapped = described.splitlines()[1].replace("isa:160", "isa:164")
    with pytest.raises(MissingDependency, match=r"as_kernel_info .* isa:160:4, isa:164:4"):
        interface.check_layout(f"{described.splitlines()[0]}\n{swapped}", path)


def test_operators_without_rows_are_told_from_errors() -> None:
    made = program()
    made.op(conv())
    made.op(NativeOp(kind=OpKind.ADD, inputs=(1, 1), output=made.tensor((1, 16, 6, 6))))
    listed, builtin = made.op_kernels()
    assert listed in {kernel.name for kernel in spec.all_kernels()}
    assert builtin is None
    row = ctypes.c_int32(77)
    assert interface.native().as_program_op_kernel(made.handle, 2, ctypes.byref(row)) == -1
    assert row.value == 77


def test_weights_shrink_with_the_pattern() -> None:
    shape = LayerShape(
        op="conv2d",
        batch_size=1,
        in_channels=128,
        out_channels=128,
        kernel=(3, 3),
        in_height=7,
        in_width=7,
    )
    weight = np.ones((128, 128, 3, 3), np.float32)
    dense = LayerProgram(shape, weight=weight).weight_bytes
    blocks = random_blocks(shape, onexn(8), 0.75, 0)
    sparse = LayerProgram(shape, weight=weight, structure=blocks).weight_bytes
    assert dense >= weight.nbytes
    assert sparse <= 0.27 * dense


def test_random_blocks_are_uniform() -> None:
    blocks = random_blocks(SHAPE, onexn(4), 0.7, 1)
    assert np.all(np.diff(blocks.group_start) == 3)  # 8 - floor(0.7 * 8)
    assert np.array_equal(blocks.kept, random_blocks(SHAPE, onexn(4), 0.7, 1).kept)
    with pytest.raises(UsageError, match="sparsity"):
        random_blocks(SHAPE, onexn(4), 1.2, 1)


def test_source_hashes_tell_methods_and_levels_apart() -> None:
    groups: dict[tuple[str, str], set[str]] = {}
    for kernel in spec.all_kernels():
        groups.setdefault((kernel.isa, kernel.method), set()).add(spec.source_hash(kernel))
    assert all(len(hashes) == 1 for hashes in groups.values())
    built = [hashes for hashes in groups.values() if hashes != {""}]  # a library may lack levels
    assert groups["generic", "oc"] in built
    assert len(set.union(*built)) == len(built)


def test_probes_are_plausible() -> None:
    assert 0.5 < binding.probe_f32_gflops(1, 0.02) < 2_000
    bf16 = binding.probe_bf16_gflops(1, 0.02)
    assert bf16 is None or bf16 > 1
    assert 1e8 < binding.probe_read_bytes_per_s(1 << 20, 0.02) < 1e13
    with pytest.raises(UsageError):
        binding.probe_f32_gflops(0, 0.02)
    with pytest.raises(UsageError):
        binding.probe_read_bytes_per_s(1, 0.02)


def test_affinity_of_the_caller_is_restored() -> None:
    before = os.sched_getaffinity(0)
    layer = LayerProgram(SHAPE, weight=WEIGHT, threads=2, pin=True)
    layer.run(np.zeros((1, 8, 6, 6), np.float32))
    assert os.sched_getaffinity(0) == before


def test_denormals_of_the_caller_are_kept() -> None:
    LayerProgram(SHAPE, weight=WEIGHT).run(np.zeros((1, 8, 6, 6), np.float32))
    assert np.float32(1e-39) * np.float32(0.5) > 0


def test_a_forked_child_runs_its_programs() -> None:
    code = """
import os, numpy as np
from autosparse.kernels.layer import LayerProgram
from autosparse.records import LayerShape
shape = LayerShape(op="conv2d", batch_size=1, in_channels=4, out_channels=64, in_height=16, in_width=16)
layer = LayerProgram(shape, weight=np.ones((64, 4, 1, 1), np.float32), threads=2)
x = np.ones((1, 4, 16, 16), np.float32)
layer.run(x)
child = os.fork()
if child == 0:
    os._exit(0 if np.all(layer.run(x) == 4) else 3)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_threads_that_the_system_refuses_are_an_error() -> None:
    code = """
import resource, numpy as np
from autosparse.errors import AutosparseError
from autosparse.kernels.layer import LayerProgram
from autosparse.records import LayerShape
shape = LayerShape(op="conv2d", batch_size=1, in_channels=1, out_channels=1)
x = weight = np.ones((1, 1, 1, 1), np.float32)
many, one = (LayerProgram(shape, weight=weight, threads=n) for n in (1024, 1))
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (256 << 20),) * 2)
try:
    many.run(x)
except AutosparseError as error:
    assert "worker threads" in str(error), error
    raise SystemExit(0 if one.run(x) == 1 else 3)
raise SystemExit("1024 threads of 8 MB stack in 256 MB")
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_torch_is_imported() -> None:
    code = "import sys, autosparse.kernels.layer; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
