// AVX2 with FMA: 8 lanes, 16 registers. See cpu/vec.h.
#pragma once

#include <immintrin.h>

#define AS_INLINE static inline __attribute__((always_inline))

namespace autosparse::avx2 {

using Vec = __m256;
constexpr int kLanes = 8;
constexpr int kRegisters = 16;

AS_INLINE Vec load(const float *p) { return _mm256_loadu_ps(p); }
AS_INLINE void store(float *p, Vec v) { _mm256_storeu_ps(p, v); }
AS_INLINE __m256i first_lanes(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
}
AS_INLINE Vec load_some(const float *p, int count) { return _mm256_maskload_ps(p, first_lanes(count)); }
AS_INLINE void store_some(float *p, Vec v, int count) { _mm256_maskstore_ps(p, first_lanes(count), v); }
AS_INLINE Vec first_lanes_of(Vec v, int count) {
    return _mm256_and_ps(v, _mm256_castsi256_ps(first_lanes(count)));
}
AS_INLINE Vec broadcast(float x) { return _mm256_set1_ps(x); }
AS_INLINE Vec zero() { return _mm256_setzero_ps(); }
AS_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
AS_INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
AS_INLINE Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
AS_INLINE Vec and_mask(Vec v, const int32_t *mask) {
    return _mm256_and_ps(v, _mm256_loadu_ps(reinterpret_cast<const float *>(mask)));
}
AS_INLINE float sum(Vec v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

// p[0], p[2], .. p[14]; reads p[15] too.
AS_INLINE Vec load_every_second(const float *p) {
    const Vec even = _mm256_shuffle_ps(load(p), load(p + 8), 0x88);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(even), 0xd8));
}

// 2^n for integral n within the exponent's range.
AS_INLINE Vec power_of_two(Vec n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
AS_INLINE Vec round_nearest(Vec v) { return _mm256_round_ps(v, 0x08); }
AS_INLINE Vec absolute(Vec v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }
AS_INLINE Vec copy_sign(Vec magnitude, Vec sign) {
    const __m256 bit = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(bit, magnitude), _mm256_and_ps(bit, sign));
}

AS_INLINE void transpose(Vec row[8]) {
    Vec a[8], b[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        a[2 * i] = _mm256_unpacklo_ps(row[2 * i], row[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(row[2 * i], row[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {  // b[4i+j]: column 4k+j of rows 4i..4i+3 in 128-bit lane k
        b[4 * i + 0] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
        b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
        b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
        b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        row[j] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x20);
        row[4 + j] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x31);
    }
}

}  // namespace autosparse::avx2
