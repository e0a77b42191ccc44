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

// One kernel in Winograd's domain: G g G^T with G = [1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1].
void transform_kernel(const float *g, double (&u)[16]) {
    double across[3][4];
    const auto forward = [](double a, double b, double c, double *to, int step) {
        to[0] = a;
        to[step] = (a + b + c) / 2;
        to[2 * step] = (a - b + c) / 2;
        to[3 * step] = c;
    };
    for (int y = 0; y < 3; ++y) forward(g[3 * y], g[3 * y + 1], g[3 * y + 2], across[y], 1);
    for (int x = 0; x < 4; ++x) forward(across[0][x], across[1][x], across[2][x], u + x, 4);
}

// One tile of outputs of one strip.
struct TilePacker {
    const as_op &op;
    const TiledLayer &layer;
    const Strip &strip;
    const int inputs_per_group, first_in;
    const int64_t first_out;
    const int rows;

    // Weights of kept input k, all kernel positions.
    const float *kernel(int r, int k) const {
        const int column = layer.channels[static_cast<std::size_t>(strip.kept_begin + k)] - first_in;
        return op.weight + ((first_out + r) * inputs_per_group + column) * layer.taps;
    }
    void plain(float *to) const {
        for (int k = 0; k < strip.kept; ++k)
            for (int t = 0; t < layer.taps; ++t, to += layer.tile_out)
                for (int r = 0; r < rows; ++r) to[r] = kernel(r, k)[t];
    }
    void pairs(float *to) const {
        for (int k = 0; k < strip.kept; k += 2)
            for (int t = 0; t < layer.taps; ++t, to += layer.tile_out)
                for (int r = 0; r < rows; ++r)
                    to[r] = pair_of(kernel(r, k)[t], k + 1 < strip.kept ? kernel(r, k + 1)[t] : 0.0f);
    }
    void winograd(float *to) const {
        for (int k = 0; k < strip.kept; ++k, to += layer.tile_out)
            for (int r = 0; r < rows; ++r) {
                double u[16];
                transform_kernel(kernel(r, k), u);
                for (int p = 0; p < 16; ++p)
                    to[p * static_cast<ptrdiff_t>(strip.kept) * layer.tile_out + r] = static_cast<float>(u[p]);
            }
    }
};

int64_t words_per_tile(const TiledLayer &layer, int kept, Packing packing) {
    const int positions = packing == Packing::winograd ? 16 : layer.taps;
    return static_cast<int64_t>(layer.tile_out) * depth_of(kept, packing) * positions;
}

void pack_strip(const as_op &op, int inputs_per_group, int first_in, Packing packing, const Strip &strip,
                TiledLayer &layer) {
    for (int tile = 0; tile < strip.tiles; ++tile) {
        const int first = tile * layer.tile_out;
        const TilePacker packer{op, layer, strip, inputs_per_group, first_in, strip.first_out + first,
                                std::min(layer.tile_out, strip.rows - first)};
        float *to = layer.weights.data() + strip.weights + tile * words_per_tile(layer, strip.kept, packing);
        if (packing == Packing::plain)
            packer.plain(to);
        else if (packing == Packing::pairs)
            packer.pairs(to);
        else
            packer.winograd(to);
    }
    if (op.bias) std::copy_n(op.bias + strip.first_out, strip.rows, layer.bias.begin() + strip.bias);
}

}  // namespace

TiledLayer tile_layer(const as_op &op, int in_channels, int out_channels, int tile_out, Packing packing) {
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
            weights += strip.tiles * words_per_tile(layer, strip.kept, packing);
            layer.most_kept = std::max(layer.most_kept, strip.kept);
            layer.strips.push_back(strip);
            first_in.push_back(group.first_in);
        }
    layer.weights.assign(static_cast<std::size_t>(weights), 0.0f);
    layer.bias.assign(static_cast<std::size_t>(bias), 0.0f);
    for (std::size_t i = 0; i < layer.strips.size(); ++i)
        pack_strip(op, in_channels / op.groups, first_in[i], packing, layer.strips[i], layer);
    return layer;
}

}  // namespace autosparse
