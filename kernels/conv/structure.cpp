#include "conv/structure.h"

#include <algorithm>
#include <array>
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

// Groups of dense layers longer than this many outputs are cut, so that there are tasks to share.
constexpr int kMostOutputsPerStrip = 32;

std::vector<Strip> cut_strips(const Group &group, int tile_out, int block_n) {
    const int wanted = std::max(kMostOutputsPerStrip, block_n);
    const int most = std::max(tile_out, wanted / tile_out * tile_out);
    std::vector<Strip> strips;
    for (int out = group.first_out; out < group.end_out; out += most) {
        const int rows = std::min(most, group.end_out - out);
        strips.push_back(
            {out, rows, (rows + tile_out - 1) / tile_out, group.kept_begin, group.kept, 0, 0, 1});
    }
    return strips;
}

float pair_of(float first, float second) {
    const uint32_t bits = to_bf16(first).bits | static_cast<uint32_t>(to_bf16(second).bits) << 16;
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
}

// One kernel in Winograd's domain, G g G^T. A row of G evaluates the kernel's polynomial at a point, over
// the product of the point's distances from the others; the last is the point at infinity.
class WinogradKernel {
public:
    explicit WinogradKernel(Packing packing) {
        if (packing == Packing::winograd_2x2) {
            // G of Lavin and Gray: the points 0, 1, -1, with one sign moved to B^T.
            rows_ = {{1, 0, 0, 0}, {0.5, 0.5, 0.5, 0}, {0.5, -0.5, 0.5, 0}};
        } else if (packing == Packing::winograd_4x4) {
            add_points({0, 0.75, -0.75, 1.5, -1.5});
        } else {
            taps_ = 4;
            add_points({0, 1, -1, 2, -2, 0.5});
        }
        rows_.push_back({0, 0, taps_ == 3 ? 1.0 : 0.0, taps_ == 3 ? 0.0 : 1.0});
    }
    int positions() const { return static_cast<int>(rows_.size() * rows_.size()); }
    // u[positions()] of a square kernel g.
    void transform(const float *g, double *u) const {
        for (const auto &down : rows_)
            for (const auto &across : rows_) {
                double sum = 0;
                for (std::size_t y = 0; y < taps_; ++y)
                    for (std::size_t x = 0; x < taps_; ++x) sum += down[y] * across[x] * g[taps_ * y + x];
                *u++ = sum;
            }
    }

private:
    void add_points(const std::vector<double> &points) {
        for (double point : points) {
            double distance = 1;
            for (double other : points)
                if (other != point) distance *= point - other;
            rows_.push_back({1 / distance, point / distance, point * point / distance,
                             point * point * point / distance});
        }
    }
    std::size_t taps_ = 3;
    std::vector<std::array<double, 4>> rows_;
};

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
    // Pair `pair` of the kernel row that begins with position t.
    float matrix_pair(int r, int t, int pair) const {
        const int of_position = (strip.kept + 1) / 2, k = pair % std::max(1, of_position) * 2;
        if (r >= rows || pair >= of_position * layer.row_taps) return 0.0f;
        t += pair / of_position;
        return pair_of(kernel(r, k)[t], k + 1 < strip.kept ? kernel(r, k + 1)[t] : 0.0f);
    }
    void matrix(float *to) const {
        const int depth = matrix_depth(strip.kept, layer.row_taps);
        const int pairs = depth_of(strip.kept, Packing::matrix, layer.row_taps);
        for (int t = 0; t < layer.taps; t += layer.row_taps)
            for (int chunk = 0; chunk < pairs; chunk += depth)
                for (int r = 0; r < layer.tile_out; ++r)
                    for (int pair = chunk; pair < chunk + depth; ++pair) *to++ = matrix_pair(r, t, pair);
    }
    // `position`: from one position to the next.
    void winograd(const WinogradKernel &winograd, float *to, ptrdiff_t position) const {
        for (int k = 0; k < strip.kept; ++k, to += layer.tile_out)
            for (int r = 0; r < rows; ++r) {
                double u[49];
                winograd.transform(kernel(r, k), u);
                for (int p = 0; p < winograd.positions(); ++p)
                    to[p * position + r] = static_cast<float>(u[p]);
            }
    }
};

int64_t words_per_tile(const TiledLayer &layer, int kept, Packing packing) {
    const int positions = packing == Packing::winograd_2x2      ? 16
                          : packing == Packing::winograd_4x4    ? 36
                          : packing == Packing::winograd_phases ? 49
                          : packing == Packing::matrix          ? layer.taps / layer.row_taps
                                                                : layer.taps;
    return static_cast<int64_t>(layer.tile_out) * depth_of(kept, packing, layer.row_taps) * positions;
}

