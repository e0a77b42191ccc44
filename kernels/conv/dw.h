// Depthwise convolution of one plane: KxK, stride 1 or 2.
//
// With stride 1 every input row is loaded once, at K shifts, and goes into K output rows:
//
//     for vector of output columns, for input row i:
//         x[K] = load(row i + column + k)
//         sum of output row i - K + 1 is complete: += w[K-1] . x, store(clamp)
//         sums of the K - 1 output rows below it: += w[K-2] . x, ..
//         a new sum begins: bias + w[0] . x
//
// Padding is read from around the plane; only pixels of the image are stored.
#pragma once

#include "cpu/vec.h"
#include "operators/planes.h"

namespace autosparse::AS_ISA_NS {

template <int K>
AS_INLINE Vec dw_dot(const float *w, const Vec (&x)[K]) {
    Vec sum = broadcast(w[0]) * x[0];
#pragma GCC unroll 5
    for (int k = 1; k < K; ++k) sum = fma(broadcast(w[k]), x[k], sum);
    return sum;
}

template <class T>
AS_INLINE void dw_store(const DepthwiseCall &call, T *out, Vec sum, int count) {
    const Vec y = min(broadcast(call.high), max(broadcast(call.low), sum));
    if (count >= kLanes)
        store(out, y);
    else
        store_some(out, y, count);
}

template <class T, int K>
static void dw_stride_1(const DepthwiseCall &call) {
    const ptrdiff_t in_pitch = call.in_pitch, out_pitch = call.out_pitch;
    const Vec bias = broadcast(call.bias);
    for (int column = 0; column < call.out_width; column += kLanes) {
        const T *in = static_cast<const T *>(call.input) - call.pad_top * in_pitch - call.pad_left + column;
        T *out = static_cast<T *>(call.output) + column;
        Vec sums[K];
#pragma GCC unroll 5
        for (int k = 0; k < K; ++k) sums[k] = bias;
        for (int i = 0; i < call.out_height + K - 1; ++i, in += in_pitch) {
            Vec x[K];
#pragma GCC unroll 5
            for (int k = 0; k < K; ++k) x[k] = load(in + k);
#pragma GCC unroll 5
            for (int k = K - 1; k >= 0; --k)
                sums[k] = (k ? sums[k ? k - 1 : 0] : bias) + dw_dot<K>(call.weights + k * K, x);
            if (i < K - 1) continue;
            dw_store(call, out, sums[K - 1], call.out_width - column);
            out += out_pitch;
        }
    }
}

template <class T, int K>
static void dw_stride_2(const DepthwiseCall &call) {
    const ptrdiff_t in_pitch = call.in_pitch, out_pitch = call.out_pitch;
    for (int column = 0; column < call.out_width; column += kLanes) {
        const T *in =
            static_cast<const T *>(call.input) - call.pad_top * in_pitch - call.pad_left + 2 * column;
        T *out = static_cast<T *>(call.output) + column;
        for (int y = 0; y < call.out_height; ++y, in += 2 * in_pitch, out += out_pitch) {
            Vec sum = broadcast(call.bias);
#pragma GCC unroll 5
            for (int r = 0; r < K; ++r) {
                Vec x[K];
#pragma GCC unroll 5
                for (int k = 0; k < K; ++k) x[k] = load_every_second(in + r * in_pitch + k);
                sum = sum + dw_dot<K>(call.weights + r * K, x);
            }
            dw_store(call, out, sum, call.out_width - column);
        }
    }
}

template <class T>
static void depthwise(const DepthwiseCall &call) {
    if (call.kernel == 3)
        call.stride == 1 ? dw_stride_1<T, 3>(call) : dw_stride_2<T, 3>(call);
    else
        call.stride == 1 ? dw_stride_1<T, 5>(call) : dw_stride_2<T, 5>(call);
}

}  // namespace autosparse::AS_ISA_NS
