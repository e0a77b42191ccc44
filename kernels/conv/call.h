// What one call of a convolution kernel gets: tiles of outputs that share their inputs, over a stretch of
// pixels of one image.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "conv/methods.h"

namespace autosparse {

// Offsets and strides are in elements; those of bf16 arithmetic are pairs, 32 bits as a float is, of the
// two channels (pixels of the panel) or the two weights that one multiply-add takes. "Origin" is pixel (0,
// 0) of a plane.
struct ConvCall {
    const float *input;       // origin of plane 0
    const int32_t *channels;  // offset of every kept channel's (pair's) plane, `kept` of them
    const int32_t *taps;      // offset of every kernel position, `tap_count` of them
    const float *weights;     // [tile][kept][tap][tile_out], rows beyond `rows` are zero; wg, wf:
                              // `together` tiles at a time [position][tile][kept][tile_out]
    const float *bias;        // [tile][tile_out]
    void *output;             // origin of the first output plane
    const void *residual;     // the same of the tensor that is added, or null
    ptrdiff_t output_plane;   // from one output channel to the next
    ptrdiff_t residual_plane;
    const int32_t *valid;  // px: all ones where a flattened pixel lies in the image, else 0
    int32_t kept, tap_count;
    int32_t tiles;         // tiles of outputs that share the list of channels
    int32_t rows;          // outputs that exist, 1..tiles * tile_out
    int32_t output_dtype;  // of output and residual, an as_dtype
    float low, high;       // clamp, applied last
    bool shares_lines;     // px, wg, wf: others may have written the output's lines last
    bool shares_inputs;    // px: the same of the inputs
    int32_t first, last;   // px: vectors of flattened pixels; mx: 16 of them; oc: output
                           // rows; wg, wf: vectors of tiles
    int32_t width;         // oc, wg, wf: output pixels per row
    int32_t stride_w;      // oc: 1 or 2
    ptrdiff_t input_row;   // oc: from the input row of one output row to that of the next
    ptrdiff_t output_row;  // oc, wg, wf: from one output row to the next
    int32_t depth;   // mx: pairs per matrix multiplication; `kept`, those of a tap, is a multiple of it
    ptrdiff_t pair;  // mx: from one pair of kept inputs to the next; taps may be kernel rows
    // wg, wf: `input` holds the transformed tiles of a block, [position][channel][tile]
    ptrdiff_t position;               // from one transformed position to the next
    int32_t tile_rows, tile_columns;  // of the block
    int32_t height;                   // output rows from the block's first on
    int32_t together;                 // tiles of outputs whose products are held at once
    // Products of the tiles done together, [position][tile][tile_out][tile_pixels] and 16 floats more per
    // position, then the lines of one output.
    float *scratch;
};

using ConvKernel = void (*)(const ConvCall &);

// One channel's rows of tiles, transformed (conv/wg.h).
struct WinogradInput {
    const float *rows;      // first input row of the first row of tiles, at its first column
    ptrdiff_t input_row;    // from one input row to the next
    int32_t height, width;  // rows and columns from there on; what tiles reach beyond counts as zero
    int32_t tile_rows, tile_columns;
    float *out;          // [position][tile]
    ptrdiff_t position;  // from one position to the next
};

using InputTransform = void (*)(const WinogradInput &);

// What a matrix panel is filled from (conv/panel.h); elements are bf16 on the one side, pairs on the other.
struct MatrixPanelCall {
    const void *pixel;        // the first, of the first input
    const int32_t *channels;  // kept inputs
    ptrdiff_t channel;        // from one input to the next
    const ptrdiff_t *shifts;  // [set][position]
    int32_t kept, sets, positions;
    int32_t rows;  // pairs of a set, the last of which are zero
    ptrdiff_t length, row, set;
    float *out;
};

using MatrixPanelFill = void (*)(const MatrixPanelCall &);

// What one instruction set has.
struct ConvKernels {
    bool fuses;              // multiplies and adds in one instruction
    const ConvKernel *rows;  // one entry per row of variants.inc, null where it is of another set
    InputTransform transform_input[kMethodCount];  // null for methods that multiply directly
    MatrixPanelFill fill_matrix_panel;
};

}  // namespace autosparse
