// Portable baseline: 4 lanes through the compiler's own vectors (SSE2, NEON, or scalar code). See
// cpu/vec.h.
#pragma once

#define AS_INLINE static inline __attribute__((always_inline))

namespace autosparse::generic {

typedef float Vec __attribute__((vector_size(16)));
typedef int32_t VecInt __attribute__((vector_size(16)));
constexpr int kLanes = 4;
#if defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

AS_INLINE Vec load(const float *p) {
    Vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
AS_INLINE void store(float *p, Vec v) { memcpy(p, &v, sizeof v); }
AS_INLINE Vec load_some(const float *p, int count) {
    Vec v = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int i = 0; i < count; ++i) v[i] = p[i];
    return v;
}
AS_INLINE void store_some(float *p, Vec v, int count) {
    for (int i = 0; i < count; ++i) p[i] = v[i];
}
AS_INLINE Vec first_lanes_of(Vec v, int count) {
    const VecInt keep = VecInt{0, 1, 2, 3} < count;
    return reinterpret_cast<Vec>(reinterpret_cast<VecInt>(v) & keep);
}
AS_INLINE Vec load(const Bf16 *p) {
    return Vec{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])};
}
AS_INLINE void store(Bf16 *p, Vec v) {
    for (int i = 0; i < kLanes; ++i) p[i] = to_bf16(v[i]);
}
AS_INLINE Vec load_some(const Bf16 *p, int count) {
    Vec v = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int i = 0; i < count; ++i) v[i] = to_float(p[i]);
    return v;
}
AS_INLINE void store_some(Bf16 *p, Vec v, int count) {
    for (int i = 0; i < count; ++i) p[i] = to_bf16(v[i]);
}
AS_INLINE Vec broadcast(float x) { return Vec{x, x, x, x}; }
AS_INLINE Vec zero() { return broadcast(0.0f); }
AS_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
AS_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
AS_INLINE Vec min(Vec a, Vec b) { return a < b ? a : b; }
AS_INLINE Vec max_or_nan(Vec a, Vec b) { return (a > b) | (a != a) ? a : b; }
AS_INLINE Vec and_mask(Vec v, const int32_t *mask) {
    VecInt m;
    memcpy(&m, mask, sizeof m);
    return reinterpret_cast<Vec>(reinterpret_cast<VecInt>(v) & m);
}
AS_INLINE float sum(Vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }

// low, high = a[0], b[0], a[1], b[1], ..
AS_INLINE void zip(Vec a, Vec b, Vec &low, Vec &high) {
    low = __builtin_shuffle(a, b, VecInt{0, 4, 1, 5});
    high = __builtin_shuffle(a, b, VecInt{2, 6, 3, 7});
}

// even, odd = every second element of low and high, from the first and from the second on
AS_INLINE void unzip(Vec low, Vec high, Vec &even, Vec &odd) {
    even = __builtin_shuffle(low, high, VecInt{0, 2, 4, 6});
    odd = __builtin_shuffle(low, high, VecInt{1, 3, 5, 7});
}

// v[1], v[2], v[3], next[I]
template <int I>
AS_INLINE Vec shift_in(Vec v, Vec next) {
    return __builtin_shuffle(v, next, VecInt{1, 2, 3, 4 + I});
}

// p[0], p[2], p[4], p[6]; reads p[7] too.
AS_INLINE Vec load_every_second(const float *p) {
    return __builtin_shuffle(load(p), load(p + 4), VecInt{0, 2, 4, 6});
}

AS_INLINE Vec load_every_second(const Bf16 *p) {
    return Vec{to_float(p[0]), to_float(p[2]), to_float(p[4]), to_float(p[6])};
}

AS_INLINE Vec dot_pairs(Vec a, Vec b, Vec acc) {
    const VecInt high = VecInt{0, 0, 0, 0} + static_cast<int32_t>(0xffff0000);
    const VecInt x = reinterpret_cast<VecInt>(a), y = reinterpret_cast<VecInt>(b);
    const Vec upper = fma(reinterpret_cast<Vec>(x & high), reinterpret_cast<Vec>(y & high), acc);
    return fma(reinterpret_cast<Vec>(x << 16), reinterpret_cast<Vec>(y << 16), upper);
}

// Writes pairs (a[i], b[i]), of zeros for what is null; whole vectors of 32 pairs.
AS_INLINE void interleave(const Bf16 *a, const Bf16 *b, float *out, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < (count + 31) / 32 * 32; ++i) {
        const uint32_t pair = (a ? a[i].bits : 0u) | (b ? static_cast<uint32_t>(b[i].bits) << 16 : 0u);
        memcpy(out + i, &pair, sizeof pair);
    }
}

// 2^n for integral n within the exponent's range.
AS_INLINE Vec power_of_two(Vec n) {
    const VecInt exponent = __builtin_convertvector(n, VecInt) + 127;
    return reinterpret_cast<Vec>(exponent << 23);
}
// Exact for magnitudes below 2^22: adding 1.5 * 2^23 leaves no fraction bits.
AS_INLINE Vec round_nearest(Vec v) {
    const Vec magic = broadcast(12582912.0f);
    Vec shifted = v + magic;
    __asm__ volatile("" : "+m"(shifted));  // keeps the compiler from cancelling the two additions
    return shifted - magic;
}
AS_INLINE Vec absolute(Vec v) { return reinterpret_cast<Vec>(reinterpret_cast<VecInt>(v) & 0x7fffffff); }
AS_INLINE Vec copy_sign(Vec magnitude, Vec sign) {
    const VecInt bit = reinterpret_cast<VecInt>(sign) & static_cast<int32_t>(0x80000000);
    return reinterpret_cast<Vec>(reinterpret_cast<VecInt>(absolute(magnitude)) | bit);
}

AS_INLINE void transpose(Vec row[4]) {
    const Vec a = __builtin_shuffle(row[0], row[1], VecInt{0, 4, 1, 5});
    const Vec b = __builtin_shuffle(row[0], row[1], VecInt{2, 6, 3, 7});
    const Vec c = __builtin_shuffle(row[2], row[3], VecInt{0, 4, 1, 5});
    const Vec d = __builtin_shuffle(row[2], row[3], VecInt{2, 6, 3, 7});
    row[0] = __builtin_shuffle(a, c, VecInt{0, 1, 4, 5});
    row[1] = __builtin_shuffle(a, c, VecInt{2, 3, 6, 7});
    row[2] = __builtin_shuffle(b, d, VecInt{0, 1, 4, 5});
    row[3] = __builtin_shuffle(b, d, VecInt{2, 3, 6, 7});
}

}  // namespace autosparse::generic
