// How strided convolutions get their phase planes (conv/phases.h).
#include <algorithm>

#include "conv/convolution.h"

namespace autosparse {
namespace {

// Inputs that are split while one comes from another processor.
constexpr int kInputsAhead = 3;

}  // namespace

// Where workers divide pixels, each splits what its tasks read: that lies in its own cache, and no one
// waits. Where they divide outputs, each would split everything.
void Convolution::choose_splitting(const Program &program) {
    if (!splits_phases()) return;
    if (is_depthwise())
        splitting_ = Splitting::channel;
    else if (!takes_pairs() && !widens() && (program.threads() == 1 || prefers_bands_))
        splitting_ = Splitting::task;
    else
        splitting_ = Splitting::step;
    if (splitting_ != Splitting::task) return;
    task_plane_ = plane_of_rows(phases_, most_split_rows(program));
    std::vector<bool> is_kept(static_cast<std::size_t>(input_shape_.channels));
    for (int32_t channel : layer_.channels) is_kept[static_cast<std::size_t>(channel)] = true;
    for (int32_t channel = 0; channel < input_shape_.channels; ++channel)
        if (is_kept[static_cast<std::size_t>(channel)]) split_.push_back(channel);
}

// Of phase planes, that a task reads.
int Convolution::most_split_rows(const Program &program) const {
    const int pixels = units_per_task(program) * row_.lanes;
    const int rows = std::min(output_shape_.height, (pixels - 1) / phases_.pitch + 2);
    return rows + phases_.rows - output_shape_.height;
}

// The same of one task; the first of them may lie above the image.
Rows Convolution::split_rows_of(const Task &task) const {
    const int first = task.first * row_.lanes / phases_.pitch;
    const int last = std::min(output_shape_.height - 1, (task.last * row_.lanes - 1) / phases_.pitch);
    return {first + phases_.first_row, last + 1 + phases_.first_row + phases_.rows - output_shape_.height};
}

// In the scratch of a worker.
ptrdiff_t Convolution::split_floats() const {
    if (splitting_ == Splitting::channel) return phases_.channel;
    return static_cast<ptrdiff_t>(split_.size()) * static_cast<ptrdiff_t>(phases_.planes.size()) *
           task_plane_;
}

// The place of a channel's planes among the others'.
int32_t Convolution::slot_of(int32_t channel) const {
    if (splitting_ != Splitting::task) return channel;
    return static_cast<int32_t>(std::lower_bound(split_.begin(), split_.end(), channel) - split_.begin());
}

void Convolution::locate_phases(const void *workspace) {
    if (splitting_ == Splitting::task) {
        for (std::size_t t = 0; t < phases_.taps.size(); ++t)
            taps_.push_back(
                static_cast<int32_t>(phases_.tap_plane[t] * task_plane_ + phases_.tap_shift[t]));
        input_channel_ = static_cast<ptrdiff_t>(phases_.planes.size()) * task_plane_;
        return;
    }
    taps_ = phases_.taps;
    input_base_ = offset(workspace, dtype_, phases_.front);
    input_image_ = phases_.channel * input_shape_.channels;
    input_channel_ = splitting_ == Splitting::channel ? 0 : phases_.channel;
}

// Depthwise: a task reads one channel.
void Convolution::take_channel(const Task &task, const Program &program, int worker, ConvCall &call) const {
    const Strip &strip = layer_.strips[static_cast<std::size_t>(task.strip)];
    float *planes = program.scratch(worker) + kScratchGuard;
    split_channel(program.tensor(op_.inputs[0]), program.isa(), task.image,
                  layer_.channels[static_cast<std::size_t>(strip.kept_begin)], {0, phases_.rows}, nullptr,
                  planes);
    call.input = planes + phases_.front;
}

void Convolution::take_rows(const Task &task, const Program &program, int worker, ConvCall &call) {
    const Tensor &input = program.tensor(op_.inputs[0]);
    const Rows rows = split_rows_of(task);
    float *planes = program.scratch(worker) + kScratchGuard;
    call.input = planes + front_of_rows(phases_) - static_cast<ptrdiff_t>(rows.first) * phases_.pitch;
    if (holds({task.image, task.first, 0, 0}, worker)) return;
    for (std::size_t i = 0; i < split_.size(); ++i, planes += input_channel_) {
        if (program.threads() > 1 && i + kInputsAhead < split_.size())
            prefetch_rows(input, task.image, split_[i + kInputsAhead], rows.first * op_.stride_h,
                          rows.last * op_.stride_h);
        split_phase_rows(phases_, op_, input, output_shape_.width, program.isa(), task.image, split_[i],
                         rows.first, rows.last - rows.first, task_plane_, planes);
    }
}

void Convolution::split_channel(const Tensor &input, int isa, int n, int c, const Rows &rows, float *spare,
                                void *to) const {
    split_phases(phases_, op_, input, output_shape_.width, isa, widens(), n, c,
                 {rows.first, rows.last, spare}, to);
}

// Rows of the phase planes in the band of as many rows of outputs; the last has what is below them too.
Rows Convolution::split_rows(int band) const {
    Rows rows = Program::band(output_shape_, band, split_bands_);
    if (band == split_bands_ - 1) rows.last = phases_.rows;
    return rows;
}

void Convolution::plan_split(Program &program, int op, void *workspace) {
    const Tensor &input = program.tensor(op_.inputs[0]);
    const int channels = input_shape_.channels;
    const int tasks = input_shape_.batch * split_bands_ * channels;
    // Calls `body(image, channel, band)`, bands outside of channels.
    const auto with = [channels, bands = split_bands_](int task, auto &&body) {
        const int band = task / channels % bands;
        body(task / channels / bands, Program::turn(task % channels, channels, band), band);
    };
    const auto planes = [this, workspace](int n, int c) {
        return offset(workspace, dtype_,
                      (static_cast<ptrdiff_t>(n) * input_shape_.channels + c) * phases_.channel);
    };
    program.add_step(
        op, std::vector<int64_t>(static_cast<std::size_t>(tasks), 1),
        [this, &program, &input, with, planes](int task, int worker) {
            with(task, [&](int n, int c, int band) {
                split_channel(input, program.isa(), n, c, split_rows(band), program.scratch(worker),
                              planes(n, c));
            });
        },
        [this, &input, with, planes](int task, LineMoves &moves) {
            with(task, [&](int n, int c, int band) {
                touch_split(input, n, c, split_rows(band), planes(n, c), moves);
            });
        });
}

}  // namespace autosparse
