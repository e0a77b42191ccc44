// Inner loops of the machine-limit probes, one set per instruction set.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace autosparse {

struct ProbeKernels {
    // Runs `rounds` rounds of independent fused multiply-adds; returns their number of floating-point
    // operations.
    double (*multiply_add)(int64_t rounds, float *sink);
    // Reads `floats` floats (a multiple of 256) once.
    void (*read)(const float *data, size_t floats, float *sink);
};

const ProbeKernels &probe_kernels_generic();
const ProbeKernels &probe_kernels_avx2();
const ProbeKernels &probe_kernels_avx512();

// bf16 dot products of AVX512-BF16; returns the operations, 0 where this build lacks them.
double bf16_dot(int64_t rounds, float *sink);
// The same on AMX's matrix tiles.
double amx_dot(int64_t rounds, float *sink);

}  // namespace autosparse