// Tiles [tile - tile % together, ..) lie interleaved by position.
void pack_winograd(const TilePacker &packer, const WinogradKernel &winograd, int tile,
                   float *strip_weights) {
    const Strip &strip = packer.strip;
    const int first = tile - tile % strip.together;
    const ptrdiff_t words = static_cast<ptrdiff_t>(strip.kept) * packer.layer.tile_out;
    packer.winograd(winograd, strip_weights + (first * winograd.positions() + tile - first) * words,
                    std::min(strip.together, strip.tiles - first) * words);
}

void pack_strip(const as_op &op, int inputs_per_group, int first_in, Packing packing, const Strip &strip,
                TiledLayer &layer) {
    for (int tile = 0; tile < strip.tiles; ++tile) {
        const int first = tile * layer.tile_out;
        const TilePacker packer{op,
                                layer,
                                strip,
                                inputs_per_group,
                                first_in,
                                strip.first_out + first,
                                std::min(layer.tile_out, strip.rows - first)};
        float *to = layer.packed->weights.data() + strip.weights +
                    tile * words_per_tile(layer, strip.kept, packing);
        if (packing == Packing::plain)
            packer.plain(to);
        else if (packing == Packing::pairs)
            packer.pairs(to);
        else if (packing == Packing::matrix)
            packer.matrix(to);
        else
            pack_winograd(packer, WinogradKernel(packing), tile,
                          layer.packed->weights.data() + strip.weights);
    }
    if (op.bias)
        std::copy_n(op.bias + strip.first_out, strip.rows, layer.packed->bias.begin() + strip.bias);
}

// Equal rounds of at most `most` tiles. Tiles done together read their inputs from the first-level cache,
// but their products lie beyond it: with few kept inputs per product that costs more (Zen 3, tiles of 4
// outputs: 8 and 12 kept inputs 1.05 and 1.1 times as long, 16 to 128 of them 1.04 to 1.4 times as fast).
int tiles_together(const Strip &strip, int tile_out, int most) {
    if (strip.kept < 4 * tile_out) return 1;
    const int rounds = (strip.tiles + most - 1) / most;
    return (strip.tiles + rounds - 1) / rounds;
}

// Rows of a matrix tile.
constexpr int kMostDepth = 16;

}  // namespace

int32_t matrix_depth(int32_t kept, int32_t row_taps) {
    const int32_t pairs = std::max<int32_t>(1, (kept + 1) / 2 * row_taps);
    const int32_t chunks = (pairs + kMostDepth - 1) / kMostDepth;
    return (pairs + chunks - 1) / chunks;
}

int32_t depth_of(int32_t kept, Packing packing, int32_t row_taps) {
    const int32_t pairs = (kept + 1) / 2;
    if (packing == Packing::pairs) return pairs;
    if (packing != Packing::matrix) return kept;
    const int32_t depth = matrix_depth(kept, row_taps);
    return (pairs * row_taps + depth - 1) / depth * depth;
}

TiledLayer tile_layer(const as_op &op, int in_channels, int out_channels, int tile_out, Packing packing,
                      int most_together, int row_taps) {
    TiledLayer layer;
    layer.tile_out = tile_out;
    layer.taps = op.kernel_h * op.kernel_w;
    layer.row_taps = row_taps;
    const std::vector<Group> groups = op.block_n ? onexn_groups(op, out_channels, layer)
                                                 : dense_groups(op, in_channels, out_channels, layer);
    std::vector<int> first_in;  // of every strip
    int64_t weights = 0, bias = 0;
    for (const Group &group : groups)
        for (Strip strip : cut_strips(group, tile_out, op.block_n)) {
            strip.together = tiles_together(strip, tile_out, most_together);
            strip.weights = weights;
            strip.bias = bias;
            bias += static_cast<int64_t>(strip.tiles) * tile_out;
            weights += strip.tiles * words_per_tile(layer, strip.kept, packing);
            layer.most_kept = std::max(layer.most_kept, strip.kept);
            layer.strips.push_back(strip);
            first_in.push_back(group.first_in);
        }
    layer.packed->weights.assign(static_cast<std::size_t>(weights), 0.0f);
    layer.packed->bias.assign(static_cast<std::size_t>(bias), 0.0f);
    for (std::size_t i = 0; i < layer.strips.size(); ++i)
        pack_strip(op, in_channels / op.groups, first_in[i], packing, layer.strips[i], layer);
    return layer;
}

}  // namespace autosparse
