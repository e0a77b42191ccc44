// Convolution of bf16 on matrix tiles (cpu/matrix.h).
//
// Outputs are rows, pixels columns, and kept inputs, in pairs, what is summed over. The panel of kept
// inputs (conv/panel.h) is the second factor as it lies: 16 pixels of `depth` pairs are a tile whose rows
// are a pair of channels apart, and a kernel position is a constant shift of its address. Dense layers, all
// of whose outputs read one panel, have a copy per position of a kernel row in it: their taps are kernel
// rows, and the pairs of a tap those of all its positions.
//
//     for block of V x 16 pixels, for tile of O x 16 outputs:
//         c[O][V] = 0
//         for t in taps, for chunk of `depth` pairs of kept inputs:
//             a[O] = load(weights[tile][t][chunk][o])              # 16 outputs x depth pairs
//             b[V] = load(panel[chunk] + tap[t] + pixel + 16 v)    # depth pairs x 16 pixels
//             c[o][v] += a[o] * b[v]
//         output = clamp(c + bias + residual), zero where the pixel is padding
//
// All chunks have the same depth, at most 16; the panel and the weights end with pairs of zeros.
#pragma once

#include "autosparse.h"
#include "conv/call.h"
#include "cpu/matrix.h"

namespace autosparse::AS_ISA_NS {

// Copies what one task reads, as lay_out_matrix_panel says.
static void mx_fill_panel(const MatrixPanelCall &call) {
    const Bf16 *pixel = static_cast<const Bf16 *>(call.pixel);
    const int pairs = (call.kept + 1) / 2;
    for (int pair = 0; pair < pairs; ++pair) {
        const Bf16 *a = pixel + call.channels[2 * pair] * call.channel;
        const bool has_two = 2 * pair + 1 < call.kept;
        const Bf16 *b = has_two ? pixel + call.channels[2 * pair + 1] * call.channel : nullptr;
        const ptrdiff_t *shift = call.shifts;
        for (int set = 0; set < call.sets; ++set) {
            float *out = call.out + set * call.set + pair * call.row;
            for (int p = 0; p < call.positions; ++p, ++shift, out += pairs * call.row)
                interleave(a + *shift, b ? b + *shift : nullptr, out, call.length);
        }
    }
    // Matrix tiles read pairs beyond the last: their weights are zero, but what they meet must be finite.
    for (int set = 0; set < call.sets; ++set)
        for (int row = pairs * call.positions; row < call.rows; ++row)
            interleave(nullptr, nullptr, call.out + set * call.set + row * call.row, call.length);
}

template <class T>
AS_INLINE void mx_store(const ConvCall &call, const float *sums, int first_row, ptrdiff_t pixel) {
    const Vec low = broadcast(call.low), high = broadcast(call.high);
    for (int r = 0; r < 16 && first_row + r < call.rows; ++r, sums += 16) {
        const ptrdiff_t row = first_row + r;
        T *out = static_cast<T *>(call.output) + row * call.output_plane + pixel;
        const T *residual = static_cast<const T *>(call.residual) + row * call.residual_plane + pixel;
        const Vec bias = broadcast(call.bias[row]);
        for (int v = 0; v < 16; v += kLanes) {
            Vec y = load(sums + v) + bias;
            if (call.residual) y = y + load(residual + v);
            store(out + v, and_mask(min(high, max(low, y)), call.valid + pixel + v));
        }
    }
}

// Calls f(std::integral_constant) for 0 .. N - 1: tiles are named by constants.
template <int I>
struct Index {
    static constexpr int value = I;
};
template <int N, int I = 0, class F>
AS_INLINE void for_each_index(F &&f) {
    if constexpr (I < N) {
        f(Index<I>{});
        for_each_index<N, I + 1>(f);
    }
}

// `V` of the `kMost` tiles of pixels that the roles have room for.
template <int O, int kMost, int V>
static void mx_block(MatrixTiles &tiles, const ConvCall &call, int tile, int vector) {
    constexpr int kA = O * kMost, kB = kA + O;
    const ptrdiff_t pixel = static_cast<ptrdiff_t>(vector) * 16;
    const ptrdiff_t chunk_words = static_cast<ptrdiff_t>(16) * call.depth;
    const float *w = call.weights + static_cast<ptrdiff_t>(tile) * call.kept * call.tap_count * O * 16;
    for_each_index<O>([&](auto o) {
        for_each_index<V>(
            [&](auto v) { tiles.template zero<decltype(o)::value * kMost + decltype(v)::value>(); });
    });
    for (int t = 0; t < call.tap_count; ++t) {
        const float *x = call.input + pixel + call.taps[t];
        for (int c = 0; c < call.kept; c += call.depth, x += call.depth * call.pair) {
            for_each_index<O>([&](auto o) {
                tiles.template load<kA + decltype(o)::value>(w, 4 * static_cast<ptrdiff_t>(call.depth));
                w += chunk_words;
            });
            for_each_index<V>([&](auto v) {
                constexpr int kV = decltype(v)::value, kTile = kB + kV;
                // Pixels are read once per pass: the first-level cache is for weights.
                if constexpr (O > 1)
                    tiles.template stream<kTile>(x + 16 * kV, 4 * call.pair);
                else
                    tiles.template load<kTile>(x + 16 * kV, 4 * call.pair);
                for_each_index<O>([&](auto o) {
                    constexpr int kO = decltype(o)::value;
                    tiles.template multiply<kO * kMost + kV, kA + kO, kTile>();
                });
            });
        }
    }
    for_each_index<O>([&](auto o) {
        for_each_index<V>([&](auto v) {
            constexpr int kO = decltype(o)::value, kV = decltype(v)::value;
            alignas(64) float sums[256];
            tiles.template store<kO * kMost + kV>(sums);
            const int row = (tile * O + kO) * 16;
            if (call.output_dtype == AS_BF16)
                mx_store<Bf16>(call, sums, row, pixel + 16 * kV);
            else
                mx_store<float>(call, sums, row, pixel + 16 * kV);
        });
    });
}

template <int O, int kMost, int V>
static void mx_tail(MatrixTiles &tiles, const ConvCall &call, int vector, int count) {
    if constexpr (V > 0) {
        if (count == V)
            for (int tile = 0; tile < call.tiles; ++tile) mx_block<O, kMost, V>(tiles, call, tile, vector);
        else
            mx_tail<O, kMost, V - 1>(tiles, call, vector, count);
    }
}

template <int O, int V>
static void mx(const ConvCall &call) {
    static_assert(O * V + O + V <= 8, "there are eight tiles");
    MatrixTiles tiles({O * V, O, V}, call.depth);
    int vector = call.first;
    for (; vector + V <= call.last; vector += V)
        for (int tile = 0; tile < call.tiles; ++tile) mx_block<O, V, V>(tiles, call, tile, vector);
    if (vector < call.last) mx_tail<O, V, V - 1>(tiles, call, vector, call.last - vector);
}

}  // namespace autosparse::AS_ISA_NS
