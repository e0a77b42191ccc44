// Everything but convolutions, on single planes: one table of functions per instruction set.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace autosparse {

// Pooling of one plane. Offsets in elements, from the origins.
struct PoolCall {
    const float *input;
    float *output;
    int32_t in_pitch, in_height, in_width;
    int32_t out_pitch, out_height, out_width;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    int32_t pad_top, pad_left, pad_bottom, pad_right;
    int32_t count_include_pad;
    float *scratch;  // pool_scratch() floats
};

// `count` is in flattened pixels from the origin and, but for activate, is rounded up to whole vectors;
// `valid` masks the result.
struct PlaneKernels {
    void (*copy_rows)(const float *in, ptrdiff_t in_pitch, float *out, ptrdiff_t out_pitch, int rows,
                      int columns);
    // out[r][j] = in[r * in_pitch + j * step], and zero for j in [columns, out_pitch). Writes up to a
    // vector beyond the last row and reads up to two beyond each.
    void (*split_rows)(const float *in, ptrdiff_t in_pitch, float *out, ptrdiff_t out_pitch, int rows,
                       int columns, int step);
    void (*add)(const float *a, const float *b, float *out, const int32_t *valid, ptrdiff_t count,
                float low, float high);
    void (*mul)(const float *a, const float *b, float *out, const int32_t *valid, ptrdiff_t count);
    void (*affine)(const float *a, float scale, float shift, float *out, const int32_t *valid,
                   ptrdiff_t count);
    void (*activate)(float *data, const int32_t *valid, ptrdiff_t count, int activation);
    void (*max_pool)(const PoolCall &call);
    void (*avg_pool)(const PoolCall &call);
    float (*sum)(const float *a, const int32_t *valid, ptrdiff_t count);
    // Over `channels` planes, pixel by pixel.
    void (*softmax)(const float *in, ptrdiff_t in_plane, float *out, ptrdiff_t out_plane, int channels,
                    const int32_t *valid, ptrdiff_t count);
};

const PlaneKernels &plane_kernels_generic();
const PlaneKernels &plane_kernels_avx2();
const PlaneKernels &plane_kernels_avx512();
const PlaneKernels &plane_kernels(int isa);

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
