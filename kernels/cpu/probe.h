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

// Runs `rounds` rounds of independent bf16 dot products; returns their number of floating-point operations.
using Bf16Probe = double (*)(int64_t rounds, float *sink);

}  // namespace autosparse
