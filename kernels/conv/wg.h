// 3x3 convolution of stride 1 by Winograd's minimal filtering: wg is F(2x2, 3x3), 16 multiplications for
// four outputs instead of 36, and wf F(4x4, 3x3), 36 for sixteen instead of 144. wp is F(4x4, 4x4) on the
// phase planes (conv/phases.h) of a 7x7 kernel of stride 2, a stem: 196 for sixteen instead of 784.
//
// Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4. The
// 1xN pattern keeps or drops a kernel whole, so transformed weights have the same pattern as the weights:
//
//     for channel that some group keeps, for tile of inputs, kLanes tiles at once:
//         v[positions] = B^T d B                            # shared by all groups,
//         [position][channel][tile]
//     for block of V vectors of tiles:
//         for position in 16 or 36, for tile of R outputs:  # inputs stay in the first-level cache
//             m[position][tile][R][V] = sum over kept c: u[position][tile][c][r] * v[c][position]
//         output = clamp(A^T m A + bias + residual)
//
// u = G g G^T is computed when weights are packed (conv/structure.cpp). Differs: F(4x4, 3x3) interpolates
// at 0, 3/4, -3/4, 3/2, -3/2 and infinity instead of 0, 1, -1, 2, -2: all constants are exact, and errors
// are a third (largest error over largest output of 64 channels 1.3e-6, at the usual points 3.9e-6, direct
// 0.7e-6).
//
// A tile's outputs depend on all its inputs, so a NaN or infinity reaches outputs up to one (wf: three)
// pixels further than its windows.
#pragma once

#include "conv/px.h"

