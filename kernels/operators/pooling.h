// Pooling of one plane: reduce the rows of a window into one line, then reduce along the line.
#pragma once

#include <math.h>

#include "cpu/vec.h"
#include "operators/planes.h"

namespace autosparse::AS_ISA_NS {

struct MaxOf {
    static float identity() { return -INFINITY; }
    AS_INLINE Vec join(Vec a, Vec b) { return max_or_nan(a, b); }
};

struct SumOf {
    static float identity() { return 0.0f; }
    AS_INLINE Vec join(Vec a, Vec b) { return a + b; }
};

// The identity where a line lies beyond the image; rows never write there.
template <class Reduction>
static void pad_line(const PoolCall &call, float *line) {
    const ptrdiff_t length = pool_line(call);
    for (ptrdiff_t i = 0; i < call.pad_left; ++i) line[i] = Reduction::identity();
    for (ptrdiff_t i = call.pad_left + call.in_width; i < length; ++i) line[i] = Reduction::identity();
}

// to[x] = reduction over `count` rows at column x. Small windows have a loop of their own: `kCount` rows, 0
// for any.
template <class T, class Reduction, int kCount>
static void join_rows(const T *rows, ptrdiff_t step, int count, int width, float *to) {
    const int rows_joined = kCount ? kCount : count;
    for (int x = 0; x < width; x += kLanes) {
        const int rest = width - x < kLanes ? width - x : kLanes;
        Vec y = broadcast(Reduction::identity());
#pragma GCC unroll 4
        for (int k = 0; k < rows_joined; ++k) y = Reduction::join(load(rows + k * step + x), y);
        if (rest == kLanes)
            store(to + x, y);
        else
            store_some(to + x, y, rest);
    }
}

// line[pad_left + x] = reduction over the window's rows at column x.
template <class T, class Reduction>
static void reduce_rows(const PoolCall &call, int out_row, float *line) {
    const int top = out_row * call.stride_h - call.pad_top;
    int first = 0, last = call.kernel_h;  // window rows inside the image
    while (first < last && top + first * call.dilation_h < 0) ++first;
    while (first < last && top + (last - 1) * call.dilation_h >= call.in_height) --last;
    const ptrdiff_t step = static_cast<ptrdiff_t>(call.dilation_h) * call.in_pitch;
    const T *rows = static_cast<const T *>(call.input) +
                    static_cast<ptrdiff_t>(top + first * call.dilation_h) * call.in_pitch;
    float *to = line + call.pad_left;
    if (last - first == 3)
        join_rows<T, Reduction, 3>(rows, step, 3, call.in_width, to);
    else if (last - first == 2)
        join_rows<T, Reduction, 2>(rows, step, 2, call.in_width, to);
    else
        join_rows<T, Reduction, 0>(rows, step, last - first, call.in_width, to);
}

AS_INLINE Vec load_strided(const float *p, int stride) {
    if (stride == 1) return load(p);
    if (stride == 2) return load_every_second(p);
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = p[static_cast<ptrdiff_t>(i) * stride];
    return load(lanes);
}

// `kWidth` columns `kStride` apart, 0 for any.
template <class T, class Reduction, int kWidth, int kStride>
static void join_columns(const PoolCall &call, const float *line, const float *scale, T *out) {
    const int width = kWidth ? kWidth : call.kernel_w, stride = kStride ? kStride : call.stride_w;
    for (int x = 0; x < call.out_width; x += kLanes) {
        Vec y = broadcast(Reduction::identity());
#pragma GCC unroll 4
        for (int k = 0; k < width; ++k)
            y = Reduction::join(
                load_strided(line + static_cast<ptrdiff_t>(x) * stride + k * call.dilation_w, stride), y);
        if (scale) y = y * load(scale + x);
        const int rest = call.out_width - x;
        if (rest >= kLanes)
            store(out + x, y);
        else
            store_some(out + x, y, rest);
    }
}

template <class T, class Reduction>
static void reduce_line(const PoolCall &call, const float *line, const float *scale, T *out) {
    if (call.kernel_w == 3 && call.stride_w == 2)
        join_columns<T, Reduction, 3, 2>(call, line, scale, out);
    else if (call.kernel_w == 2 && call.stride_w == 2)
        join_columns<T, Reduction, 2, 2>(call, line, scale, out);
    else
        join_columns<T, Reduction, 0, 0>(call, line, scale, out);
}

// Positions of a window along one axis that count in an average.
AS_INLINE int window_count(int out, int stride, int pad_before, int pad_after, int kernel, int size,
                           bool include_pad) {
    int begin = out * stride - pad_before;
    int end = begin + kernel;
    if (end > size + pad_after) end = size + pad_after;
    if (!include_pad) {
        if (begin < 0) begin = 0;
        if (end > size) end = size;
    }
    return end > begin ? end - begin : 1;
}

// A line is read one row after it was written: whole vectors at new offsets cannot be forwarded from the
// store queue, and waiting for it costs more than the reduction.
template <class T, class Reduction, class Scale>
static void pool(const PoolCall &call, Scale &&scale) {
    float *lines[2] = {call.scratch, call.scratch + pool_line(call)};
    for (float *line : lines) pad_line<Reduction>(call, line);
    T *const output = static_cast<T *>(call.output);
    const RowsAhead<T> later(call.out_pitch, output + call.last_row * call.out_pitch);
    for (int y = call.first_row; y <= call.last_row; ++y) {
        later.ask(output + y * call.out_pitch);
        if (y < call.last_row) reduce_rows<T, Reduction>(call, y, lines[y & 1]);
        if (y > call.first_row)
            reduce_line<T, Reduction>(
                call, lines[(y - 1) & 1], scale(y - 1),
                static_cast<T *>(call.output) + static_cast<ptrdiff_t>(y - 1) * call.out_pitch);
    }
}

template <class T>
static void max_pool(const PoolCall &call) {
    pool<T, MaxOf>(call, [](int) -> const float * { return nullptr; });
}

template <class T>
static void avg_pool(const PoolCall &call) {
    float *scale = call.scratch + 2 * pool_line(call);
    pool<T, SumOf>(call, [&](int y) -> const float * {
        const int rows = window_count(y, call.stride_h, call.pad_top, call.pad_bottom, call.kernel_h,
                                      call.in_height, call.count_include_pad);
        for (int x = 0; x < call.out_width; ++x)
            scale[x] =
                1.0f / static_cast<float>(rows * window_count(x, call.stride_w, call.pad_left,
                                                              call.pad_right, call.kernel_w, call.in_width,
                                                              call.count_include_pad));
        return scale;
    });
}

}  // namespace autosparse::AS_ISA_NS
