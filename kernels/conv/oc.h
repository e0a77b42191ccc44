// Convolution with vectors along output channels.
//
// A tile is O vectors of outputs x P pixels of one output row, exact pixel counts, any padding, stride 1 or 2
// along the row:
//
//     for output row, for block of P pixels:
//         acc[P][O] = bias
//         for c in kept channels, t in taps:
//             w[O] = load(weights[c][t])
//             acc[p][o] += w[o] * input[channel[c] + tap[t] + row + (x + p) * stride]     # broadcast
//         transpose to planes; output = clamp(acc + residual)
//
// A row is cut into equal blocks of at most P pixels. Only pixels of the image are stored.
#pragma once

#include "conv/call.h"
#include "cpu/vec.h"

namespace autosparse::AS_ISA_NS {

// Stores vectors of outputs (rows of `tile`, one per pixel) as pixels of their planes.
AS_INLINE void oc_store(const ConvCall &call, Vec (&tile)[kLanes], int first_row, ptrdiff_t pixel, int count) {
    const Vec low = broadcast(call.low), high = broadcast(call.high);
    transpose(tile);
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane) {
        const int row = first_row + lane;
        if (row >= call.rows) break;
        Vec y = tile[lane];
        if (call.residual) y = y + load_some(call.residual + row * call.residual_plane + pixel, count);
        store_some(call.output + row * call.output_plane + pixel, min(high, max(low, y)), count);
    }
}

template <int O, int P, int S>
static void oc_block(const ConvCall &call, ptrdiff_t input_pixel, ptrdiff_t output_pixel) {
    Vec acc[P][O];
#pragma GCC unroll 32
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
        for (int o = 0; o < O; ++o) acc[p][o] = load(call.bias + o * kLanes);
    }
    const float *w = call.weights;
    const float *input = call.input + input_pixel;
    for (int c = 0; c < call.kept; ++c) {
        const float *plane = input + call.channels[c];
        for (int t = 0; t < call.tap_count; ++t) {
            const float *x = plane + call.taps[t];
            Vec wv[O];
#pragma GCC unroll 8
            for (int o = 0; o < O; ++o) wv[o] = load(w + o * kLanes);
#pragma GCC unroll 32
            for (int p = 0; p < P; ++p) {
                const Vec xp = broadcast(x[p * S]);
#pragma GCC unroll 8
                for (int o = 0; o < O; ++o) acc[p][o] = fma(wv[o], xp, acc[p][o]);
            }
            w += O * kLanes;
        }
    }
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
#pragma GCC unroll 8
        for (int start = 0; start < P; start += kLanes) {
            Vec tile[kLanes];
#pragma GCC unroll 16
            for (int lane = 0; lane < kLanes; ++lane)
                tile[lane] = start + lane < P ? acc[start + lane < P ? start + lane : 0][o] : zero();
            oc_store(call, tile, o * kLanes, output_pixel + start, P - start < kLanes ? P - start : kLanes);
        }
    }
}

template <int O, int P, int S>
static void oc_pixels(const ConvCall &call, ptrdiff_t input_pixel, ptrdiff_t output_pixel, int count) {
    if constexpr (P > 0) {
        if (count == P)
            oc_block<O, P, S>(call, input_pixel, output_pixel);
        else
            oc_pixels<O, P - 1, S>(call, input_pixel, output_pixel, count);
    }
}

template <int O, int P, int S>
static void oc_rows(const ConvCall &call) {
    const int blocks = (call.width + P - 1) / P;
    for (int row = call.first; row < call.last; ++row) {
        int x = 0;
        for (int block = 0; block < blocks; ++block) {
            const int count = (call.width - x + blocks - block - 1) / (blocks - block);
            oc_pixels<O, P, S>(call, row * call.input_row + x * S, row * call.output_row + x, count);
            x += count;
        }
    }
}

template <int O, int P>
static void oc(const ConvCall &call) {
    if (call.stride_w == 2)
        oc_rows<O, P, 2>(call);
    else
        oc_rows<O, P, 1>(call);
}

}  // namespace autosparse::AS_ISA_NS