namespace autosparse::AS_ISA_NS {

// F(2x2, 3x3)
struct Wg {
    static constexpr int kIn = 4, kOut = 2;
    // v = B^T d.
    AS_INLINE void forward(const Vec (&d)[4], Vec (&v)[4]) {
        v[0] = d[0] - d[2];
        v[1] = d[1] + d[2];
        v[2] = d[2] - d[1];
        v[3] = d[1] - d[3];
    }
    // y = A^T m.
    AS_INLINE void inverse(const Vec (&m)[4], Vec (&y)[2]) {
        y[0] = m[0] + m[1] + m[2];
        y[1] = m[1] - m[2] - m[3];
    }
    // d[c][t] = x[2 t + c], x given as vectors and what lies behind them.
    AS_INLINE void columns(const Vec (&x)[2], Vec behind, Vec (&d)[4]) {
        unzip(x[0], x[1], d[0], d[1]);
        d[2] = shift_in<0>(d[0], behind);
        d[3] = shift_in<1>(d[1], behind);
    }
    // The same, with the columns from kOut on given too.
    AS_INLINE void columns(const Vec (&x)[2], const Vec (&far)[2], Vec (&d)[4]) {
        unzip(x[0], x[1], d[0], d[1]);
        unzip(far[0], far[1], d[2], d[3]);
    }
    // out[2 t + c] = y[c][t].
    AS_INLINE void interleave_pixels(const Vec (&y)[2], Vec (&out)[2]) { zip(y[0], y[1], out[0], out[1]); }
};

// F(4x4, 3x3) at 0, a, -a, b, -b and infinity.
struct Wf {
    static constexpr int kIn = 6, kOut = 4;
    static constexpr float a = 0.75f, b = 1.5f;
    AS_INLINE void forward(const Vec (&d)[6], Vec (&v)[6]) {
        const Vec even_a = fma(broadcast(-b * b), d[2], d[4]), odd_a = fma(broadcast(-b * b), d[1], d[3]);
        const Vec even_b = fma(broadcast(-a * a), d[2], d[4]), odd_b = fma(broadcast(-a * a), d[1], d[3]);
        const Vec sum = broadcast(-(a * a + b * b)), product = broadcast(a * a * b * b);
        v[0] = fma(product, d[0], fma(sum, d[2], d[4]));
        v[1] = fma(broadcast(a), odd_a, even_a);
        v[2] = fma(broadcast(-a), odd_a, even_a);
        v[3] = fma(broadcast(b), odd_b, even_b);
        v[4] = fma(broadcast(-b), odd_b, even_b);
        v[5] = fma(product, d[1], fma(sum, d[3], d[5]));
    }
    AS_INLINE void inverse(const Vec (&m)[6], Vec (&y)[4]) {
        const Vec sum_a = m[1] + m[2], sum_b = m[3] + m[4], odd_a = m[1] - m[2], odd_b = m[3] - m[4];
        y[0] = m[0] + sum_a + sum_b;
        y[1] = fma(broadcast(a), odd_a, broadcast(b) * odd_b);
        y[2] = fma(broadcast(a * a), sum_a, broadcast(b * b) * sum_b);
        y[3] = fma(broadcast(a * a * a), odd_a, fma(broadcast(b * b * b), odd_b, m[5]));
    }
    AS_INLINE void columns(const Vec (&x)[4], Vec behind, Vec (&d)[6]) {
        Vec near[4];
        unzip_by_four(x, near);
        for (int c = 0; c < 4; ++c) d[c] = near[c];
        d[4] = shift_in<0>(d[0], behind);
        d[5] = shift_in<1>(d[1], behind);
    }
    AS_INLINE void columns(const Vec (&x)[4], const Vec (&far)[4], Vec (&d)[6]) {
        Vec near[4], next[4];
        unzip_by_four(x, near);
        unzip_by_four(far, next);
        for (int c = 0; c < 4; ++c) d[c] = near[c];
        d[4] = next[0];
        d[5] = next[1];
    }
    AS_INLINE void interleave_pixels(const Vec (&y)[4], Vec (&out)[4]) { zip_by_four(y, out); }
};

// F(4x4, 4x4) at 0, 1, -1, 2, -2, 1/2 and infinity: for the phase planes of a 7x7 kernel of stride 2.
struct Wp {
    static constexpr int kIn = 7, kOut = 4;
    // Coefficients of the products of (x - point) over all other points, and over all points.
    static constexpr float kForward[7][7] = {{-2, 4, 2.5f, -5, -0.5f, 1, 0}, {0, 2, -2, -4.5f, 0.5f, 1, 0},
                                             {0, -2, 6, -3.5f, -1.5f, 1, 0}, {0, 1, -1.5f, -2, 1.5f, 1, 0},
                                             {0, -1, 2.5f, 0, -2.5f, 1, 0},  {0, 4, 0, -5, 0, 1, 0},
                                             {0, -2, 4, 2.5f, -5, -0.5f, 1}};
    AS_INLINE void forward(const Vec (&d)[7], Vec (&v)[7]) {
#pragma GCC unroll 7
        for (int r = 0; r < 7; ++r) {
            const int last = r < 6 ? 5 : 6;
            v[r] = broadcast(kForward[r][last]) * d[last];
#pragma GCC unroll 6
            for (int c = 0; c < 6; ++c)
                if (c != last && kForward[r][c] != 0) v[r] = fma(broadcast(kForward[r][c]), d[c], v[r]);
        }
    }
    AS_INLINE void inverse(const Vec (&m)[7], Vec (&y)[4]) {
        const Vec sum_1 = m[1] + m[2], sum_2 = m[3] + m[4], odd_1 = m[1] - m[2], odd_2 = m[3] - m[4];
        y[0] = (m[0] + sum_1) + (sum_2 + m[5]);
        y[1] = fma(broadcast(2), odd_2, fma(broadcast(0.5f), m[5], odd_1));
        y[2] = fma(broadcast(4), sum_2, fma(broadcast(0.25f), m[5], sum_1));
        y[3] = fma(broadcast(8), odd_2, fma(broadcast(0.125f), m[5], odd_1)) + m[6];
    }
    AS_INLINE void columns(const Vec (&x)[4], Vec behind, Vec (&d)[7]) {
        Vec near[4];
        unzip_by_four(x, near);
        for (int c = 0; c < 4; ++c) d[c] = near[c];
        d[4] = shift_in<0>(d[0], behind);
        d[5] = shift_in<1>(d[1], behind);
        d[6] = shift_in<2>(d[2], behind);
    }
    AS_INLINE void columns(const Vec (&x)[4], const Vec (&far)[4], Vec (&d)[7]) {
        Vec near[4], next[4];
        unzip_by_four(x, near);
        unzip_by_four(far, next);
        for (int c = 0; c < 4; ++c) d[c] = near[c];
        for (int c = 0; c < 3; ++c) d[4 + c] = next[c];
    }
    AS_INLINE void interleave_pixels(const Vec (&y)[4], Vec (&out)[4]) { Wf::interleave_pixels(y, out); }
};

// Reads kLanes columns of one input row.
template <bool kWhole>
AS_INLINE Vec wg_read(const WinogradInput &in, int row, int column) {
    if (row >= in.height) return zero();
    const float *from = in.rows + row * in.input_row + column;
    if (kWhole) return load(from);
    const int some = in.width - column;
    return load_some(from, some < 0 ? 0 : some < kLanes ? some : kLanes);
}

// One row of inputs of each of G neighbouring rows of tiles, transformed along the row: lane g * kLanes / G
// + t of v[c] is column c of tile t of the g-th of these rows of tiles.
template <class W, int G, bool kWhole>
AS_INLINE void wg_row(const WinogradInput &in, int x, int row, Vec (&v)[W::kIn]) {
    constexpr int kPerGroup = W::kOut / G;  // vectors of columns
    const int column = W::kOut * x;
    Vec near[W::kOut], d[W::kIn];
#pragma GCC unroll 4
    for (int i = 0; i < W::kOut; ++i)
        near[i] = wg_read<kWhole>(in, row + i / kPerGroup * W::kOut, column + i % kPerGroup * kLanes);
    if (G == 1) {
        W::columns(near, wg_read<kWhole>(in, row, column + W::kOut * kLanes), d);
    } else {
        Vec far[W::kOut];
#pragma GCC unroll 4
        for (int i = 0; i < W::kOut; ++i)
            far[i] = wg_read<kWhole>(in, row + i / kPerGroup * W::kOut,
                                     column + i % kPerGroup * kLanes + W::kOut);
        W::columns(near, far, d);
    }
    W::forward(d, v);
}

// Writes one position of G rows of tiles: whole groups of lanes while there are tiles to come, what spills
// into the next row is overwritten by it.
template <int G>
AS_INLINE void wg_put(float *to, Vec v, int columns, int rest) {
    constexpr int kSome = kLanes / G;
    if (G == 1) return store_some(to, v, rest < kLanes ? rest : kLanes);
    float lanes[kLanes];
    store(lanes, v);
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g, to += columns, rest -= columns) {
        if (rest >= kSome)
            memcpy(to, lanes + g * kSome, kSome * sizeof(float));
        else if (rest > 0)
            memcpy(to, lanes + g * kSome, static_cast<size_t>(rest) * sizeof(float));
    }
}

