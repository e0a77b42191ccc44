"""Resources are read from machine code that the compiler of the library makes here, without a GPU."""

from __future__ import annotations

import pytest

from autosparse.errors import NoKernel
from autosparse.kernels.gpu import resources

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")
pytest.importorskip("triton", reason="triton, whose disassembler is used, is not installed")

TWO = b"""
extern "C" __global__ void shared_of(float *d) {
  __shared__ float s[300];
  s[threadIdx.x] = d[threadIdx.x];
  __syncthreads();
  d[threadIdx.x] = s[threadIdx.x ^ 1];
}
extern "C" __global__ void local_of(float *d, int at) {
  float far[100];
  for (int i = 0; i < 100; i++) far[i] = d[i * at];
  d[0] = far[at];
}
"""
SPARSE = b"""
extern "C" __global__ void sparse(float *d, const unsigned *a, unsigned e) {
  float c[4] = {0, 0, 0, 0};
  asm volatile("mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32 "
    "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9,%10,%11},{%0,%1,%2,%3},%12,0x0;\\n"
    : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]), "r"(e));
  for (int i = 0; i < 4; i++) d[i] = c[i];
}
"""


def cubin(source: bytes, target: str) -> bytes:
    """Compiles CUDA C++."""
    failed, program = nvrtc.nvrtcCreateProgram(source, b"test.cu", 0, None, None)
    assert not int(failed)
    option = f"--gpu-architecture={target}".encode()
    (failed,) = nvrtc.nvrtcCompileProgram(program, 1, [option])
    assert not int(failed)
    failed, size = nvrtc.nvrtcGetCUBINSize(program)
    code = b" " * size
    nvrtc.nvrtcGetCUBIN(program, code)
    return code


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
def test_memory_and_registers_of_each_function(target: str) -> None:
    code = cubin(TWO, target)
    shared = resources.of_cubin(code, threads=128, dynamic_bytes=64, function="shared_of")
    assert (shared.smem_bytes, shared.spilled_bytes, shared.threads) == (1200 + 64, 0, 128)
    assert 4 <= shared.registers < 32
    assert dict(shared.instructions) == {"LDG.32": 1, "STG.32": 1}
    local = resources.of_cubin(code, threads=32, function="local_of")
    assert local.spilled_bytes >= 400
    assert any(name.startswith("STL.") for name in local.instructions)
    assert local.smem_bytes == 0


@pytest.mark.smoke
@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
def test_sparse_products_are_told_apart(target: str) -> None:
    counts = resources.of_cubin(cubin(SPARSE, target), threads=32).instructions
    assert counts["HMMA.SP"] == 1
    assert "HMMA" not in counts


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(NoKernel, match="machine code that cuobjdump reads"):
        resources.of_cubin(b"nothing of the kind", threads=32)
    code = cubin(TWO, "sm_80")
    with pytest.raises(NoKernel, match=r"local_of.*shared_of"):
        resources.of_cubin(code, threads=32)
    with pytest.raises(NoKernel, match="one function 'other'"):
        resources.of_cubin(code, threads=32, function="other")
