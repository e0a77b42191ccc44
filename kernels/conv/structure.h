// Which inputs every group of outputs keeps, cut into the tiles a kernel computes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "autosparse.h"

namespace autosparse {

// A strip: `rows` consecutive outputs that share one list of inputs, in tiles of `tile_out`.
struct Strip {
    int32_t first_out, rows, tiles;
    int32_t kept_begin, kept;  // in TiledLayer::channels
    int64_t weights, bias;     // offsets of its packed weights and biases
    int32_t together;          // tiles that lie interleaved by position (winograd), else 1
};

// The same operator added again shares them with the first, until both have placed them.
struct PackedWeights {
    std::vector<float> weights;  // per strip, as Packing says, padded with zero rows
    std::vector<float> bias;     // per strip [tile][tile_out]
};

struct TiledLayer {
    std::vector<Strip> strips;
    std::vector<int32_t> channels;  // input channels of all groups, one list after another
    std::shared_ptr<PackedWeights> packed = std::make_shared<PackedWeights>();
    int tile_out = 0;
    int taps = 0, row_taps = 1;  // kernel positions, and those that are joined (`matrix`)
    int most_kept = 0;           // by any strip
};

// How a kernel reads its weights.
enum class Packing {
    plain,  // [tile][kept][tap][tile_out]
    pairs,  // the same with half as many [kept]: a word holds the bf16 weights of two kept inputs, the
            // first in its low half; the missing partner of the last of an odd number has weight zero
    // [position][tile][kept][tile_out], transformed (conv/wg.h), some tiles at a time
    winograd_2x2,
    winograd_4x4,
    winograd_phases,
    // [tile][tap][chunk][16 outputs at a time][output][pair], as the rows of matrix tiles (conv/mx.h); a
    // tap may be a kernel row, whose pairs are those of its first position, then of its second ..
    matrix
};

// Lays out the weights of a convolution (dense, 1xN or grouped) for a kernel with `tile_out` rows, of which
// winograd packings take at most `most_together` tiles at a time; `row_taps`: kernel positions whose pairs
// `matrix` joins.
TiledLayer tile_layer(const as_op &op, int in_channels, int out_channels, int tile_out, Packing packing,
                      int most_together = 1, int row_taps = 1);

// Words of weights per tile, output and kernel position, for `matrix` of `row_taps` positions.
int32_t depth_of(int32_t kept, Packing packing, int32_t row_taps);
// Pairs per matrix multiplication: chunks of equal depth, as few as possible, at least 1.
int32_t matrix_depth(int32_t kept, int32_t row_taps);

}  // namespace autosparse
