// Everything but convolutions, on single planes: one table of functions per instruction set and type.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace autosparse {

// Pooling of one plane. Offsets in elements, from the origins.
struct PoolCall {
    const void *input;
    void *output;
    int32_t in_pitch, in_height, in_width;
    int32_t out_pitch, out_height, out_width;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    int32_t pad_top, pad_left, pad_bottom, pad_right;
    int32_t count_include_pad;
    int32_t first_row, last_row;  // of the output
    float *scratch;               // pool_scratch() floats
};

// Depthwise convolution of one plane (conv/dw.h). Offsets in elements, from the origins.
struct DepthwiseCall {
    const void *input;
    void *output;
    int32_t in_pitch, out_pitch, out_height, out_width;
    int32_t kernel, stride;  // 3 or 5; 1 or 2
    int32_t pad_top, pad_left;
    const float *weights;  // [kernel][kernel]
    float bias, low, high;
};

// Planes are of the table's type, arithmetic is float. `count` is in flattened pixels from the origin and,
// but for activate, is rounded up to whole vectors; `valid` masks the result. Pitches are in elements.
struct PlaneKernels {
    void (*copy_rows)(const void *in, ptrdiff_t in_pitch, void *out, ptrdiff_t out_pitch, int rows,
                      int columns);
    // The same from and to floats, at the program's borders.
    void (*import_rows)(const float *in, ptrdiff_t in_pitch, void *out, ptrdiff_t out_pitch, int rows,
                        int columns);
    void (*export_rows)(const void *in, ptrdiff_t in_pitch, float *out, ptrdiff_t out_pitch, int rows,
                        int columns);
    // out[r][j] = in[r * in_pitch + j * step], and zero for j in [columns, out_pitch). Writes up to a
    // vector beyond the last row and reads up to two beyond each.
    void (*split_rows)(const void *in, ptrdiff_t in_pitch, void *out, ptrdiff_t out_pitch, int rows,
                       int columns, int step);
    // The same, to floats.
    void (*split_rows_wide)(const void *in, ptrdiff_t in_pitch, float *out, ptrdiff_t out_pitch, int rows,
                            int columns, int step);
    void (*add)(const void *a, const void *b, void *out, const int32_t *valid, ptrdiff_t count, float low,
                float high);
    void (*mul)(const void *a, const void *b, void *out, const int32_t *valid, ptrdiff_t count);
    void (*affine)(const void *a, float scale, float shift, void *out, const int32_t *valid,
                   ptrdiff_t count);
    void (*activate)(void *data, const int32_t *valid, ptrdiff_t count, int activation);
    void (*depthwise)(const DepthwiseCall &call);
    void (*max_pool)(const PoolCall &call);
    void (*avg_pool)(const PoolCall &call);
    float (*sum)(const void *a, const int32_t *valid, ptrdiff_t count);
    // Over `channels` planes, pixel by pixel.
    void (*softmax)(const void *in, ptrdiff_t in_plane, void *out, ptrdiff_t out_plane, int channels,
                    const int32_t *valid, ptrdiff_t count);
    // Pairs (a[i], b[i]) of bf16 for a panel (conv/panel.h), zeros for what is null, in whole runs of 32;
    // null in tables of floats.
    void (*interleave)(const void *a, const void *b, float *out, ptrdiff_t count);
    // One element.
    float (*get)(const void *plane, ptrdiff_t i);
    void (*put)(void *plane, ptrdiff_t i, float value);
};

// By level, or the nearest that it extends and that has its own, and as_dtype.
const PlaneKernels &plane_kernels(int isa, int dtype);

// Floats of the line that one output row of pooling is reduced from: as far as any window or whole vector
// of outputs reaches, and at least over the image.
inline ptrdiff_t pool_line(const PoolCall &call) {
    const ptrdiff_t outputs = (call.out_width + 15) / 16 * 16;
    const ptrdiff_t windows =
        outputs * call.stride_w + static_cast<ptrdiff_t>(call.kernel_w) * call.dilation_w;
    const ptrdiff_t image = static_cast<ptrdiff_t>(call.pad_left) + call.in_width;
    return (windows > image ? windows : image) + 32;
}

// Floats of scratch that one call needs: two lines, and one divisor per output.
inline ptrdiff_t pool_scratch(const PoolCall &call) {
    return 2 * pool_line(call) + (call.out_width + 15) / 16 * 16;
}

}  // namespace autosparse
