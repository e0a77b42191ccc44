#include "conv/convolution.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "operators/planes.h"

namespace autosparse {
namespace {

// Inputs of one task should stay in the second-level cache while every tile of outputs passes over them.
constexpr int64_t kInputBytesPerTask = 256 << 10;
// Tasks per thread that let uneven groups even out.
constexpr int kTasksPerThread = 4;
// Whole vectors are loaded a little before the first and beyond the last pixel.
constexpr ptrdiff_t kScratchGuard = 64;

int pad_after(int out, int stride, int kernel, int dilation, int pad_before, int size) {
    return std::max(0, (out - 1) * stride + (kernel - 1) * dilation - pad_before - (size - 1));
}

}  // namespace

Convolution::Convolution(const as_op &op, const Shape &input, const Shape &output, int kernel,
                         bool is_listed)
    : op_(op),
      input_shape_(input),
      output_shape_(output),
      kernel_(kernel),
      is_listed_(is_listed),
      row_(kernel_table()[static_cast<std::size_t>(kernel)]),
      layer_(tile_layer(op, input.channels, output.channels, row_.tile_out)),
      weight_count_(layer_.weights.size()),
      bias_count_(layer_.bias.size()) {
    // The caller's arrays end with the call.
    op_.weight = op_.bias = nullptr;
    op_.group_start = op_.kept = nullptr;
}

Padding Convolution::padding() const {
    return {op_.pad_top, op_.pad_left,
            pad_after(output_shape_.height, op_.stride_h, op_.kernel_h, op_.dilation_h, op_.pad_top,
                      input_shape_.height),
            pad_after(output_shape_.width, op_.stride_w, op_.kernel_w, op_.dilation_w, op_.pad_left,
                      input_shape_.width)};
}

void Convolution::constrain(Program &program) {
    if (splits_phases()) {
        program.widen(op_.output, phase_pitch(op_, input_shape_, output_shape_));
    } else {
        program.pad(op_.inputs[0], padding());
        if (row_.method == Method::px) program.share_pitch(op_.inputs[0], op_.output);
    }
    if (op_.residual >= 0) program.share_pitch(op_.residual, op_.output);
}

std::size_t Convolution::workspace(const Program &program) {
    if (!splits_phases()) return 0;
    // Phase planes have the output's pitch.
    phases_ = phase_planes(op_, output_shape_, program.tensor(op_.output).pitch);
    const int64_t floats =
        static_cast<int64_t>(input_shape_.batch) * input_shape_.channels * phases_.channel;
    require(phases_.channel * input_shape_.channels < INT32_MAX / 2,
            "one image of a strided convolution must stay below 2^30 elements");
    return splits_locally() ? 0 : static_cast<std::size_t>(floats);
}

std::size_t Convolution::scratch(const Program &) {
    return splits_locally() ? static_cast<std::size_t>(phases_.channel + 2 * kScratchGuard) : 0;
}

void Convolution::place_weights(float *place) {
    std::copy(layer_.weights.begin(), layer_.weights.end(), place);
    std::copy(layer_.bias.begin(), layer_.bias.end(), place + weight_count_);
    weights_ = place;
    bias_ = place + weight_count_;
    layer_.weights = std::vector<float>();
    layer_.bias = std::vector<float>();
}

void Convolution::locate_direct(const Tensor &input) {
    for (int ky = 0; ky < op_.kernel_h; ++ky)
        for (int kx = 0; kx < op_.kernel_w; ++kx)
            taps_.push_back((ky * op_.dilation_h - op_.pad_top) * input.pitch + kx * op_.dilation_w -
                            op_.pad_left);
    for (int32_t channel : layer_.channels)
        channel_offsets_.push_back(static_cast<int32_t>(channel * input.plane));
    input_base_ = input.origin(0, 0);
    input_image_ = input.image;
}

void Convolution::locate_phases(const float *workspace) {
    taps_ = phases_.taps;
    const ptrdiff_t step = splits_locally() ? 0 : phases_.channel;
    for (int32_t channel : layer_.channels)
        channel_offsets_.push_back(static_cast<int32_t>(channel * step));
    input_base_ = workspace + phases_.front;
    input_image_ = phases_.channel * input_shape_.channels;
}

// Copies every stride_h-th row and stride_w-th column of a plane into its phase planes.
void Convolution::split_channel(const Tensor &input, int isa, int n, int c, float *to) const {
    for (const PhasePlanes::Plane &p : phases_.planes) {
        const int below = input_shape_.height - p.phase_y;
        const int rows = std::min(below > 0 ? (below + op_.stride_h - 1) / op_.stride_h : 0,
                                  phases_.first_row + phases_.rows);
        const int columns = phase_columns(input_shape_.width, p.phase_x, op_.stride_w, phases_.max_shift_x,
                                          output_shape_.width);
        plane_kernels(isa).split_rows(
            input.origin(n, c) + static_cast<ptrdiff_t>(p.phase_y) * input.pitch + p.phase_x,
            static_cast<ptrdiff_t>(input.pitch) * op_.stride_h, to + phases_.front, phases_.pitch, rows,
            columns, op_.stride_w);
        std::memset(to, 0, static_cast<std::size_t>(phases_.front) * sizeof(float));
        const ptrdiff_t end = phases_.front + static_cast<ptrdiff_t>(rows) * phases_.pitch;
        std::memset(to + end, 0, static_cast<std::size_t>(phases_.plane - end) * sizeof(float));
        to += phases_.plane;
    }
}

void Convolution::plan_split(Program &program, int op, float *workspace) {
    const Tensor &input = program.tensor(op_.inputs[0]);
    const std::vector<int64_t> costs(static_cast<std::size_t>(input_shape_.batch) * input_shape_.channels,
                                     1);
    program.add_step(op, costs, [this, &input, isa = program.isa(), workspace](int task, int) {
        split_channel(input, isa, task / input_shape_.channels, task % input_shape_.channels,
                      workspace + task * phases_.channel);
    });
}

int Convolution::units_per_task(const Program &program, int units, int granule,
                                int64_t bytes_per_unit) const {
    const auto round_up = [granule](int64_t value) {
        return std::max<int64_t>(granule, (value + granule - 1) / granule * granule);
    };
    if (splits_locally()) return units;
    int64_t most = round_up(kInputBytesPerTask / std::max<int64_t>(1, bytes_per_unit));
    if (most * 3 >= units * 2) most = round_up(units);  // no small rest
    const int64_t strips = static_cast<int64_t>(layer_.strips.size()) * output_shape_.batch;
    const int64_t wanted = program.threads() > 1 ? kTasksPerThread * program.threads() : 1;
    if (strips < wanted) most = std::min(most, round_up(units * strips / wanted));
    return static_cast<int>(std::min<int64_t>(most, units));
}

std::vector<Convolution::Task> Convolution::cut_tasks(const Program &program,
                                                      std::vector<int64_t> &costs) const {
    const Tensor &output = program.tensor(op_.output);
    const int lanes = lanes_of(row_.isa);
    const bool px = row_.method == Method::px;
    const int units = px ? static_cast<int>((output.span() + lanes - 1) / lanes) : output_shape_.height;
    const int granule = px ? row_.tile_pixels / lanes : 1;
    const int64_t pixels = px ? lanes : output_shape_.width;
    const int64_t read =
        pixels * input_shape_.channels / op_.groups * (is_strided() ? op_.stride_h * op_.stride_w : 1);
    const int step = units_per_task(program, units, granule, read * static_cast<int64_t>(sizeof(float)));
    std::vector<Task> tasks;
    for (int n = 0; n < output_shape_.batch; ++n)
        for (int first = 0; first < units; first += step)
            for (std::size_t i = 0; i < layer_.strips.size(); ++i) {
                const int last = std::min(units, first + step);
                const Strip &strip = layer_.strips[i];
                tasks.push_back({n, first, last, static_cast<int32_t>(i)});
                // The epilogue counts as a few channels.
                costs.push_back((strip.kept * layer_.taps + 8) * strip.tiles * pixels * (last - first));
            }
    return tasks;
}

void Convolution::plan(Program &program, int op, float *workspace) {
    if (splits_phases()) {
        if (!splits_locally()) plan_split(program, op, workspace);
        locate_phases(workspace);
    } else {
        locate_direct(program.tensor(op_.inputs[0]));
    }
    std::vector<int64_t> costs;
    tasks_ = cut_tasks(program, costs);
    program.add_step(op, costs, [this, &program](int task, int worker) {
        run_task(tasks_[static_cast<std::size_t>(task)], program, worker);
    });
}

ConvCall Convolution::call_for(const Task &task, const Program &program) const {
    const Tensor &output = program.tensor(op_.output);
    const Tensor *residual = op_.residual >= 0 ? &program.tensor(op_.residual) : nullptr;
    const Strip &strip = layer_.strips[static_cast<std::size_t>(task.strip)];
    ConvCall call{};
    call.input = input_base_ + task.image * input_image_;
    call.channels = channel_offsets_.data() + strip.kept_begin;
    call.taps = taps_.data();
    call.weights = weights_ + strip.weights;
    call.bias = bias_ + strip.bias;
    call.output = output.origin(task.image, strip.first_out);
    call.residual = residual ? residual->origin(task.image, strip.first_out) : nullptr;
    call.output_plane = output.plane;
    call.residual_plane = residual ? residual->plane : 0;
    call.valid = output.valid;
    call.kept = strip.kept;
    call.tiles = strip.tiles;
    call.tap_count = layer_.taps;
    call.rows = strip.rows;
    call.low = clamps() ? 0.0f : -INFINITY;
    call.high = op_.activation == AS_ACT_RELU6 ? 6.0f : INFINITY;
    call.first = task.first;
    call.last = task.last;
    call.width = output_shape_.width;
    call.stride_w = op_.stride_w;
    call.input_row = static_cast<ptrdiff_t>(op_.stride_h) * program.tensor(op_.inputs[0]).pitch;
    call.output_row = output.pitch;
    return call;
}

void Convolution::run_task(const Task &task, const Program &program, int worker) const {
    ConvCall call = call_for(task, program);
    if (splits_locally()) {
        const Strip &strip = layer_.strips[static_cast<std::size_t>(task.strip)];
        float *planes = program.scratch(worker) + kScratchGuard;
        split_channel(program.tensor(op_.inputs[0]), program.isa(), task.image,
                      layer_.channels[static_cast<std::size_t>(strip.kept_begin)], planes);
        call.input = planes + phases_.front;
    }
    row_.run(call);
    const Tensor &output = program.tensor(op_.output);
    if (op_.activation != AS_ACT_NONE && !clamps()) activate(call, output, program.isa());
    finish_borders(call, task, output);
}

// px writes whole vectors, zero in the padding between rows; oc writes pixels only.
void Convolution::finish_borders(const ConvCall &call, const Task &task, const Tensor &output) const {
    const bool px = row_.method == Method::px;
    const int lanes = lanes_of(row_.isa);
    const int units = px ? static_cast<int>((output.span() + lanes - 1) / lanes) : output_shape_.height;
    const int gap = output.pitch - output_shape_.width;
    for (int r = 0; r < call.rows; ++r) {
        float *origin = call.output + r * call.output_plane;
        if (task.first == 0) zero_front(output, origin);
        if (!px && gap)
            for (int y = task.first; y < std::min(task.last, output_shape_.height - 1); ++y)
                std::fill_n(origin + static_cast<ptrdiff_t>(y) * output.pitch + output_shape_.width, gap,
                            0.0f);
        if (task.last == units)
            zero_tail(output, origin, px ? static_cast<ptrdiff_t>(units) * lanes : output.span());
    }
}

void Convolution::activate(const ConvCall &call, const Tensor &output, int isa) const {
    const bool px = row_.method == Method::px;
    const ptrdiff_t unit = px ? lanes_of(row_.isa) : output.pitch;
    const ptrdiff_t begin = call.first * unit;
    const ptrdiff_t end = px ? call.last * unit : (call.last - 1) * unit + output_shape_.width;
    for (int r = 0; r < call.rows; ++r)
        plane_kernels(isa).activate(call.output + r * call.output_plane + begin, output.valid + begin,
                                    end - begin, op_.activation);
}

}  // namespace autosparse
