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
// In halves: masked stores take a Zen core a dozen cycles, and counts hardly change from call to call.
AS_INLINE void store_some(float *p, Vec v, int count) {
    if (count >= 8) return store(p, v);
    __m128 rest = _mm256_castps256_ps128(v);
    if (count & 4) {
        _mm_storeu_ps(p, rest);
        rest = _mm256_extractf128_ps(v, 1);
        p += 4;
    }
    if (count & 2) {
        _mm_storel_pi(reinterpret_cast<__m64 *>(p), rest);
        rest = _mm_movehl_ps(rest, rest);
        p += 2;
    }
    if (count & 1) _mm_store_ss(p, rest);
}
AS_INLINE Vec first_lanes_of(Vec v, int count) {
    return _mm256_and_ps(v, _mm256_castsi256_ps(first_lanes(count)));
}
AS_INLINE Vec widen(__m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
AS_INLINE __m128i narrow(Vec v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
}
AS_INLINE Vec load(const Bf16 *p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))); }
AS_INLINE void store(Bf16 *p, Vec v) { _mm_storeu_si128(reinterpret_cast<__m128i *>(p), narrow(v)); }
AS_INLINE Vec load_some(const Bf16 *p, int count) {
    Bf16 lanes[8] = {};
    for (int i = 0; i < count; ++i) lanes[i] = p[i];
    return load(lanes);
}
AS_INLINE void store_some(Bf16 *p, Vec v, int count) {
    Bf16 lanes[8];
    store(lanes, v);
    for (int i = 0; i < count; ++i) p[i] = lanes[i];
}
AS_INLINE Vec broadcast(float x) { return _mm256_set1_ps(x); }
AS_INLINE Vec zero() { return _mm256_setzero_ps(); }
AS_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
AS_INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
AS_INLINE Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
AS_INLINE Vec max_or_nan(Vec a, Vec b) {
    return _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}
AS_INLINE Vec and_mask(Vec v, const int32_t *mask) {
    return _mm256_and_ps(v, _mm256_loadu_ps(reinterpret_cast<const float *>(mask)));
}
AS_INLINE float sum(Vec v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

// low, high = a[0], b[0], a[1], b[1], ..
AS_INLINE void zip(Vec a, Vec b, Vec &low, Vec &high) {
    const Vec even = _mm256_unpacklo_ps(a, b), odd = _mm256_unpackhi_ps(a, b);
    low = _mm256_permute2f128_ps(even, odd, 0x20);
    high = _mm256_permute2f128_ps(even, odd, 0x31);
}

// even, odd = every second element of low and high, from the first and from the second on
AS_INLINE void unzip(Vec low, Vec high, Vec &even, Vec &odd) {
    const __m256d evens = _mm256_castps_pd(_mm256_shuffle_ps(low, high, 0x88));
    const __m256d odds = _mm256_castps_pd(_mm256_shuffle_ps(low, high, 0xdd));
    even = _mm256_castpd_ps(_mm256_permute4x64_pd(evens, 0xd8));
    odd = _mm256_castpd_ps(_mm256_permute4x64_pd(odds, 0xd8));
}

// Four rows of four in either half, transposed.
AS_INLINE void transpose_halves(const Vec (&x)[4], Vec (&d)[4]) {
    const Vec a = _mm256_unpacklo_ps(x[0], x[1]), b = _mm256_unpackhi_ps(x[0], x[1]);
    const Vec c = _mm256_unpacklo_ps(x[2], x[3]), e = _mm256_unpackhi_ps(x[2], x[3]);
    d[0] = _mm256_shuffle_ps(a, c, 0x44);
    d[1] = _mm256_shuffle_ps(a, c, 0xee);
    d[2] = _mm256_shuffle_ps(b, e, 0x44);
    d[3] = _mm256_shuffle_ps(b, e, 0xee);
}

#define AS_ZIPS_BY_FOUR  // see cpu/vec.h; crossing halves is what costs
AS_INLINE void unzip_by_four(const Vec (&x)[4], Vec (&d)[4]) {
    const Vec rows[4] = {_mm256_permute2f128_ps(x[0], x[2], 0x20), _mm256_permute2f128_ps(x[0], x[2], 0x31),
                         _mm256_permute2f128_ps(x[1], x[3], 0x20),
                         _mm256_permute2f128_ps(x[1], x[3], 0x31)};
    transpose_halves(rows, d);
}
AS_INLINE void zip_by_four(const Vec (&d)[4], Vec (&x)[4]) {
    Vec rows[4];
    transpose_halves(d, rows);
    x[0] = _mm256_permute2f128_ps(rows[0], rows[1], 0x20);
    x[1] = _mm256_permute2f128_ps(rows[2], rows[3], 0x20);
    x[2] = _mm256_permute2f128_ps(rows[0], rows[1], 0x31);
    x[3] = _mm256_permute2f128_ps(rows[2], rows[3], 0x31);
}

// v[1], .. v[7], next[I]
template <int I>
AS_INLINE Vec shift_in(Vec v, Vec next) {
    const Vec first = I ? _mm256_permute_ps(next, I) : next;
    const __m256i behind = _mm256_castps_si256(_mm256_permute2f128_ps(v, first, 0x21));
    return _mm256_castsi256_ps(_mm256_alignr_epi8(behind, _mm256_castps_si256(v), 4));
}

// p[0], p[2], .. p[14]; reads p[15] too.
AS_INLINE Vec load_every_second(const float *p) {
    const Vec even = _mm256_shuffle_ps(load(p), load(p + 8), 0x88);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(even), 0xd8));
}

AS_INLINE Vec load_every_second(const Bf16 *p) {
    const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
}

AS_INLINE Vec dot_pairs(Vec a, Vec b, Vec acc) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000));
    const __m256i x = _mm256_castps_si256(a), y = _mm256_castps_si256(b);
    const Vec upper = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(x, high)),
                                      _mm256_castsi256_ps(_mm256_and_si256(y, high)), acc);
    return _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)),
                           _mm256_castsi256_ps(_mm256_slli_epi32(y, 16)), upper);
}

// Writes pairs (a[i], b[i]), of zeros for what is null; whole vectors of 32 pairs.
AS_INLINE void interleave(const Bf16 *a, const Bf16 *b, float *out, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += 32)
        for (ptrdiff_t j = i; j < i + 32; j += 8) {
            const __m128i x =
                a ? _mm_loadu_si128(reinterpret_cast<const __m128i *>(a + j)) : _mm_setzero_si128();
            const __m128i y =
                b ? _mm_loadu_si128(reinterpret_cast<const __m128i *>(b + j)) : _mm_setzero_si128();
            _mm_storeu_si128(reinterpret_cast<__m128i *>(out + j), _mm_unpacklo_epi16(x, y));
            _mm_storeu_si128(reinterpret_cast<__m128i *>(out + j + 4), _mm_unpackhi_epi16(x, y));
        }
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
