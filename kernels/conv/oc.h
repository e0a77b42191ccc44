// Convolution with vectors along output channels.
//
// A tile is O vectors of outputs x P pixels of one output row, exact pixel counts, any padding, stride 1 or
// 2 along the row:
//
//     for tile of outputs, for output row, for block of P pixels:
//         acc[P][O] = bias
//         for c in kept channels, t in taps:
//             w[O] = load(weights[c][t])
//             acc[p][o] += w[o] * input[channel[c] + tap[t] + row + (x + p) * stride]     # broadcast
//         transpose to planes; output = clamp(acc + residual)
//
// A row is cut into equal blocks of at most P pixels. Only pixels of the image are stored.
#pragma once

#include "conv/arithmetic.h"
#include "conv/call.h"

namespace autosparse::AS_ISA_NS {

// Stores vectors of outputs (rows of `block`, one per pixel) as pixels of their planes.
template <class T>
AS_INLINE void oc_store(const ConvCall &call, Vec (&block)[kLanes], int first_row, ptrdiff_t pixel,
                        int count) {
    T *out = static_cast<T *>(call.output) + pixel;
    const T *residual = static_cast<const T *>(call.residual) + pixel;
    const Vec low = broadcast(call.low), high = broadcast(call.high);
    transpose(block);
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane) {
        const int row = first_row + lane;
        if (row >= call.rows) break;
        Vec y = block[lane];
        if (call.residual) y = y + load_some(residual + row * call.residual_plane, count);
        store_some(out + row * call.output_plane, min(high, max(low, y)), count);
    }
}

// acc += P inputs at one kernel position times the weights of O vectors of outputs.
template <class A, int O, int P, int S>
AS_INLINE void oc_position(Vec (&acc)[P][O], const float *x, const float *w) {
    Vec wv[O];
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) wv[o] = load(w + o * kLanes);
#pragma GCC unroll 32
    for (int p = 0; p < P; ++p) {
        const Vec xp = broadcast(x[p * S]);
#pragma GCC unroll 8
        for (int o = 0; o < O; ++o) acc[p][o] = A::mac(wv[o], xp, acc[p][o]);
    }
}

template <class A, int O, int P, int S>
static void oc_block(const ConvCall &call, int tile, ptrdiff_t input_pixel, ptrdiff_t output_pixel) {
    Vec acc[P][O];
#pragma GCC unroll 32
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
        for (int o = 0; o < O; ++o) acc[p][o] = load(call.bias + (tile * O + o) * kLanes);
    }
    const float *w = call.weights + static_cast<ptrdiff_t>(tile) * call.kept * call.tap_count * O * kLanes;
    const float *input = call.input + input_pixel;
    if (call.tap_count == 1) {
        input += call.taps[0];
        for (int c = 0; c < call.kept; ++c, w += O * kLanes) {
            prefetch_weights(w, O * kLanes);
            oc_position<A, O, P, S>(acc, input + call.channels[c], w);
        }
    } else {
        for (int c = 0; c < call.kept; ++c) {
            const float *plane = input + call.channels[c];
            prefetch_weights(w, call.tap_count * O * kLanes);
            for (int t = 0; t < call.tap_count; ++t, w += O * kLanes)
                oc_position<A, O, P, S>(acc, plane + call.taps[t], w);
        }
    }
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
#pragma GCC unroll 8
        for (int start = 0; start < P; start += kLanes) {
            Vec block[kLanes];
#pragma GCC unroll 16
            for (int lane = 0; lane < kLanes; ++lane)
                block[lane] = start + lane < P ? acc[start + lane < P ? start + lane : 0][o] : zero();
            const int row = (tile * O + o) * kLanes, count = P - start < kLanes ? P - start : kLanes;
            if (call.output_dtype == AS_BF16)
                oc_store<Bf16>(call, block, row, output_pixel + start, count);
            else
                oc_store<float>(call, block, row, output_pixel + start, count);
        }
    }
}

template <class A, int O, int P, int S>
static void oc_pixels(const ConvCall &call, int tile, ptrdiff_t input_pixel, ptrdiff_t output_pixel,
                      int count) {
    if constexpr (P > 0) {
        if (count == P)
            oc_block<A, O, P, S>(call, tile, input_pixel, output_pixel);
        else
            oc_pixels<A, O, P - 1, S>(call, tile, input_pixel, output_pixel, count);
    }
}

template <class A, int O, int P, int S>
static void oc_rows(const ConvCall &call, int tile) {
    const int blocks = (call.width + P - 1) / P;
    for (int row = call.first; row < call.last; ++row) {
        int x = 0;
        for (int block = 0; block < blocks; ++block) {
            const int count = (call.width - x + blocks - block - 1) / (blocks - block);
            oc_pixels<A, O, P, S>(call, tile, row * call.input_row + x * S, row * call.output_row + x,
                                  count);
            x += count;
        }
    }
}

template <class A, int O, int P>
static void oc(const ConvCall &call) {
    for (int tile = 0; tile < call.tiles; ++tile) {
        if (call.stride_w == 2)
            oc_rows<A, O, P, 2>(call, tile);
        else
            oc_rows<A, O, P, 1>(call, tile);
    }
}

}  // namespace autosparse::AS_ISA_NS
