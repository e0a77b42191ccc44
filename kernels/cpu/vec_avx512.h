// AVX-512 F+BW+VL+DQ, with AVX512-BF16 where it is compiled for that: 16 lanes, 32 registers. See
// cpu/vec.h.
#pragma once

#include <immintrin.h>

#define AS_INLINE static inline __attribute__((always_inline))

namespace autosparse::AS_ISA_NS {

using Vec = __m512;
constexpr int kLanes = 16;
constexpr int kRegisters = 32;

AS_INLINE Vec load(const float *p) { return _mm512_loadu_ps(p); }
AS_INLINE void store(float *p, Vec v) { _mm512_storeu_ps(p, v); }
AS_INLINE __mmask16 first_lanes(int count) { return static_cast<__mmask16>((1u << count) - 1u); }
AS_INLINE Vec load_some(const float *p, int count) { return _mm512_maskz_loadu_ps(first_lanes(count), p); }
AS_INLINE void store_some(float *p, Vec v, int count) { _mm512_mask_storeu_ps(p, first_lanes(count), v); }
AS_INLINE Vec first_lanes_of(Vec v, int count) { return _mm512_maskz_mov_ps(first_lanes(count), v); }
AS_INLINE Vec widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
AS_INLINE __m256i narrow(Vec v) {
#if defined(__AVX512BF16__)
    return (__m256i)_mm512_cvtneps_pbh(v);
#else
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
#endif
}
AS_INLINE Vec load(const Bf16 *p) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}
AS_INLINE void store(Bf16 *p, Vec v) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), narrow(v)); }
AS_INLINE Vec load_some(const Bf16 *p, int count) {
    return widen(_mm256_maskz_loadu_epi16(first_lanes(count), p));
}
AS_INLINE void store_some(Bf16 *p, Vec v, int count) {
    _mm256_mask_storeu_epi16(p, first_lanes(count), narrow(v));
}
AS_INLINE Vec broadcast(float x) { return _mm512_set1_ps(x); }
AS_INLINE Vec zero() { return _mm512_setzero_ps(); }
AS_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
AS_INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
AS_INLINE Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
AS_INLINE Vec max_or_nan(Vec a, Vec b) {
    return _mm512_mask_mov_ps(_mm512_max_ps(a, b), _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), a);
}
AS_INLINE Vec and_mask(Vec v, const int32_t *mask) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(v), _mm512_loadu_si512(mask)));
}
AS_INLINE float sum(Vec v) { return _mm512_reduce_add_ps(v); }

// low, high = a[0], b[0], a[1], b[1], ..
AS_INLINE void zip(Vec a, Vec b, Vec &low, Vec &high) {
    const __m512i first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i second = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
    low = _mm512_permutex2var_ps(a, first, b);
    high = _mm512_permutex2var_ps(a, second, b);
}

// even, odd = every second element of low and high, from the first and from the second on
AS_INLINE void unzip(Vec low, Vec high, Vec &even, Vec &odd) {
    const __m512i first = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(1));
    even = _mm512_permutex2var_ps(low, first, high);
    odd = _mm512_permutex2var_ps(low, second, high);
}

// v[1], .. v[15], next[I]
template <int I>
AS_INLINE Vec shift_in(Vec v, Vec next) {
    const __m512i order = _mm512_set_epi32(16 + I, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1);
    return _mm512_permutex2var_ps(v, order, next);
}

// Vectors of four quarters, which can change places.
#define AS_QUARTERS

// v[order[0]], v[order[1]], ..
AS_INLINE Vec permute(Vec v, const int32_t (&order)[16]) {
    return _mm512_permutexvar_ps(_mm512_loadu_si512(order), v);
}

// Quarter i of q[j] becomes quarter j of q[i].
AS_INLINE void transpose_quarters(Vec (&q)[4]) {
    const Vec low01 = _mm512_shuffle_f32x4(q[0], q[1], 0x44),
              high01 = _mm512_shuffle_f32x4(q[0], q[1], 0xee);
    const Vec low23 = _mm512_shuffle_f32x4(q[2], q[3], 0x44),
              high23 = _mm512_shuffle_f32x4(q[2], q[3], 0xee);
    q[0] = _mm512_shuffle_f32x4(low01, low23, 0x88);
    q[1] = _mm512_shuffle_f32x4(low01, low23, 0xdd);
    q[2] = _mm512_shuffle_f32x4(high01, high23, 0x88);
    q[3] = _mm512_shuffle_f32x4(high01, high23, 0xdd);
}

