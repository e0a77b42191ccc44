#include "conv/structure.h"

#include <algorithm>
#include <numeric>

namespace autosparse {
namespace {

// One list of inputs, shared by the outputs [first_out, end_out).
struct Group {
    int first_out, end_out;
    int kept_begin, kept;
    int first_in;  // channel that weight column 0 stands for
};

std::vector<Group> onexn_groups(const as_op &op, int out_channels, TiledLayer &layer) {
    const int count = (out_channels + op.block_n - 1) / op.block_n;
    layer.channels.assign(op.kept, op.kept + op.group_start[count]);
    std::vector<Group> groups;
    for (int g = 0; g < count; ++g)
        groups.push_back({g * op.block_n, std::min(out_channels, (g + 1) * op.block_n), op.group_start[g],
                          op.group_start[g + 1] - op.group_start[g], 0});
    return groups;
}

std::vector<Group> dense_groups(const as_op &op, int in_channels, int out_channels, TiledLayer &layer) {
    layer.channels.resize(static_cast<std::size_t>(in_channels));
    std::iota(layer.channels.begin(), layer.channels.end(), 0);
    const int inputs = in_channels / op.groups, outputs = out_channels / op.groups;
    std::vector<Group> groups;
    for (int g = 0; g < op.groups; ++g)
        groups.push_back({g * outputs, (g + 1) * outputs, g * inputs, inputs, g * inputs});
    return groups;
}

void pack_tile(const as_op &op, int inputs_per_group, const Group &group, const Tile &tile, TiledLayer &layer) {
    float *to = layer.weights.data() + tile.weights;
    for (int k = 0; k < tile.kept; ++k) {
        const int column = layer.channels[static_cast<std::size_t>(tile.kept_begin + k)] - group.first_in;
        for (int t = 0; t < layer.taps; ++t, to += layer.tile_out)
            for (int r = 0; r < tile.rows; ++r) {
                const int64_t row = tile.first_out + r;
                to[r] = op.weight[(row * inputs_per_group + column) * layer.taps + t];
            }
    }
}

}  // namespace

TiledLayer tile_layer(const as_op &op, int in_channels, int out_channels, int tile_out) {
    TiledLayer layer;
    layer.tile_out = tile_out;
    layer.taps = op.kernel_h * op.kernel_w;
    const std::vector<Group> groups =
        op.block_n ? onexn_groups(op, out_channels, layer) : dense_groups(op, in_channels, out_channels, layer);
    std::vector<const Group *> group_of;
    int64_t floats = 0;
    for (const Group &group : groups)
        for (int out = group.first_out; out < group.end_out; out += tile_out) {
            layer.tiles.push_back({out, std::min(tile_out, group.end_out - out), group.kept_begin, group.kept, floats});
            group_of.push_back(&group);
            floats += static_cast<int64_t>(group.kept) * layer.taps * tile_out;
        }
    layer.weights.assign(static_cast<std::size_t>(floats), 0.0f);
    layer.bias.assign(layer.tiles.size() * static_cast<std::size_t>(tile_out), 0.0f);
    for (std::size_t i = 0; i < layer.tiles.size(); ++i) {
        const Tile &tile = layer.tiles[i];
        pack_tile(op, in_channels / op.groups, *group_of[i], tile, layer);
        if (op.bias) std::copy_n(op.bias + tile.first_out, tile.rows, &layer.bias[i * static_cast<std::size_t>(tile_out)]);
    }
    return layer;
}

}  // namespace autosparse
