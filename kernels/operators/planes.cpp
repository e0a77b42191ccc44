// Compiled once per instruction set.
#include "operators/planes.h"

#include "autosparse.h"
#include "cpu/vec.h"
#include "operators/functions.h"
#include "operators/pooling.h"

namespace autosparse {
namespace AS_ISA_NS {
namespace {

void copy_rows(const float *in, ptrdiff_t in_pitch, float *out, ptrdiff_t out_pitch, int rows,
               int columns) {
    if (in_pitch == columns && out_pitch == columns) {
        memcpy(out, in, static_cast<size_t>(rows) * static_cast<size_t>(columns) * sizeof(float));
        return;
    }
    for (int r = 0; r < rows; ++r)
        memcpy(out + r * out_pitch, in + r * in_pitch, static_cast<size_t>(columns) * sizeof(float));
}

// Rows are written in order, whole vectors, zero behind the last column: what spills into the next row is
// overwritten by it.
template <class Load>
void write_rows(float *out, ptrdiff_t out_pitch, int rows, int columns, Load &&load_at) {
    for (int r = 0; r < rows; ++r, out += out_pitch)
        for (ptrdiff_t j = 0; j < out_pitch; j += kLanes) {
            const ptrdiff_t rest = columns - j;
            if (rest >= kLanes)
                store(out + j, load_at(r, j));
            else
                store(out + j, rest > 0 ? first_lanes_of(load_at(r, j), static_cast<int>(rest)) : zero());
        }
}

void split_rows(const float *in, ptrdiff_t in_pitch, float *out, ptrdiff_t out_pitch, int rows, int columns,
                int step) {
    if (step == 1)
        write_rows(out, out_pitch, rows, columns,
                   [=](int r, ptrdiff_t j) { return load(in + r * in_pitch + j); });
    else if (step == 2)
        write_rows(out, out_pitch, rows, columns,
                   [=](int r, ptrdiff_t j) { return load_every_second(in + r * in_pitch + 2 * j); });
    else
        for (int r = 0; r < rows; ++r)
            for (int j = 0; j < out_pitch; ++j)
                out[r * out_pitch + j] =
                    j < columns ? in[r * in_pitch + static_cast<ptrdiff_t>(j) * step] : 0.0f;
}

void add(const float *a, const float *b, float *out, const int32_t *valid, ptrdiff_t count, float low,
         float high) {
    const Vec lo = broadcast(low), hi = broadcast(high);
    for (ptrdiff_t i = 0; i < count; i += kLanes)
        store(out + i, and_mask(min(hi, max(lo, load(a + i) + load(b + i))), valid + i));
}

void mul(const float *a, const float *b, float *out, const int32_t *valid, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += kLanes)
        store(out + i, and_mask(load(a + i) * load(b + i), valid + i));
}

void affine(const float *a, float scale, float shift, float *out, const int32_t *valid, ptrdiff_t count) {
    const Vec s = broadcast(scale), t = broadcast(shift);
    for (ptrdiff_t i = 0; i < count; i += kLanes)
        store(out + i, and_mask(fma(load(a + i), s, t), valid + i));
}

template <Vec (*F)(Vec)>
void apply(float *data, const int32_t *valid, ptrdiff_t count) {
    ptrdiff_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(data + i, and_mask(F(load(data + i)), valid + i));
    if (i == count) return;
    // What lies behind may belong to another task.
    const int rest = static_cast<int>(count - i);
    store_some(data + i, and_mask(F(load_some(data + i, rest)), valid + i), rest);
}

void activate(float *data, const int32_t *valid, ptrdiff_t count, int activation) {
    switch (activation) {
        case AS_ACT_RELU:
            return apply<relu>(data, valid, count);
        case AS_ACT_RELU6:
            return apply<relu6>(data, valid, count);
        case AS_ACT_SILU:
            return apply<silu>(data, valid, count);
        case AS_ACT_HARD_SWISH:
            return apply<hard_swish>(data, valid, count);
        case AS_ACT_HARD_SIGMOID:
            return apply<hard_sigmoid>(data, valid, count);
        case AS_ACT_SIGMOID:
            return apply<sigmoid>(data, valid, count);
        case AS_ACT_GELU:
            return apply<gelu>(data, valid, count);
        default:
            return;
    }
}

float sum_plane(const float *a, const int32_t *valid, ptrdiff_t count) {
    Vec first = zero(), second = zero();
    ptrdiff_t i = 0;
    for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
        first = first + and_mask(load(a + i), valid + i);
        second = second + and_mask(load(a + i + kLanes), valid + i + kLanes);
    }
    for (; i < count; i += kLanes) first = first + and_mask(load(a + i), valid + i);
    return sum(first + second);
}

void softmax(const float *in, ptrdiff_t in_plane, float *out, ptrdiff_t out_plane, int channels,
             const int32_t *valid, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += kLanes) {
        Vec top = load(in + i);
        for (int c = 1; c < channels; ++c) top = max(load(in + c * in_plane + i), top);
        Vec total = zero();
        for (int c = 0; c < channels; ++c) {
            const Vec e = exponential(load(in + c * in_plane + i) - top);
            total = total + e;
            store(out + c * out_plane + i, and_mask(e, valid + i));
        }
        const Vec scale = broadcast(1.0f) / total;
        for (int c = 0; c < channels; ++c) {
            float *p = out + c * out_plane + i;
            store(p, and_mask(load(p) * scale, valid + i));
        }
    }
}

constexpr PlaneKernels table = {copy_rows, split_rows, add,      mul,       affine,
                                activate,  max_pool,   avg_pool, sum_plane, softmax};

}  // namespace
}  // namespace AS_ISA_NS

#if defined(AS_COMPILE_AVX512)
const PlaneKernels &plane_kernels_avx512() { return avx512::table; }
#elif defined(AS_COMPILE_AVX2)
const PlaneKernels &plane_kernels_avx2() { return avx2::table; }
#else
const PlaneKernels &plane_kernels_generic() { return generic::table; }
#endif

}  // namespace autosparse
