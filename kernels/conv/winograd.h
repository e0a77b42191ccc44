// The convolution operator of the wg, wf and wp kernels.
#pragma once

#include <vector>

#include "conv/phases.h"
#include "conv/structure.h"
#include "conv/table.h"
#include "executor/program.h"

namespace autosparse {

// A 3x3 convolution of stride 1 or 7x7 of stride 2, dense or 1xN, by Winograd's filtering (conv/wg.h).
// Large images are done in blocks of tile rows, each by one task with its transformed inputs in the
// worker's scratch, where they stay in its second-level cache. Images with few blocks are transformed by
// all workers first, and then shared out by strips of outputs.
class WinogradConvolution : public Operator {
public:
    WinogradConvolution(const as_op &op, const Shape &input, const Shape &output, int kernel);

    void constrain(Program &) override;
    std::size_t workspace(const Program &) override;
    std::size_t scratch(const Program &) override;
    void plan(Program &, int op, void *workspace) override;
    std::size_t weight_words() const override { return weight_count_ + bias_count_; }
    void place_weights(float *) override;
    int64_t index_bytes() const override {
        return static_cast<int64_t>(layer_.channels.size() * sizeof(int32_t) +
                                    layer_.strips.size() * sizeof(Strip));
    }
    int kernel() const override { return kernel_; }

private:
    // Rows of tiles [first, first + rows).
    struct Block {
        int32_t first, rows;
    };
    struct Task {
        int32_t image, block, strip;
        int32_t first, last;  // vectors of tiles
    };

    // A convolution of stride 1 over phase planes, with the arrays that its operator points into.
    struct Unstrided {
        as_op op;
        int channels;
        std::vector<float> weight;
        std::vector<int32_t> group_start, kept;
    };

    bool splits_phases() const { return row_.method == Method::wp; }
    Unstrided unstride(const as_op &, const Shape &input, const Shape &output);
    TiledLayer tile(const as_op &, const Shape &input, const Shape &output);
    int64_t phase_floats() const {
        return splits_phases() ? input_shape_.batch * input_shape_.channels * phases_.channel : 0;
    }
    void plan_split(Program &, int op);
    WinogradInput source(const Tensor &input, int image, int channel, int first) const;
    void find_used_channels(int in_channels);
    std::vector<Block> cut(int count) const;
    double cost_of(const std::vector<Block> &) const;
    void cut_blocks(int threads);
    // How transformed inputs of a block lie, [position][channel][tile]: floats from one channel and one
    // position to the next, and in all.
    ptrdiff_t channel_of(const Block &) const;
    ptrdiff_t position_of(const Block &) const;
    ptrdiff_t floats_of(const Block &block) const { return positions() * position_of(block); }
    int vectors_of(const Block &) const;
    // Zeros behind a row that the last pixel's window reads.
    int pad_right() const {
        const int right = output_shape_.width + 2 - op_.pad_left - input_shape_.width;
        return right > 0 ? right : 0;
    }
    int positions() const { return filtering_.in * filtering_.in; }
    ptrdiff_t kernel_scratch() const {
        return static_cast<ptrdiff_t>(positions() * row_.tile_out + out_ * out_) * row_.tile_pixels;
    }
    void transform(const Program &, int image, const Block &, int slot, float *to) const;
    void plan_shared(Program &, int op);
    void plan_blocks(Program &, int op);
    int64_t cost(const Strip &, int vectors) const;
    void run_strip(const Task &, const float *transformed, const Program &, int worker) const;
    void finish(const Task &, const Strip &, const Tensor &output, void *origin) const;

    as_op op_;
    const Shape input_shape_, output_shape_;
    const int kernel_;
    const KernelRow &row_;
    const Filtering filtering_;
    const int out_;  // outputs per side of a tile
    TiledLayer layer_;
    std::size_t weight_count_, bias_count_;
    const float *weights_ = nullptr, *bias_ = nullptr;
    const int tile_rows_, tile_columns_;  // of an image
    std::vector<int32_t> used_;           // channels that some group keeps
    std::vector<int32_t> slot_of_;        // their places, by channel
    std::vector<std::vector<int32_t>>
        channel_offsets_;  // by block, as layer_.channels: in transformed inputs
    bool in_blocks_ = false;
    std::vector<Block> blocks_;
    PhasePlanes phases_;
    float *phase_base_ = nullptr, *workspace_ = nullptr;
    std::vector<Task> tasks_;
};

}  // namespace autosparse
