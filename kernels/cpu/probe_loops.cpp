// Compiled once per instruction set.
#include "cpu/probe.h"
#include "cpu/vec.h"

namespace autosparse {
namespace AS_ISA_NS {
namespace {

// Enough independent sums to hide the latency of two units, few enough to stay in registers.
constexpr int kSums = kRegisters >= 32 ? 24 : 12;

double multiply_add(int64_t rounds, float *sink) {
    Vec sums[kSums];
    const Vec a = broadcast(sink[0]), b = broadcast(sink[1]);
#pragma GCC unroll 32
    for (int i = 0; i < kSums; ++i) sums[i] = broadcast(static_cast<float>(i));
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
        for (int i = 0; i < kSums; ++i) sums[i] = fma(sums[i], a, b);
    }
    Vec total = zero();
#pragma GCC unroll 32
    for (int i = 0; i < kSums; ++i) total = total + sums[i];
    sink[2] = sum(total);
    return 2.0 * kSums * kLanes * static_cast<double>(rounds);
}

void read(const float *data, size_t floats, float *sink) {
    Vec sums[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) sums[i] = zero();
    for (size_t at = 0; at < floats; at += 8 * kLanes) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i)
            sums[i] = max(sums[i], load(data + at + static_cast<size_t>(i) * kLanes));
    }
    Vec total = zero();
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) total = total + sums[i];
    sink[2] = sum(total);
}

}  // namespace

extern const ProbeKernels probe_kernels;
const ProbeKernels probe_kernels = {multiply_add, read};

}  // namespace AS_ISA_NS
}  // namespace autosparse
