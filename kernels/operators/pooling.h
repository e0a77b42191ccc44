// Pooling of one plane: reduce the rows of a window into one line, then reduce along the line.
#pragma once

#include <math.h>

#include "cpu/vec.h"
#include "operators/planes.h"

namespace autosparse::AS_ISA_NS {

struct MaxOf {
    static float identity() { return -INFINITY; }
    AS_INLINE Vec join(Vec a, Vec b) { return max(a, b); }
};

struct SumOf {
    static float identity() { return 0.0f; }
    AS_INLINE Vec join(Vec a, Vec b) { return a + b; }
};

// line[pad_left + x] = reduction over the window's rows at column x; identity in the padding.
template <class Reduction>
static void reduce_rows(const PoolCall &call, int out_row, float *line, ptrdiff_t line_floats) {
    for (ptrdiff_t i = 0; i < line_floats; ++i) line[i] = Reduction::identity();
    for (int k = 0; k < call.kernel_h; ++k) {
        const int y = out_row * call.stride_h - call.pad_top + k * call.dilation_h;
        if (y < 0 || y >= call.in_height) continue;
        const float *row = call.input + static_cast<ptrdiff_t>(y) * call.in_pitch;
        float *to = line + call.pad_left;
        int x = 0;
        for (; x + kLanes <= call.in_width; x += kLanes)
            store(to + x, Reduction::join(load(row + x), load(to + x)));
        if (x < call.in_width) {
            const int rest = call.in_width - x;
            store_some(to + x, Reduction::join(load_some(row + x, rest), load_some(to + x, rest)), rest);
        }
    }
}

AS_INLINE Vec load_strided(const float *p, int stride) {
    if (stride == 1) return load(p);
    if (stride == 2) return load_every_second(p);
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = p[static_cast<ptrdiff_t>(i) * stride];
    return load(lanes);
}

template <class Reduction>
static void reduce_line(const PoolCall &call, const float *line, const float *scale, float *out) {
    for (int x = 0; x < call.out_width; x += kLanes) {
        Vec y = broadcast(Reduction::identity());
        for (int k = 0; k < call.kernel_w; ++k)
            y = Reduction::join(
                load_strided(line + static_cast<ptrdiff_t>(x) * call.stride_w + k * call.dilation_w, call.stride_w), y);
        if (scale) y = y * load(scale + x);
        const int rest = call.out_width - x;
        store_some(out + x, y, rest < kLanes ? rest : kLanes);
    }
}

// Positions of a window along one axis that count in an average.
AS_INLINE int window_count(int out, int stride, int pad_before, int pad_after, int kernel, int size, bool include_pad) {
    int begin = out * stride - pad_before;
    int end = begin + kernel;
    if (end > size + pad_after) end = size + pad_after;
    if (!include_pad) {
        if (begin < 0) begin = 0;
        if (end > size) end = size;
    }
    return end > begin ? end - begin : 1;
}

static void max_pool(const PoolCall &call) {
    for (int y = 0; y < call.out_height; ++y) {
        reduce_rows<MaxOf>(call, y, call.scratch, pool_line(call));
        reduce_line<MaxOf>(call, call.scratch, nullptr, call.output + static_cast<ptrdiff_t>(y) * call.out_pitch);
    }
}

static void avg_pool(const PoolCall &call) {
    float *scale = call.scratch + pool_line(call);
    for (int y = 0; y < call.out_height; ++y) {
        const int rows = window_count(y, call.stride_h, call.pad_top, call.pad_bottom, call.kernel_h, call.in_height,
                                      call.count_include_pad);
        for (int x = 0; x < call.out_width; ++x)
            scale[x] = 1.0f / static_cast<float>(rows * window_count(x, call.stride_w, call.pad_left, call.pad_right,
                                                                     call.kernel_w, call.in_width,
                                                                     call.count_include_pad));
        reduce_rows<SumOf>(call, y, call.scratch, pool_line(call));
        reduce_line<SumOf>(call, call.scratch, scale, call.output + static_cast<ptrdiff_t>(y) * call.out_pitch);
    }
}

}  // namespace autosparse::AS_ISA_NS