// Rows transformed along themselves, transformed down, as `put` writes them.
template <class W, class Put>
AS_INLINE void wg_columns(const WinogradInput &in, float *to, const Vec (&rows)[W::kIn][W::kIn],
                          Put &&put) {
    const ptrdiff_t down = W::kIn * in.position;
#pragma GCC unroll 7
    for (int c = 0; c < W::kIn; ++c, to += in.position) {
        Vec column[W::kIn], v[W::kIn];
#pragma GCC unroll 7
        for (int r = 0; r < W::kIn; ++r) column[r] = rows[r][c];
        W::forward(column, v);
        float *at = to;
#pragma GCC unroll 7
        for (int r = 0; r < W::kIn; ++r, at += down) put(at, v[r]);
    }
}

// G rows of tiles at a time, where that many rows' tiles fill a vector; G = 1 shares input rows between
// neighbouring rows of tiles. Rows are done from top to bottom.
template <class W, int G, bool kWhole>
AS_INLINE void wg_transform_block(const WinogradInput &in, int x) {
    constexpr int kShared = W::kIn - W::kOut;
    const int tiles = in.tile_rows * in.tile_columns;
    Vec rows[W::kIn][W::kIn];  // [row][column]
    if (G == 1)
        for (int r = 0; r < kShared; ++r) wg_row<W, G, kWhole>(in, x, r, rows[W::kOut + r]);
    for (int y = 0; y < in.tile_rows; y += G) {
        if (G == 1)
            for (int r = 0; r < kShared; ++r)
#pragma GCC unroll 7
                for (int c = 0; c < W::kIn; ++c) rows[r][c] = rows[W::kOut + r][c];
#pragma GCC unroll 7
        for (int r = G == 1 ? kShared : 0; r < W::kIn; ++r)
            wg_row<W, G, kWhole>(in, x, W::kOut * y + r, rows[r]);
        const int tile = y * in.tile_columns + x, rest = tiles - tile;
        float *to = in.out + tile;
        // Full groups lie side by side.
        if ((G == 1 || in.tile_columns == kLanes / G) && rest >= kLanes)
            wg_columns<W>(in, to, rows, [](float *at, Vec v) { store(at, v); });
        else
            wg_columns<W>(in, to, rows, [&](float *at, Vec v) { wg_put<G>(at, v, in.tile_columns, rest); });
    }
}

