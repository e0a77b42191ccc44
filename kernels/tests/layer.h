// One layer, run by one row of the kernel table and compared with its value.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "reference.h"

namespace harness {

// What groups of outputs keep of their inputs; `uneven`: nothing, everything and something in turn.
enum class Kept { half, all, none, uneven, quarter };

struct Layer {
    std::string name;
    Extents input;
    int outputs = 1;
    Window window;
    Kept kept = Kept::half;
    int activation = AS_ACT_NONE;
    bool has_residual = false, has_bias = true;
    std::vector<int> threads = {1};
};

struct Row {
    int index;
    as_kernel_info info;
    int unit() const { return std::max(info.tile_out, info.block_n); }
    bool is(const char *method) const { return std::string(info.method) == method; }
    // Output pixels per side of a tile of Winograd's filtering, which runs one window only and no
    // activation but a clamp; 0 for all other methods.
    int winograd_side() const { return is("wg") ? 2 : is("wf") || is("wp") ? 4 : 0; }
    // A window that this row runs, with padding that keeps the image's extents, divided by the stride.
    Window home() const {
        return is("wp") ? Window{7, 7, 2, 2, 3, 3, 3, 3} : Window{3, 3, 1, 1, 1, 1, 1, 1};
    }
};

// Runs a layer of random values at its thread counts: against float64, between guards, over NaN in the
// arena, and for the same bits. False where the row cannot run it. `seed` decides the values.
bool check_layer(const Row &row, const Layer &layer, uint32_t seed);
// The same with one input, at `position`, that is not finite.
bool check_layer_with(const Row &row, const Layer &layer, uint32_t seed, std::size_t position,
                      float special);

}  // namespace harness
