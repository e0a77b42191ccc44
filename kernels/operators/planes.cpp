// Compiled once per instruction set.
#include "operators/planes.h"

#include "autosparse.h"
#include "conv/dw.h"
#include "cpu/vec.h"
#include "operators/functions.h"
#include "operators/pooling.h"

namespace autosparse {
namespace AS_ISA_NS {
namespace {

template <class T>
const T *at(const void *plane, ptrdiff_t i = 0) {
    return static_cast<const T *>(plane) + i;
}
template <class T>
T *at(void *plane, ptrdiff_t i = 0) {
    return static_cast<T *>(plane) + i;
}

template <class T>
void copy_rows(const void *in, ptrdiff_t in_pitch, void *out, ptrdiff_t out_pitch, int rows, int columns) {
    if (in_pitch == columns && out_pitch == columns) {
        memcpy(out, in, static_cast<size_t>(rows) * static_cast<size_t>(columns) * sizeof(T));
        return;
    }
    for (int r = 0; r < rows; ++r)
        memcpy(at<T>(out, r * out_pitch), at<T>(in, r * in_pitch),
               static_cast<size_t>(columns) * sizeof(T));
}

template <class In, class Out>
void convert_row(const In *in, Out *out, int columns) {
    int j = 0;
    for (; j + kLanes <= columns; j += kLanes) store(out + j, load(in + j));
    if (j < columns) store_some(out + j, load_some(in + j, columns - j), columns - j);
}

template <class T>
void import_rows(const float *in, ptrdiff_t in_pitch, void *out, ptrdiff_t out_pitch, int rows,
                 int columns) {
    if constexpr (sizeof(T) == sizeof(float))
        return copy_rows<T>(in, in_pitch, out, out_pitch, rows, columns);
    for (int r = 0; r < rows; ++r) convert_row(in + r * in_pitch, at<T>(out, r * out_pitch), columns);
}

template <class T>
void export_rows(const void *in, ptrdiff_t in_pitch, float *out, ptrdiff_t out_pitch, int rows,
                 int columns) {
    if constexpr (sizeof(T) == sizeof(float))
        return copy_rows<T>(in, in_pitch, out, out_pitch, rows, columns);
    for (int r = 0; r < rows; ++r) convert_row(at<T>(in, r * in_pitch), out + r * out_pitch, columns);
}

// Rows are written in order, whole vectors, zero behind the last column: what spills into the next row is
// overwritten by it.
template <class Out, class Load>
void write_rows(Out *out, ptrdiff_t out_pitch, int rows, int columns, Load &&load_at) {
    const RowsAhead<Out> later(out_pitch, out + rows * out_pitch);
    for (int r = 0; r < rows; ++r, out += out_pitch) {
        later.ask(out);
        for (ptrdiff_t j = 0; j < out_pitch; j += kLanes) {
            const ptrdiff_t rest = columns - j;
            if (rest >= kLanes)
                store(out + j, load_at(r, j));
            else
                store(out + j, rest > 0 ? first_lanes_of(load_at(r, j), static_cast<int>(rest)) : zero());
        }
    }
}

template <class In, class Out>
void split(const In *in, ptrdiff_t in_pitch, Out *out, ptrdiff_t out_pitch, int rows, int columns,
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
                put(out + r * out_pitch + j,
                    j < columns ? to_float(in[r * in_pitch + static_cast<ptrdiff_t>(j) * step]) : 0.0f);
}

template <class T>
void split_rows(const void *in, ptrdiff_t in_pitch, void *out, ptrdiff_t out_pitch, int rows, int columns,
                int step) {
    split(at<T>(in), in_pitch, at<T>(out), out_pitch, rows, columns, step);
}

template <class T>
void split_rows_wide(const void *in, ptrdiff_t in_pitch, float *out, ptrdiff_t out_pitch, int rows,
                     int columns, int step) {
    split(at<T>(in), in_pitch, out, out_pitch, rows, columns, step);
}

template <class T>
void add(const void *a, const void *b, void *out, const int32_t *valid, ptrdiff_t count, float low,
         float high) {
    const Vec lo = broadcast(low), hi = broadcast(high);
    for (ptrdiff_t i = 0; i < count; i += kLanes) {
        const Vec total = load(at<T>(a, i)) + load(at<T>(b, i));
        store(at<T>(out, i), and_mask(min(hi, max(lo, total)), valid + i));
    }
}

template <class T>
void mul(const void *a, const void *b, void *out, const int32_t *valid, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += kLanes)
        store(at<T>(out, i), and_mask(load(at<T>(a, i)) * load(at<T>(b, i)), valid + i));
}

template <class T>
void affine(const void *a, float scale, float shift, void *out, const int32_t *valid, ptrdiff_t count) {
    const Vec s = broadcast(scale), t = broadcast(shift);
    for (ptrdiff_t i = 0; i < count; i += kLanes)
        store(at<T>(out, i), and_mask(fma(load(at<T>(a, i)), s, t), valid + i));
}

template <class T, Vec (*F)(Vec)>
void apply(T *data, const int32_t *valid, ptrdiff_t count) {
    ptrdiff_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(data + i, and_mask(F(load(data + i)), valid + i));
    if (i == count) return;
    // What lies behind may belong to another task.
    const int rest = static_cast<int>(count - i);
    store_some(data + i, and_mask(F(load_some(data + i, rest)), valid + i), rest);
}

template <class T>
void activate(void *plane, const int32_t *valid, ptrdiff_t count, int activation) {
    T *data = at<T>(plane);
    switch (activation) {
        case AS_ACT_RELU:
            return apply<T, relu>(data, valid, count);
        case AS_ACT_RELU6:
            return apply<T, relu6>(data, valid, count);
        case AS_ACT_SILU:
            return apply<T, silu>(data, valid, count);
        case AS_ACT_HARD_SWISH:
            return apply<T, hard_swish>(data, valid, count);
        case AS_ACT_HARD_SIGMOID:
            return apply<T, hard_sigmoid>(data, valid, count);
        case AS_ACT_SIGMOID:
            return apply<T, sigmoid>(data, valid, count);
        case AS_ACT_GELU:
            return apply<T, gelu>(data, valid, count);
        default:
            return;
    }
}

template <class T>
float sum_plane(const void *plane, const int32_t *valid, ptrdiff_t count) {
    const T *a = at<T>(plane);
    Vec first = zero(), second = zero();
    ptrdiff_t i = 0;
    for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
        first = first + and_mask(load(a + i), valid + i);
        second = second + and_mask(load(a + i + kLanes), valid + i + kLanes);
    }
    for (; i < count; i += kLanes) first = first + and_mask(load(a + i), valid + i);
    return sum(first + second);
}

template <class T>
void softmax(const void *in_planes, ptrdiff_t in_plane, void *out_planes, ptrdiff_t out_plane, int channels,
             const int32_t *valid, ptrdiff_t count) {
    const T *in = at<T>(in_planes);
    T *out = at<T>(out_planes);
    for (ptrdiff_t i = 0; i < count; i += kLanes) {
        Vec top = load(in + i);
        for (int c = 1; c < channels; ++c) top = max(load(in + c * in_plane + i), top);
        Vec total = zero();
        for (int c = 0; c < channels; ++c) total = total + exponential(load(in + c * in_plane + i) - top);
        const Vec scale = broadcast(1.0f) / total;
        for (int c = 0; c < channels; ++c) {
            const Vec e = exponential(load(in + c * in_plane + i) - top);
            store(out + c * out_plane + i, and_mask(e * scale, valid + i));
        }
    }
}

template <class T>
float get(const void *plane, ptrdiff_t i) {
    return to_float(*at<T>(plane, i));
}

template <class T>
void put_one(void *plane, ptrdiff_t i, float value) {
    put(at<T>(plane, i), value);
}

void interleave_planes(const void *a, const void *b, float *out, ptrdiff_t count) {
    interleave(a ? at<Bf16>(a) : nullptr, b ? at<Bf16>(b) : nullptr, out, count);
}

template <class T>
constexpr PlaneKernels table = {
    copy_rows<T>,  import_rows<T>,     export_rows<T>,
    split_rows<T>, split_rows_wide<T>, add<T>,
    mul<T>,        affine<T>,          activate<T>,
    depthwise<T>,  max_pool<T>,        avg_pool<T>,
    sum_plane<T>,  softmax<T>,         sizeof(T) == sizeof(Bf16) ? interleave_planes : nullptr,
    get<T>,        put_one<T>};

}  // namespace
const PlaneKernels &plane_kernels(int dtype);
const PlaneKernels &plane_kernels(int dtype) { return dtype == AS_BF16 ? table<Bf16> : table<float>; }

}  // namespace AS_ISA_NS
}  // namespace autosparse
