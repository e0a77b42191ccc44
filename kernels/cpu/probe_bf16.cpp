// bf16 dot products by an instruction of their own: AVX512-BF16's, or matrix tiles where the level has
// them.
#include "cpu/matrix.h"
#include "cpu/probe.h"

namespace autosparse::AS_ISA_NS {

double bf16_probe(int64_t rounds, float *sink);

#if defined(AS_MATRIX_TILES)

double bf16_probe(int64_t rounds, float *sink) {
    alignas(64) float ones[256];
    for (float &each : ones) each = 0.0f;
    MatrixTiles tiles({4, 2, 2}, 16);
    tiles.zero<0>();
    tiles.zero<1>();
    tiles.zero<2>();
    tiles.zero<3>();
    tiles.load<4>(ones, 64);
    tiles.load<5>(ones, 64);
    tiles.load<6>(ones, 64);
    tiles.load<7>(ones, 64);
    for (int64_t round = 0; round < rounds; ++round) {
        tiles.multiply<0, 4, 6>();
        tiles.multiply<1, 4, 7>();
        tiles.multiply<2, 5, 6>();
        tiles.multiply<3, 5, 7>();
    }
    tiles.store<0>(ones);
    sink[2] = ones[0];
    return 2.0 * 4 * 16 * 16 * 32 * static_cast<double>(rounds);
}

#else

double bf16_probe(int64_t rounds, float *sink) {
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

#endif

}  // namespace autosparse::AS_ISA_NS
