// Compiled with AVX512-BF16; called only where the CPU has it.
#include <immintrin.h>

#include "cpu/probe.h"

namespace autosparse {

double bf16_dot(int64_t rounds, float *sink) {
    constexpr int kSums = 24;
    __m512 sums[kSums];
    const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f803f80), b = (__m512bh)_mm512_set1_epi32(0x38003800);
#pragma GCC unroll 32
    for (int i = 0; i < kSums; ++i)
        sums[i] = _mm512_set1_ps(static_cast<float>(i));  // equal sums would be one
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
        for (int i = 0; i < kSums; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
    }
    __m512 total = sums[0];
#pragma GCC unroll 32
    for (int i = 1; i < kSums; ++i) total = _mm512_add_ps(total, sums[i]);
    sink[2] = _mm512_reduce_add_ps(total);
    return 4.0 * kSums * 16 * static_cast<double>(rounds);  // two multiply-adds per lane
}

}  // namespace autosparse
