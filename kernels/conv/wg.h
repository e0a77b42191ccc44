// 3x3 convolution of stride 1 by Winograd's minimal filtering F(2x2, 3x3): 16 multiplications for four
// outputs instead of 36.
//
// Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1. The
// 1xN pattern keeps or drops a kernel whole, so transformed weights have the same pattern as the weights:
//
//     for channel that some group keeps, for tile of 4x4 inputs (2x2 outputs), 16 tiles at once:
//         v[16] = B^T d B                                   # shared by all groups, [position][channel][tile]
//     for block of V vectors of tiles, for tile of R outputs:
//         for position in 16:
//             m[position][R][V] = sum over kept c: u[position][c][r] * v[c][position]
//         output = clamp(A^T m A + bias + residual)
//
// u = G g G^T is computed when weights are packed. A tile's result depends on all its 16 inputs, so a NaN or
// infinity reaches outputs up to one pixel further than its windows. Tiles reach over the lower and right
// edge by at most one row and column, which contribute to outputs that do not exist only.
#pragma once

#include "conv/px.h"

namespace autosparse::AS_ISA_NS {

constexpr int kPositions = 16;

// v[i] = rows of B^T times d[4].
AS_INLINE void wg_forward(const Vec (&d)[4], Vec (&v)[4]) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[1] - d[3];
}

// y[i] = rows of A^T times m[4].
AS_INLINE void wg_inverse(const Vec (&m)[4], Vec (&y)[2]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
}

// One input row of kLanes tiles, transformed along the row: v[c] holds column c of every tile.
AS_INLINE void wg_row(const float *from, Vec (&v)[4]) {
    Vec d[4];
    unzip(from, d[0], d[1]);
    unzip(from + 2, d[2], d[3]);
    wg_forward(d, v);
}

// Columns of four transformed rows, transformed down, as `store_one` writes them.
template <class Store>
AS_INLINE void wg_columns(const Vec (&rows)[4][4], Store &&store_one) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
        const Vec column[4] = {rows[0][c], rows[1][c], rows[2][c], rows[3][c]};
        Vec v[4];
        wg_forward(column, v);
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) store_one(4 * r + c, v[r]);
    }
}

// The blocks of columns are done from right to left, the rows of each from top to bottom, with whole vectors
// while there are tiles to come: what spills into the next row of tiles is overwritten by it. Neighbouring
// rows of tiles share two input rows.
static void wg_transform_input(const WinogradInput &in) {
    const int tiles = in.tile_rows * in.tile_columns;
    for (int x = (in.tile_columns - 1) / kLanes * kLanes; x >= 0; x -= kLanes) {
        const float *from = in.rows + 2 * x;
        Vec rows[4][4];  // [row][column]
        wg_row(from, rows[2]);
        wg_row(from + in.input_row, rows[3]);
        for (int y = 0; y < in.tile_rows; ++y) {
            from += 2 * in.input_row;
#pragma GCC unroll 4
            for (int c = 0; c < 4; ++c) {
                rows[0][c] = rows[2][c];
                rows[1][c] = rows[3][c];
            }
            wg_row(from, rows[2]);
            wg_row(from + in.input_row, rows[3]);
            const int tile = y * in.tile_columns + x;
            float *to = in.out + tile;
            if (tile + kLanes <= tiles)
                wg_columns(rows, [&](int position, Vec v) { store(to + position * in.position, v); });
            else
                wg_columns(rows, [&](int position, Vec v) {
                    store_some(to + position * in.position, v, tiles - tile);
                });
        }
    }
}

// Writes the pixels of `count` tiles from `tile` on: `lines` are two rows of 2 * count pixels.
AS_INLINE void wg_store(const ConvCall &call, const float *lines, ptrdiff_t line, int row, int tile,
                        int count) {
    const Vec low = broadcast(call.low), high = broadcast(call.high);
    float *output = static_cast<float *>(call.output) + row * call.output_plane;
    const float *residual = static_cast<const float *>(call.residual) + row * call.residual_plane;
    int tile_y = tile / call.tile_columns, tile_x = tile % call.tile_columns;
    while (count > 0 && tile_y < call.tile_rows) {
        const int run = call.tile_columns - tile_x < count ? call.tile_columns - tile_x : count;
        const int pixels = 2 * run < call.width - 2 * tile_x ? 2 * run : call.width - 2 * tile_x;
        for (int half = 0; half < 2; ++half) {
            const int y = 2 * tile_y + half;
            if (y >= call.height) break;
            const ptrdiff_t at = y * call.output_row + 2 * tile_x;
            const float *from = lines + half * line;
            for (int x = 0; x < pixels; x += kLanes) {
                const int some = pixels - x < kLanes ? pixels - x : kLanes;
                Vec value = load(from + x);
                if (call.residual) value = value + load_some(residual + at + x, some);
                store_some(output + at + x, min(high, max(low, value)), some);
            }
            if (tile_x + run == call.tile_columns && y + 1 < call.height)
                for (ptrdiff_t gap = call.width; gap < call.output_row; ++gap)
                    output[y * call.output_row + gap] = 0.0f;
        }
        lines += 2 * run;
        count -= run;
        tile_x = 0;
        ++tile_y;
    }
}

template <int R, int V>
AS_INLINE void wg_output(const ConvCall &call, int first_row, int vector) {
    constexpr ptrdiff_t kBlock = R * V * kLanes, kLine = 2 * V * kLanes;
    const float *m = call.scratch;
    float *lines = call.scratch + kPositions * kBlock;
    for (int r = 0; r < R && first_row + r < call.rows; ++r) {
        const Vec bias = broadcast(call.bias[first_row + r]);
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) {
            const float *from = m + (r * V + v) * kLanes;
            Vec down[2][4];
#pragma GCC unroll 4
            for (int c = 0; c < 4; ++c) {
                Vec column[4], y[2];
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) column[i] = load(from + (4 * i + c) * kBlock);
                wg_inverse(column, y);
                down[0][c] = y[0];
                down[1][c] = y[1];
            }
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                Vec y[2], low, high;
                wg_inverse(down[half], y);
                zip(y[0] + bias, y[1] + bias, low, high);
                store(lines + half * kLine + 2 * v * kLanes, low);
                store(lines + half * kLine + (2 * v + 1) * kLanes, high);
            }
        }
        wg_store(call, lines, kLine, first_row + r, vector * kLanes, V * kLanes);
    }
}

template <int R, int V>
static void wg_block(const ConvCall &call, int tile, int vector) {
    const float *w = call.weights + static_cast<ptrdiff_t>(tile) * call.kept * kPositions * R;
    const float *input = call.input + static_cast<ptrdiff_t>(vector) * kLanes;
    float *m = call.scratch;
    for (int position = 0; position < kPositions; ++position, input += call.position) {
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
    wg_output<R, V>(call, tile * R, vector);
}

template <int R, int V>
static void wg_tail(const ConvCall &call, int vector, int count) {
    if constexpr (V > 0) {
        if (count == V)
            for (int tile = 0; tile < call.tiles; ++tile) wg_block<R, V>(call, tile, vector);
        else
            wg_tail<R, V - 1>(call, vector, count);
    }
}

template <int R, int V>
static void wg(const ConvCall &call) {
    int vector = call.first;
    for (; vector + V <= call.last; vector += V)
        for (int tile = 0; tile < call.tiles; ++tile) wg_block<R, V>(call, tile, vector);
    if (vector < call.last) wg_tail<R, V - 1>(call, vector, call.last - vector);
}

}  // namespace autosparse::AS_ISA_NS
