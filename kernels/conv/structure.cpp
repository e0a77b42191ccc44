#include "conv/structure.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "cpu/bf16.h"

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

// Groups longer than this many outputs (dense layers) are cut, so that there are tasks to share.
constexpr int kMostOutputsPerStrip = 32;

std::vector<Strip> cut_strips(const Group &group, int tile_out) {
    const int most = std::max(tile_out, kMostOutputsPerStrip / tile_out * tile_out);
    std::vector<Strip> strips;
    for (int out = group.first_out; out < group.end_out; out += most) {
        const int rows = std::min(most, group.end_out - out);
        strips.push_back({out, rows, (rows + tile_out - 1) / tile_out, group.kept_begin, group.kept, 0, 0});
    }
    return strips;
}

float pair_of(float first, float second) {
    const uint32_t bits = to_bf16(first).bits | static_cast<uint32_t>(to_bf16(second).bits) << 16;
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
}

void pack_strip(const as_op &op, int inputs_per_group, int first_in, bool in_pairs, const Strip &strip,
                TiledLayer &layer) {
    float *to = layer.weights.data() + strip.weights;
    const int step = in_pairs ? 2 : 1;
    const auto weight = [&](int64_t row, int k, int t) {
        if (k >= strip.kept) return 0.0f;
        const int column = layer.channels[static_cast<std::size_t>(strip.kept_begin + k)] - first_in;
        return op.weight[(row * inputs_per_group + column) * layer.taps + t];
    };
    for (int tile = 0; tile < strip.tiles; ++tile) {
        const int first = tile * layer.tile_out, rows = std::min(layer.tile_out, strip.rows - first);
        for (int k = 0; k < strip.kept; k += step)
            for (int t = 0; t < layer.taps; ++t, to += layer.tile_out)
                for (int r = 0; r < rows; ++r) {
                    const int64_t row = strip.first_out + first + r;
                    to[r] = in_pairs ? pair_of(weight(row, k, t), weight(row, k + 1, t)) : weight(row, k, t);
                }
    }
    if (op.bias) std::copy_n(op.bias + strip.first_out, strip.rows, layer.bias.begin() + strip.bias);
}

}  // namespace

TiledLayer tile_layer(const as_op &op, int in_channels, int out_channels, int tile_out, bool in_pairs) {
    TiledLayer layer;
    layer.tile_out = tile_out;
    layer.taps = op.kernel_h * op.kernel_w;
    const std::vector<Group> groups = op.block_n ? onexn_groups(op, out_channels, layer)
                                                 : dense_groups(op, in_channels, out_channels, layer);
    std::vector<int> first_in;  // of every strip
    int64_t weights = 0, bias = 0;
    for (const Group &group : groups)
        for (Strip strip : cut_strips(group, tile_out)) {
            strip.weights = weights;
            strip.bias = bias;
            bias += static_cast<int64_t>(strip.tiles) * tile_out;
            weights += static_cast<int64_t>(strip.tiles) * tile_out * depth_of(strip.kept, in_pairs) * layer.taps;
            layer.most_kept = std::max(layer.most_kept, strip.kept);
            layer.strips.push_back(strip);
            first_in.push_back(group.first_in);
        }
    layer.weights.assign(static_cast<std::size_t>(weights), 0.0f);
    layer.bias.assign(static_cast<std::size_t>(bias), 0.0f);
    for (std::size_t i = 0; i < layer.strips.size(); ++i)
        pack_strip(op, in_channels / op.groups, first_in[i], in_pairs, layer.strips[i], layer);
    return layer;
}

}  // namespace autosparse