// The blocks of columns are done from right to left, for the same reason as the rows from top to bottom.
template <class W, int G>
static void wg_transform_rows(const WinogradInput &in) {
    for (int x = (in.tile_columns - 1) / kLanes * kLanes; x >= 0; x -= kLanes) {
        const int tiles = in.tile_columns - x < kLanes / G ? in.tile_columns - x : kLanes / G;
        // Beyond the last tile's inputs anything may be read.
        if (W::kOut * (x + tiles) + W::kIn - W::kOut <= in.width)
            wg_transform_block<W, G, true>(in, x);
        else
            wg_transform_block<W, G, false>(in, x);
    }
}

#if defined(AS_QUARTERS)
// B^T d of the four tiles of a row, F(2x2, 3x3): quarter c holds position c of all of them.
AS_INLINE Vec wg_four_tiles(Vec x) {
    alignas(64) static const int32_t kFirst[16] = {0, 2, 4, 6, 1, 3, 5, 7, 2, 4, 6, 8, 1, 3, 5, 7};
    alignas(64) static const int32_t kSecond[16] = {2, 4, 6, 8, 2, 4, 6, 8, 1, 3, 5, 7, 3, 5, 7, 9};
    alignas(64) static const float kSign[16] = {-1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1};
    return fma(permute(x, kSecond), load(kSign), permute(x, kFirst));
}

// Images of four tiles a row, such as the 7x7 ones of ResNets: four rows of tiles fill a vector, a row of
// their inputs another one.
static void wg_transform_four(const WinogradInput &in) {
    constexpr int kTiles = 4, kRows = 2 * kTiles + 2;
    for (int y = 0; y < in.tile_rows; y += kTiles) {
        Vec rows[kRows];
#pragma GCC unroll 10
        for (int r = 0; r < kRows; ++r) rows[r] = wg_four_tiles(wg_read<false>(in, 2 * y + r, 0));
        const int rest = (in.tile_rows - y) * kTiles;
        float *to = in.out + y * kTiles;
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
            Vec positions[kTiles];  // of a row of tiles each, and then of all of them
#pragma GCC unroll 4
            for (int g = 0; g < kTiles; ++g) {
                Vec v[4];
                Wg::forward({rows[2 * g], rows[2 * g + 1], rows[2 * g + 2], rows[2 * g + 3]}, v);
                positions[g] = v[r];
            }
            transpose_quarters(positions);
#pragma GCC unroll 4
            for (int c = 0; c < 4; ++c, to += in.position)
                store_some(to, positions[c], rest < kLanes ? rest : kLanes);
        }
    }
}
#endif

template <class W>
static void wg_transform_input(const WinogradInput &in) {
#if defined(AS_QUARTERS)
    if (W::kOut == 2 && in.tile_columns == kLanes / 4) return wg_transform_four(in);
#endif
    // A group is whole vectors of columns.
    if (W::kOut >= 4 && in.tile_columns <= kLanes / 4)
        wg_transform_rows<W, W::kOut >= 4 ? 4 : 1>(in);
    else if (in.tile_columns <= kLanes / 2)
        wg_transform_rows<W, 2>(in);
    else
        wg_transform_rows<W, 1>(in);
}

// Writes the pixels of `count` tiles from `tile` on: `lines` are kOut rows of kOut * count pixels.
template <class W>
AS_INLINE void wg_store(const ConvCall &call, const float *lines, ptrdiff_t line, int row, int tile,
                        int count) {
    const Vec low = broadcast(call.low), high = broadcast(call.high);
    float *output = static_cast<float *>(call.output) + row * call.output_plane;
    const float *residual = static_cast<const float *>(call.residual) + row * call.residual_plane;
    int tile_y = tile / call.tile_columns, tile_x = tile % call.tile_columns;
    while (count > 0 && tile_y < call.tile_rows) {
        const int run = call.tile_columns - tile_x < count ? call.tile_columns - tile_x : count;
        const int rest = call.width - W::kOut * tile_x;
        const int pixels = W::kOut * run < rest ? W::kOut * run : rest;
        for (int r = 0; r < W::kOut; ++r) {
            const int y = W::kOut * tile_y + r;
            if (y >= call.height) break;
            const ptrdiff_t at = y * call.output_row + W::kOut * tile_x;
            const float *from = lines + r * line;
            for (int x = 0; x < pixels; x += kLanes) {
                const int some = pixels - x < kLanes ? pixels - x : kLanes;
                Vec value = load(from + x);
                if (call.residual) value = value + load_some(residual + at + x, some);
                value = min(high, max(low, value));
                if (some == kLanes)
                    store(output + at + x, value);
                else
                    store_some(output + at + x, value, some);
            }
            if (tile_x + run == call.tile_columns && y + 1 < call.height)
                for (ptrdiff_t gap = call.width; gap < call.output_row; ++gap)
                    output[y * call.output_row + gap] = 0.0f;
        }
        lines += W::kOut * run;
        count -= run;
        tile_x = 0;
        ++tile_y;
    }
}

