// The convolution operator of the wg, wf and wp kernels.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "conv/phases.h"
#include "conv/structure.h"
#include "conv/table.h"
#include "executor/program.h"

namespace autosparse {

// A 3x3 convolution of stride 1 or 7x7 of stride 2, dense or 1xN, by Winograd's filtering (conv/wg.h).
//
// An image is done in blocks of tile rows. A task is a strip of outputs of one block; the worker has the
// block's transformed inputs in its own scratch memory from its task before, or makes them. So workers
// never read each other's: small images are one block, which every worker transforms for itself.
class WinogradConvolution : public Operator {
public:
    WinogradConvolution(const as_op &op, const Shape &input, const Shape &output, int kernel);

    std::unique_ptr<Operator> again(const as_op &op) const override;
    void constrain(Program &) override;
    void divide(Program &) override;
    bool suits_bands(const Program &) const override {
        return static_cast<int64_t>(weight_count_ * sizeof(float)) <
               kWeightsPerForeignLine * image_bytes(input_shape_, AS_F32);
    }
    std::size_t scratch(const Program &) override;
    void plan(Program &, int op, void *workspace) override;
    std::size_t weight_words() const override { return weight_count_ + bias_count_; }
    void place_weights(float *) override;
    const TiledLayer *unplaced() const override { return &layer_; }
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
    // Whose transformed inputs a worker has in its scratch memory.
    struct alignas(64) Held {
        int32_t image = -1, block = -1;
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
    // Rows of the phase planes that a block's windows reach.
    int phase_rows_of(const Block &block) const {
        return std::min(out_ * block.rows + filtering_.in - out_, phases_.rows - out_ * block.first);
    }
    ptrdiff_t phase_floats(const Block &block) const {
        return static_cast<ptrdiff_t>(phases_.planes.size()) * plane_of_rows(phases_, phase_rows_of(block));
    }
    void find_used_channels(int in_channels);
    std::vector<Block> cut(int count) const;
    double cost_of(const std::vector<Block> &, int threads, bool input_is_in_bands) const;
    void cut_blocks(int threads, bool input_is_in_bands);
    // Blocks are cut once more where there would be too few tasks.
    int vectors_per_task(const Block &, int threads) const;
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
    int most_together() const;
    // Floats that a kernel holds its products and lines of outputs in (conv/call.h).
    ptrdiff_t kernel_scratch() const;
    std::vector<int64_t> cut_tasks(int threads);
    const float *transformed(const Program &, const Task &, int worker);
    WinogradInput source(const Tensor &input, int image, int slot, int first) const;
    WinogradInput phase_source(const Block &, int slot, const float *phases) const;
    void prefetch_input(const Program &program, const Task &task, int slot) const;
    int64_t cost(const Strip &, int vectors) const;
    void touch_task(const Task &, const Program &, LineMoves &) const;
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
    std::vector<Block> blocks_;
    ptrdiff_t transformed_floats_ = 0;  // of the largest block
    PhasePlanes phases_;
    std::vector<Task> tasks_;
    std::vector<Held> held_;  // by worker
};

}  // namespace autosparse
