// Convolution with vectors along output pixels.
//
// Both tensors have the same row pitch, so that kernel position t is a constant shift in flattened pixel
// space. A tile is R outputs x V vectors:
//
//     for block of V vectors:                              # pixels
//         for tile of R outputs:                           # find the block's inputs in the first-level
//         cache
//             acc[R][V] = bias
//             for c in kept channels:                      # one index per block of the pattern
//                 for t in taps:                           # implied, never stored
//                     x[V]   = load(input + channel[c] + tap[t] + pixel)
//                     acc[r][v] += weights[tile][c][t][r] * x[v]
//             output = clamp(acc + residual), zero where the pixel is padding
//
// Loads reach at most one vector beyond the last pixel plus padding, which may be another plane's data;
// such lanes are never stored other than as zero. Stores reach to the end of the last vector: planes have
// room.
#pragma once

#include "conv/arithmetic.h"
#include "conv/call.h"

namespace autosparse::AS_ISA_NS {

template <class T, int R, int V>
AS_INLINE void px_store(const ConvCall &call, int first_row, Vec (&acc)[R][V], ptrdiff_t pixel) {
    const Vec low = broadcast(call.low), high = broadcast(call.high);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
        const ptrdiff_t row = first_row + r;
        if (row >= call.rows) break;
        T *out = static_cast<T *>(call.output) + row * call.output_plane + pixel;
        const T *residual = static_cast<const T *>(call.residual) + row * call.residual_plane + pixel;
#pragma GCC unroll 32
        for (int v = 0; v < V; ++v) {
            Vec y = acc[r][v];
            if (call.residual) y = y + load(residual + v * kLanes);
            y = min(high, max(low, y));
            store(out + v * kLanes, and_mask(y, call.valid + pixel + v * kLanes));
        }
    }
}

// acc += the block's inputs at one kernel position times the weights of R outputs.
template <class A, int R, int V>
AS_INLINE void px_position(Vec (&acc)[R][V], const float *x, const float *w) {
    Vec xv[V];
#pragma GCC unroll 32
    for (int v = 0; v < V; ++v) xv[v] = load(x + v * kLanes);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
        const Vec wr = broadcast(w[r]);
#pragma GCC unroll 32
        for (int v = 0; v < V; ++v) acc[r][v] = A::mac(wr, xv[v], acc[r][v]);
    }
}

// Asks for what px_store will write of the R outputs from `first_row` on, as floats.
template <int R, int V>
AS_INLINE void px_prefetch(const ConvCall &call, int first_row, ptrdiff_t pixel) {
    for (int row = first_row; row < first_row + R && row < call.rows; ++row) {
        float *out = static_cast<float *>(call.output) + row * call.output_plane + pixel;
        prefetch_written(out, out + V * kLanes);
    }
}

// Asks for what px_position will read of an input at all kernel positions.
template <int V>
AS_INLINE void px_prefetch_input(const ConvCall &call, const float *plane) {
    for (int t = 0; t < call.tap_count; ++t) {
        __builtin_prefetch(plane + call.taps[t]);
        __builtin_prefetch(plane + call.taps[t] + V * kLanes - 1);
    }
}

template <class A, int R, int V>
static void px_block(const ConvCall &call, int tile, int vector) {
    const ptrdiff_t pixel = static_cast<ptrdiff_t>(vector) * kLanes;
    Vec acc[R][V];
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 32
        for (int v = 0; v < V; ++v) acc[r][v] = broadcast(call.bias[tile * R + r]);
    }
    const float *w = call.weights + static_cast<ptrdiff_t>(tile) * call.kept * call.tap_count * R;
    const float *input = call.input + pixel;
    // Inputs that are multiplied while one comes from another processor, of which the first tile is the
    // first reader.
    constexpr int kInputsAhead = 4;
    const int asked = call.shares_inputs && tile == 0 ? call.kept - kInputsAhead : 0;
    if (call.shares_lines && call.output_dtype == AS_F32) px_prefetch<R, V>(call, tile * R, pixel);
    if (call.tap_count == 1) {
        input += call.taps[0];
        for (int c = 0; c < call.kept; ++c, w += R) {
            prefetch_weights(w, R);
            if (c < asked)
                px_prefetch_input<V>(call, input - call.taps[0] + call.channels[c + kInputsAhead]);
            px_position<A, R, V>(acc, input + call.channels[c], w);
        }
    } else {
        for (int c = 0; c < call.kept; ++c) {
            const float *plane = input + call.channels[c];
            prefetch_weights(w, call.tap_count * R);
            if (c < asked) px_prefetch_input<V>(call, input + call.channels[c + kInputsAhead]);
            for (int t = 0; t < call.tap_count; ++t, w += R)
                px_position<A, R, V>(acc, plane + call.taps[t], w);
        }
    }
    if (call.output_dtype == AS_BF16)
        px_store<Bf16, R, V>(call, tile * R, acc, pixel);
    else
        px_store<float, R, V>(call, tile * R, acc, pixel);
}

// Blocks may have fewer vectors: the same loop with a smaller V.
template <class A, int R, int V>
static void px_vectors(const ConvCall &call, int vector, int count) {
    if constexpr (V > 0) {
        if (count != V) return px_vectors<A, R, V - 1>(call, vector, count);
        for (int tile = 0; tile < call.tiles; ++tile) px_block<A, R, V>(call, tile, vector);
    }
}

// Cuts vectors [first, last) into as few blocks of at most V as there can be, of equal size: a block of one
// vector has too few sums to keep the arithmetic busy.
template <int V, class Block>
AS_INLINE void in_equal_blocks(int first, int last, Block &&block) {
    for (int blocks = (last - first + V - 1) / V; blocks > 0; --blocks) {
        const int count = (last - first + blocks - 1) / blocks;
        block(first, count);
        first += count;
    }
}

template <class A, int R, int V>
static void px(const ConvCall &call) {
    in_equal_blocks<V>(call.first, call.last,
                       [&](int vector, int count) { px_vectors<A, R, V>(call, vector, count); });
}

}  // namespace autosparse::AS_ISA_NS