// Where wg_store will write the tiles of a block: of every stretch of an output's row, a pixel of each
// cache line.
struct WgLines {
    static constexpr int kMost = 96;
    ptrdiff_t at[kMost];
    int count = 0;
};

template <class W>
AS_INLINE void wg_find_lines(const ConvCall &call, int tile, int count, WgLines &lines) {
    constexpr int kLine = 16;  // floats
    int tile_y = tile / call.tile_columns, tile_x = tile % call.tile_columns;
    for (; count > 0 && tile_y < call.tile_rows; ++tile_y, tile_x = 0) {
        const int run = call.tile_columns - tile_x < count ? call.tile_columns - tile_x : count;
        const int pixels = W::kOut * run;
        for (int y = W::kOut * tile_y; y < W::kOut * (tile_y + 1) && y < call.height; ++y) {
            const ptrdiff_t at = y * call.output_row + W::kOut * tile_x;
            if (lines.count + pixels / kLine + 2 > WgLines::kMost) return;
            for (int x = 0; x < pixels; x += kLine) lines.at[lines.count++] = at + x;
            lines.at[lines.count++] = at + pixels - 1;
        }
        count -= run;
    }
}

// Asks for these lines of output `row` and of its residual.
AS_INLINE void wg_prefetch(const ConvCall &call, const WgLines &lines, int row) {
    if (row >= call.rows) return;
    constexpr int kWillWrite = 1;
    float *output = static_cast<float *>(call.output) + row * call.output_plane;
    for (int i = 0; i < lines.count; ++i) __builtin_prefetch(output + lines.at[i], kWillWrite);
    if (!call.residual) return;
    const float *residual = static_cast<const float *>(call.residual) + row * call.residual_plane;
    for (int i = 0; i < lines.count; ++i) __builtin_prefetch(residual + lines.at[i]);
}

#if defined(AS_QUARTERS)
// As wg_store for images of four tiles a row: `pixels` are those of output rows 2 g + i, g from 0 to 3,
// eight a row, pixels[i] of g = 0 and 1, pixels[2 + i] of the others.
AS_INLINE void wg_store_four(const ConvCall &call, const Vec (&pixels)[4], int row, int tile_y) {
    const Vec low = broadcast(call.low), high = broadcast(call.high);
    float *output = static_cast<float *>(call.output) + row * call.output_plane;
    const float *residual = static_cast<const float *>(call.residual) + row * call.residual_plane;
    // Pixels and the padding behind them, but behind the last row.
    const int whole = call.output_row < kLanes ? static_cast<int>(call.output_row) : kLanes;
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) {
        const int y = 2 * tile_y + r;
        if (y >= call.height) break;
        const Vec pair = pixels[r / 4 * 2 + r % 2];
        const ptrdiff_t at = y * call.output_row;
        Vec value = r / 2 % 2 ? upper_half(pair) : pair;
        if (call.residual) value = value + load_some(residual + at, call.width);
        value = first_lanes_of(min(high, max(low, value)), call.width);
        store_some(output + at, value, y + 1 < call.height ? whole : call.width);
        for (ptrdiff_t gap = kLanes; gap < call.output_row && y + 1 < call.height; ++gap)
            output[at + gap] = 0.0f;
    }
}
#endif

// Outputs that are transformed back while the lines of one arrive: some hundred cycles each.
constexpr int kOutputsAhead = 2;