// The upper half, twice.
AS_INLINE Vec upper_half(Vec v) { return _mm512_shuffle_f32x4(v, v, 0xee); }

// p[0], p[2], .. p[30]; reads p[31] too.
AS_INLINE Vec load_every_second(const float *p) {
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    return _mm512_permutex2var_ps(load(p), even, load(p + 16));
}

AS_INLINE Vec load_every_second(const Bf16 *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}

AS_INLINE Vec dot_pairs(Vec a, Vec b, Vec acc) {
#if defined(__AVX512BF16__)
    return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
#else
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000));
    const __m512i x = _mm512_castps_si512(a), y = _mm512_castps_si512(b);
    const Vec upper = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, high)),
                                      _mm512_castsi512_ps(_mm512_and_si512(y, high)), acc);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
                           _mm512_castsi512_ps(_mm512_slli_epi32(y, 16)), upper);
#endif
}

// Writes pairs (a[i], b[i]), of zeros for what is null; whole vectors of 32 pairs.
AS_INLINE void interleave(const Bf16 *a, const Bf16 *b, float *out, ptrdiff_t count) {
    alignas(64) static const uint16_t kLow[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                  37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                  11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i low = _mm512_load_si512(kLow), high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (ptrdiff_t i = 0; i < count; i += 32) {
        const __m512i x = a ? _mm512_loadu_si512(a + i) : _mm512_setzero_si512();
        const __m512i y = b ? _mm512_loadu_si512(b + i) : _mm512_setzero_si512();
        _mm512_storeu_si512(out + i, _mm512_permutex2var_epi16(x, low, y));
        _mm512_storeu_si512(out + i + 16, _mm512_permutex2var_epi16(x, high, y));
    }
}

// 2^n for integral n within the exponent's range.
AS_INLINE Vec power_of_two(Vec n) { return _mm512_scalef_ps(_mm512_set1_ps(1.0f), n); }
AS_INLINE Vec round_nearest(Vec v) { return _mm512_roundscale_ps(v, 0x08); }
AS_INLINE Vec absolute(Vec v) { return _mm512_abs_ps(v); }
AS_INLINE Vec copy_sign(Vec magnitude, Vec sign) {
    const __m512 bit = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(bit, magnitude), _mm512_and_ps(bit, sign));
}

AS_INLINE void transpose(Vec row[16]) {
    Vec a[16], b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        a[2 * i] = _mm512_unpacklo_ps(row[2 * i], row[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_ps(row[2 * i], row[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {  // b[4i+j]: column 4k+j of rows 4i..4i+3 in 128-bit lane k
        const __m512d p = _mm512_castps_pd(a[4 * i]), q = _mm512_castps_pd(a[4 * i + 1]);
        const __m512d r = _mm512_castps_pd(a[4 * i + 2]), s = _mm512_castps_pd(a[4 * i + 3]);
        b[4 * i + 0] = _mm512_castpd_ps(_mm512_unpacklo_pd(p, r));
        b[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(p, r));
        b[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(q, s));
        b[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(q, s));
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const Vec low02 = _mm512_shuffle_f32x4(b[j], b[4 + j], 0x88);
        const Vec low13 = _mm512_shuffle_f32x4(b[j], b[4 + j], 0xdd);
        const Vec high02 = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0x88);
        const Vec high13 = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0xdd);
        row[j] = _mm512_shuffle_f32x4(low02, high02, 0x88);
        row[8 + j] = _mm512_shuffle_f32x4(low02, high02, 0xdd);
        row[4 + j] = _mm512_shuffle_f32x4(low13, high13, 0x88);
        row[12 + j] = _mm512_shuffle_f32x4(low13, high13, 0xdd);
    }
}

}  // namespace autosparse::AS_ISA_NS
