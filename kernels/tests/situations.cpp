// Every row of the kernel table in every situation that its tile, its pattern or its padding makes special.
#include <algorithm>
#include <limits>

#include "conformance.h"
#include "layer.h"

namespace harness {
namespace {

constexpr Kept kKept[] = {Kept::half, Kept::all, Kept::uneven, Kept::none, Kept::quarter};

constexpr struct {
    const char *name;
    int height, width;
    Window window;  // height, width, strides, top, left, bottom, right, dilations
} kGeometries[] = {
    {"1x1", 5, 7, {}},
    {"1x1, stride 2", 9, 11, {1, 1, 2, 2}},
    {"1x1, padded", 4, 6, {1, 1, 1, 1, 2, 1, 2, 1}},
    {"3x3 at 7x7", 7, 7, {3, 3, 1, 1, 1, 1, 1, 1}},
    {"3x3 at 14x13", 14, 13, {3, 3, 1, 1, 1, 1, 1, 1}},
    {"3x3 at 1x1", 1, 1, {3, 3, 1, 1, 1, 1, 1, 1}},
    {"3x3 at 17x32", 17, 32, {3, 3, 1, 1, 1, 1, 1, 1}},
    {"3x3 at 33x16", 33, 16, {3, 3, 1, 1, 1, 1, 1, 1}},
    {"3x3, no padding", 8, 19, {3, 3}},
    {"3x3, more padding than image", 3, 5, {3, 3, 1, 1, 3, 3, 3, 3}},
    {"3x3, stride 2", 15, 29, {3, 3, 2, 2, 1, 1, 1, 1}},
    {"3x3, stride 2 down", 8, 31, {3, 3, 2, 1, 1, 1, 1, 1}},
    {"3x3, stride 2 across", 6, 17, {3, 3, 1, 2, 0, 1, 0, 1}},
    {"3x3, stride 3", 17, 13, {3, 3, 3, 3}},
    {"3x3, dilation 2", 9, 10, {3, 3, 1, 1, 2, 2, 2, 2, 2, 2}},
    {"3x3, stride 2, dilation 2", 11, 12, {3, 3, 2, 2, 2, 2, 2, 2, 2, 2}},
    {"3x3, dilation 3 and 1", 37, 5, {3, 3, 1, 1, 3, 1, 3, 1, 3, 1}},
    {"5x5", 11, 9, {5, 5, 1, 1, 2, 2, 2, 2}},
    {"5x5, stride 2, no padding", 13, 14, {5, 5, 2, 2}},
    {"7x7, stride 2", 19, 23, {7, 7, 2, 2, 3, 3, 3, 3}},
    {"7x7, stride 2, even", 14, 16, {7, 7, 2, 2, 3, 3, 3, 3}},
    {"7x7, stride 2, uneven padding", 8, 41, {7, 7, 2, 2, 0, 2, 1, 3}},
    {"7x7, stride 2, of less than a tile", 1, 2, {7, 7, 2, 2, 3, 3, 3, 3}},
    {"7x7, stride 2, more padding", 30, 31, {7, 7, 2, 2, 5, 6, 5, 6}},
    {"7x7, larger than the image", 2, 3, {7, 7, 1, 1, 3, 3, 3, 3}},
    {"1x3, one row", 1, 37, {1, 3, 1, 1, 0, 1, 0, 1}},
    {"3x1, one column", 37, 1, {3, 1, 1, 1, 1, 0, 1, 0}},
    {"1x5, stride 3, dilation 2", 3, 16, {1, 5, 1, 3, 0, 4, 0, 4, 1, 2}},
    {"2x2, stride 2", 12, 34, {2, 2, 2, 2}},
    {"3x3, padded below and right", 9, 12, {3, 3, 1, 1, 0, 0, 2, 2}},
    {"3x3, padded above and left", 9, 12, {3, 3, 1, 1, 2, 2, 0, 0}},
    {"3x3, stride 2, padded below and right", 10, 12, {3, 3, 2, 2, 0, 0, 1, 1}},
    {"4x4, uneven padding", 8, 11, {4, 4, 1, 1, 1, 2, 2, 1}},
    {"2x3, uneven everything", 7, 18, {2, 3, 2, 1, 1, 0, 0, 3, 2, 1}},
};
constexpr int kBatches[] = {1, 2, 1, 3, 1, 5, 4};
constexpr int kInputs[] = {1, 2, 3, 8, 17, 31};

int check_geometries(const Row &row) {
    int index = 0, ran = 0;
    for (const auto &geometry : kGeometries) {
        Layer layer;
        layer.name = geometry.name;
        const int outs[] = {row.unit(), row.unit() - 1, row.unit() + 1, 2 * row.unit(), 1, 13};
        layer.input = {kBatches[index % 7], kInputs[(index * 5 + row.index) % 6], geometry.height,
                       geometry.width};
        layer.outputs = std::max(1, outs[(index + row.index) % 6]);
        layer.window = geometry.window;
        layer.kept = kKept[index % 5];
        layer.activation = (index + row.index) % (row.winograd_side() ? 3 : AS_ACT_GELU + 1);
        layer.has_residual = index % 3 == 1;
        layer.has_bias = index % 4 != 0;
        layer.threads = {1, 2 + index % 2};
        ran += check_layer(row, layer, static_cast<uint32_t>(++index));
    }
    return ran;
}

// Widths one below, at and above the tile, on one row and on several.
int check_pixels(const Row &row) {
    const int tile = row.info.tile_pixels * std::max(1, row.winograd_side());
    uint32_t seed = 100;
    int ran = 0;
    for (int width : {1, tile - 1, tile, tile + 1, 2 * tile + 1})
        for (const Window &window : {Window{1, 1}, {1, 3, 1, 1, 0, 1, 0, 1}, row.home()}) {
            Layer layer;
            layer.name = "pixels around the tile";
            const int rows = 1 + static_cast<int>(seed % 3);
            layer.input = {1, 5, rows * window.stride_h, std::max(1, width * window.stride_w)};
            layer.outputs = row.unit();
            layer.window = window;
            layer.activation = static_cast<int>(seed) % 3;
            ran += check_layer(row, layer, ++seed);
        }
    return ran;
}

int check_outputs(const Row &row) {
    uint32_t seed = 200;
    int ran = 0;
    const int tile = row.info.tile_out, n = std::max(1, row.info.block_n);
    for (int outputs : {tile - 1, tile, tile + 1, n - 1, n, n + 1, 2 * row.unit() + 1, 61}) {
        Layer layer;
        layer.name = "outputs around the tile";
        layer.input = {1, 9, 7, 7};
        layer.outputs = std::max(1, outputs);
        layer.window = row.home();
        layer.kept = kKept[seed % 5];
        ran += check_layer(row, layer, ++seed);
    }
    return ran;
}

// Lists of kept inputs around the powers of two at which kernels may join inputs.
int check_inputs(const Row &row) {
    uint32_t seed = 300;
    int ran = 0;
    for (int inputs : {1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65}) {
        Layer layer;
        layer.name = "inputs around powers of two";
        layer.input = {1, inputs, 3, 5};
        layer.outputs = row.unit() + 1;
        layer.window = row.home();
        layer.kept = inputs % 2 ? Kept::all : Kept::uneven;
        ran += check_layer(row, layer, ++seed);
    }
    return ran;
}

int check_patterns(const Row &row) {
    uint32_t seed = 400;
    int ran = 0;
    for (Kept kept : kKept)
        for (int activation : {static_cast<int>(AS_ACT_RELU), static_cast<int>(AS_ACT_SILU)}) {
            Layer layer;
            layer.name = "patterns";
            layer.input = {1, 23, 14, 13};
            layer.outputs = 3 * row.unit() + 1;
            layer.window = row.home();
            layer.kept = kept;
            layer.activation = activation;
            layer.has_residual = activation == AS_ACT_RELU;
            ran += check_layer(row, layer, ++seed);
        }
    return ran;
}

// Images that are cut into several tasks, at several thread counts.
int check_tasks(const Row &row) {
    uint32_t seed = 500;
    int ran = 0;
    for (const Window &window : {Window{1, 1}, {1, 1, 2, 2}, row.home()}) {
        Layer layer;
        layer.name = "many tasks";
        layer.input = {2, 40, 41, 43};
        layer.outputs = row.unit() + 3;
        layer.window = window;
        layer.kept = Kept::uneven;
        layer.activation = row.winograd_side() ? AS_ACT_RELU6 : AS_ACT_HARD_SWISH;
        layer.threads = {1, 2, 3, 5};
        ran += check_layer(row, layer, ++seed);
    }
    return ran;
}

// Rows longer than all the room that there is beside planes.
int check_wide(const Row &row) {
    int ran = 0;
    for (int height : {2, 3}) {
        Layer layer;
        layer.name = "long rows";
        layer.input = {1, 2, height, 3001};
        layer.outputs = 1;
        layer.window = row.home();
        layer.kept = Kept::all;
        ran += check_layer(row, layer, 600);
    }
    return ran;
}

// NaN and infinity reach every output whose window holds them, and no other.
int check_special(const Row &row) {
    int ran = 0;
    for (float special : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
        for (int activation : {static_cast<int>(AS_ACT_NONE), static_cast<int>(AS_ACT_RELU)}) {
            Layer layer;
            layer.name = "one " + std::to_string(special);
            layer.input = {1, 4, 7, 9};
            layer.outputs = row.unit() + 1;
            layer.window = row.home();
            layer.kept = Kept::all;
            layer.activation = activation;
            ran += check_layer_with(row, layer, 700, (2 * 7 + 3) * 9 + 4, special);
        }
    return ran;
}

}  // namespace

int check_kernel_table(const Selection &selection) {
    // Of a kernel of 3x3 layers only; the others run most of all there are.
    constexpr int kLeastRuns = 40;
    int found = 0, checked = 0;
    for (int index = 0; index < as_kernel_count(); ++index) {
        Row row{index, {}};
        expect(as_kernel_get(index, &row.info) == AS_OK, "every row must be listed");
        if (row.info.isa > as_detect_isa() || !selection.takes(row.info.name)) continue;
        if (found++ % selection.every != 0) continue;
        const int ran = check_geometries(row) + check_pixels(row) + check_outputs(row) + check_inputs(row) +
                        check_patterns(row) + check_tasks(row) + check_wide(row) + check_special(row);
        if (ran < kLeastRuns)
            count_failure(row.info.name, "ran only " + std::to_string(ran) + " situations");
        ++checked;
    }
    return checked;
}

}  // namespace harness