// Products of `R` outputs with V vectors of tiles, transformed back; `m` is that of the first position.
template <class W, int R, int V>
AS_INLINE void wg_output(const ConvCall &call, const WgLines &written, int first_row, int vector,
                         const float *m, ptrdiff_t position, float *lines) {
    constexpr int kIn = W::kIn, kOut = W::kOut;
    constexpr ptrdiff_t kLine = kOut * V * kLanes;
    for (int r = 0; r < R && first_row + r < call.rows; ++r) {
        wg_prefetch(call, written, first_row + r + kOutputsAhead);
        const Vec bias = broadcast(call.bias[first_row + r]);
        for (int v = 0; v < V; ++v) {
            const float *from = m + (r * V + v) * kLanes;
            Vec down[kOut][kIn];
#pragma GCC unroll 7
            for (int c = 0; c < kIn; ++c) {
                Vec column[kIn], y[kOut];
#pragma GCC unroll 7
                for (int i = 0; i < kIn; ++i) column[i] = load(from + (kIn * i + c) * position);
                W::inverse(column, y);
#pragma GCC unroll 4
                for (int i = 0; i < kOut; ++i) down[i][c] = y[i];
            }
#if defined(AS_QUARTERS)
            if (kOut == 2 && call.tile_columns == kLanes / 4) {
                Vec pixels[4];
                for (int i = 0; i < 2; ++i) {
                    Vec y[kOut];
                    W::inverse(down[i], y);
                    zip(y[0] + bias, y[1] + bias, pixels[i], pixels[2 + i]);
                }
                wg_store_four(call, pixels, first_row + r, (vector + v) * 4);
                continue;
            }
#endif
#pragma GCC unroll 4
            for (int i = 0; i < kOut; ++i) {
                Vec y[kOut], pixels[kOut];
                W::inverse(down[i], y);
#pragma GCC unroll 4
                for (int c = 0; c < kOut; ++c) y[c] = y[c] + bias;
                W::interleave_pixels(y, pixels);
#pragma GCC unroll 4
                for (int c = 0; c < kOut; ++c)
                    store(lines + i * kLine + (kOut * v + c) * kLanes, pixels[c]);
            }
        }
#if defined(AS_QUARTERS)
        if (kOut == 2 && call.tile_columns == kLanes / 4) continue;
#endif
        wg_store<W>(call, lines, kLine, first_row + r, vector * kLanes, V * kLanes);
    }
}

// Products of R outputs with V vectors of tiles at one position.
template <int R, int V>
AS_INLINE void wg_position(const ConvCall &call, const float *input, const float *w, float *m) {
    Vec acc[R][V];
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 32
        for (int v = 0; v < V; ++v) acc[r][v] = zero();
    }
    for (int c = 0; c < call.kept; ++c, w += R) {
        prefetch_weights(w, R);
        px_position<F32, R, V>(acc, input + call.channels[c], w);
    }
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 32
        for (int v = 0; v < V; ++v, m += kLanes) store(m, acc[r][v]);
    }
}

// `count` tiles of outputs: the kept inputs of a position lie in the first-level cache for all of them.
template <class W, int R, int V>
static void wg_block(const ConvCall &call, int first_tile, int count, int vector) {
    constexpr int kPositions = W::kIn * W::kIn;
    const float *w = call.weights + static_cast<ptrdiff_t>(first_tile) * call.kept * kPositions * R;
    const float *input = call.input + static_cast<ptrdiff_t>(vector) * kLanes;
    // A cache line more spreads the positions over the sets of the caches.
    const ptrdiff_t position = static_cast<ptrdiff_t>(count) * R * V * kLanes + 16;
    float *lines = call.scratch + kPositions * position;
    WgLines written;
    if (call.shares_lines) wg_find_lines<W>(call, vector * kLanes, V * kLanes, written);
    for (int r = 0; r < kOutputsAhead; ++r) wg_prefetch(call, written, first_tile * R + r);
    for (int p = 0; p < kPositions; ++p, input += call.position)
        for (int t = 0; t < count; ++t, w += static_cast<ptrdiff_t>(call.kept) * R)
            wg_position<R, V>(call, input, w, call.scratch + p * position + t * (R * V * kLanes));
    for (int t = 0; t < count; ++t)
        wg_output<W, R, V>(call, written, (first_tile + t) * R, vector, call.scratch + t * (R * V * kLanes),
                           position, lines);
}

template <class W, int R, int V>
static void wg_vectors(const ConvCall &call, int vector, int count) {
    if constexpr (V > 0) {
        if (count != V) return wg_vectors<W, R, V - 1>(call, vector, count);
        for (int tile = 0; tile < call.tiles; tile += call.together)
            wg_block<W, R, V>(
                call, tile, call.tiles - tile < call.together ? call.tiles - tile : call.together, vector);
    }
}

template <class W, int R, int V>
static void wg(const ConvCall &call) {
    in_equal_blocks<V>(call.first, call.last,
                       [&](int vector, int count) { wg_vectors<W, R, V>(call, vector, count); });
}

}  // namespace autosparse::AS_ISA_NS
