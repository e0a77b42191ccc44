// The convolution operator: dense, 1xN or grouped, and linear layers.
#pragma once

#include <memory>
#include <vector>

#include "conv/panel.h"
#include "conv/phases.h"
#include "conv/structure.h"
#include "conv/table.h"
#include "executor/program.h"

namespace autosparse {

// Whole vectors are loaded a little before the first and beyond the last pixel.
constexpr ptrdiff_t kScratchGuard = 64;

class Convolution : public Operator {
public:
    // `dtype` is the input tensor's; `kernel` is the row that runs it, `is_listed` whether that row is the
    // operator's own contract.
    Convolution(const as_op &op, const Shape &input, const Shape &output, int dtype, int kernel,
                bool is_listed);

    std::unique_ptr<Operator> again(const as_op &op) const override;
    void constrain(Program &) override;
    void divide(Program &) override;
    bool suits_bands(const Program &) const override {
        return weight_bytes() < kWeightsPerForeignLine * input_bytes();
    }
    std::size_t workspace(const Program &) override;
    std::size_t scratch(const Program &) override;
    void plan(Program &, int op, void *workspace) override;
    std::size_t weight_words() const override { return weight_count_ + bias_count_; }
    void place_weights(float *) override;
    const TiledLayer *unplaced() const override { return &layer_; }
    int64_t index_bytes() const override {
        return static_cast<int64_t>(layer_.channels.size() * sizeof(int32_t) +
                                    layer_.strips.size() * sizeof(Strip));
    }
    int kernel() const override { return is_listed_ ? kernel_ : AS_KERNEL_BUILTIN; }

private:
    struct Task {
        int32_t image, first, last, strip;
    };

    // What lies in a worker's scratch: strips that share kept inputs share a panel, and all share phase
    // planes.
    struct Held {
        int32_t image = -1, first, kept_begin, kept;
    };
    // One per cache line.
    struct alignas(64) Holder {
        Held held;
    };
    // Who makes phase planes: a step of its own, for all; or the task that reads them, in its worker's
    // scratch, those of its one channel, or its rows of all channels.
    enum class Splitting { none, step, channel, task };

    bool is_strided() const { return op_.stride_h > 1 || op_.stride_w > 1; }
    // bf16 arithmetic takes kept inputs two at a time, from a panel in the worker's scratch.
    bool takes_pairs() const { return row_.dtype == AS_BF16; }
    bool takes_matrices() const { return row_.method == Method::mx; }
    // One copy per position of a kernel row pays where all outputs read them.
    bool copies_rows() const { return takes_matrices() && op_.block_n == 0; }
    // Of the panel, at most.
    int32_t most_pairs() const { return depth_of(layer_.most_kept, packing(), layer_.row_taps); }
    int64_t panel_words() const {
        return copies_rows() ? static_cast<int64_t>(panel_.planes.size()) / panel_.copies * panel_.row_set
                             : panel_.words(most_pairs());
    }
    Packing packing() const {
        if (takes_matrices()) return Packing::matrix;
        return takes_pairs() ? Packing::pairs : Packing::plain;
    }
    bool is_depthwise() const { return op_.groups > 1 && op_.groups == input_shape_.channels; }
    // Depthwise convolutions of bf16 compute in float: a channel is widened on the way.
    bool widens() const { return dtype_ == AS_BF16 && !takes_pairs(); }
    bool splits_phases() const { return row_.is_flat() && (is_strided() || widens()); }
    bool clamps() const { return op_.activation == AS_ACT_RELU || op_.activation == AS_ACT_RELU6; }
    Padding padding() const;
    int64_t input_row(const Program &program) const {
        return static_cast<int64_t>(op_.stride_h) * program.tensor(op_.inputs[0]).pitch;
    }
    void prefer_whole_lines(Program &program) const;
    std::vector<int32_t> direct_taps(const Tensor &input) const;
    void locate_direct(const Tensor &input);
    void choose_splitting(const Program &);
    int most_split_rows(const Program &) const;
    Rows split_rows_of(const Task &) const;
    ptrdiff_t split_floats() const;
    int32_t slot_of(int32_t channel) const;
    void locate_phases(const void *workspace);
    void locate_panel();
    void make_panel(const Program &);
    void split_channel(const Tensor &input, int isa, int n, int c, const Rows &, float *spare,
                       void *to) const;
    void take_channel(const Task &, const Program &, int worker, ConvCall &) const;
    void take_rows(const Task &, const Program &, int worker, ConvCall &);
    Rows split_rows(int band) const;
    void plan_split(Program &, int op, void *workspace);
    std::vector<Task> cut_tasks(const Program &, std::vector<int64_t> &costs) const;
    // px: vectors of flattened pixels; oc: rows.
    int units(const Program &) const;
    bool prefers_bands(const Program &) const;
    int64_t weight_bytes() const { return static_cast<int64_t>(weight_count_ * sizeof(float)); }
    int64_t input_bytes() const;
    // Outputs are divided into as many parts, each with all pixels before the next.
    int parts_of_outputs(const Program &) const;
    // Bands are whole numbers of so many units.
    int band_granule(const Program &) const;
    // From which unit on a stretch of pixels reaches, of `count` in all.
    int first_unit(const Program &, int stretch, int count) const;
    int units_per_task(const Program &) const;
    int64_t bytes_per_unit(const Program &) const;
    ConvCall call_for(const Task &, const Program &) const;
    // Elements around a pixel that are read of a plane, which begins `plane` behind its channel's first.
    struct Reach {
        ptrdiff_t plane = 0, before = 0, behind = 0;
    };
    std::vector<Reach> reaches(const Program &) const;
    void touch_input(const Task &, const Program &, LineMoves &) const;
    void touch_split(const Tensor &input, int n, int c, const Rows &, const void *planes,
                     LineMoves &) const;
    void touch_task(const Task &, const Program &, LineMoves &) const;
    Panel lay_out(const std::vector<ptrdiff_t> &planes, const std::vector<int32_t> &tap_plane,
                  const std::vector<int32_t> &tap_shift, ptrdiff_t span) const;
    ptrdiff_t start_of(const Task &, const Program &) const;
    bool holds(const Held &wanted, int worker);
    void take_panel(const Task &, const Program &, int worker, ConvCall &);
    void fill_panel(const Task &, const Program &, const void *input, float *panel) const;
    void fill_matrix_panel(const Task &, const void *input, float *panel) const;
    void run_task(const Task &, const Program &, int worker);
    void finish_borders(const ConvCall &, const Task &, const Tensor &output) const;
    void activate(const ConvCall &, const Tensor &output, int isa) const;

    as_op op_;
    const Shape input_shape_, output_shape_;
    const int dtype_;
    const int kernel_;
    const bool is_listed_;
    const KernelRow &row_;
    TiledLayer layer_;
    std::size_t weight_count_, bias_count_;
    const float *weights_ = nullptr, *bias_ = nullptr;
    PhasePlanes phases_;
    Panel panel_;
    bool prefers_bands_ = false;
    int split_bands_ = 1;  // of the phase planes
    int task_units_ = 0;   // that the panel has room for
    Splitting splitting_ = Splitting::none;
    std::vector<int32_t> split_;   // channels that some strip keeps, where tasks split them
    ptrdiff_t task_plane_ = 0;     // from one of their phase planes to the next
    std::vector<Holder> holders_;  // per worker
    std::vector<int32_t> taps_, channel_offsets_;
    const void *input_base_ = nullptr;  // origin of image 0
    ptrdiff_t input_image_ = 0;
    ptrdiff_t input_channel_ = 0;
    std::vector<Task> tasks_;
};

}  // namespace autosparse
