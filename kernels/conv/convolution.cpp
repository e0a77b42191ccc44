#include "conv/convolution.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/bf16.h"
#include "operators/planes.h"

namespace autosparse {
namespace {

// Inputs of one task should stay in the second-level cache while every tile of outputs passes over them.
constexpr int64_t kInputBytesPerTask = 256 << 10;
// The same of processors with matrix tiles, whose second-level caches have 2 MiB: the panel holds every input
// several times, and every task streams all weights.
constexpr int64_t kMatrixPanelBytes = 512 << 10;
// Rows of pixels become at most this much longer for the sake of matrix panels.
constexpr double kMostLengthening = 1.15;
// Tasks per thread that let uneven groups even out.
constexpr int kTasksPerThread = 4;
// Whole vectors are loaded a little before the first and beyond the last pixel.
constexpr ptrdiff_t kScratchGuard = 64;

int pad_after(int out, int stride, int kernel, int dilation, int pad_before, int size) {
    return std::max(0, (out - 1) * stride + (kernel - 1) * dilation - pad_before - (size - 1));
}

}  // namespace

Convolution::Convolution(const as_op &op, const Shape &input, const Shape &output, int dtype, int kernel,
                         bool is_listed)
    : op_(op),
      input_shape_(input),
      output_shape_(output),
      dtype_(dtype),
      kernel_(kernel),
      is_listed_(is_listed),
      row_(kernel_table()[static_cast<std::size_t>(kernel)]),
      layer_(tile_layer(op, input.channels, output.channels, row_.tile_out, packing(), 1,
                        copies_rows() ? op.kernel_w : 1)),
      weight_count_(layer_.weights.size()),
      bias_count_(layer_.bias.size()) {
    // The caller's arrays end with the call.
    op_.weight = op_.bias = nullptr;
    op_.group_start = op_.kept = nullptr;
    // Whatever the arithmetic, the layer is one of bf16 weights.
    if (widens())
        for (float &weight : layer_.weights) weight = to_float(to_bf16(weight));
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
        if (row_.is_flat()) program.share_pitch(op_.inputs[0], op_.output);
    }
    if (op_.residual >= 0) program.share_pitch(op_.residual, op_.output);
    if (copies_rows() && op_.kernel_h > 1) prefer_whole_lines(program);
}

// Kernel rows whole cache lines apart share their part of a matrix panel, where that lengthens rows little.
void Convolution::prefer_whole_lines(Program &program) const {
    const int pitch = splits_phases() ? phase_pitch(op_, input_shape_, output_shape_)
                                      : output_shape_.width + std::max(padding().left, padding().right);
    const int whole = (pitch + kMatrixSide - 1) / kMatrixSide * kMatrixSide;
    if (whole <= pitch * kMostLengthening) program.widen(op_.output, whole);
}

std::size_t Convolution::workspace(const Program &program) {
    if (!splits_phases()) return 0;
    // Phase planes have the output's pitch.
    phases_ = phase_planes(op_, output_shape_, program.tensor(op_.output).pitch);
    const int64_t elements =
        static_cast<int64_t>(input_shape_.batch) * input_shape_.channels * phases_.channel;
    require(phases_.channel * input_shape_.channels < INT32_MAX / 2,
            "one image of a strided convolution must stay below 2^30 elements");
    return splits_locally() ? 0 : static_cast<std::size_t>(elements * bytes_of(dtype_));
}

std::size_t Convolution::scratch(const Program &program) {
    if (splits_locally())
        return static_cast<std::size_t>(phases_.channel + 2 * kScratchGuard) * sizeof(float);
    if (!takes_pairs()) return 0;
    make_panel(program);
    const int64_t words = panel_words() + 2 * kScratchGuard;
    require(words < INT32_MAX / 2, "the kept inputs of a bf16 convolution must stay below 2^30 elements");
    return static_cast<std::size_t>(words) * sizeof(float);
}

void Convolution::place_weights(float *place) {
    std::copy(layer_.weights.begin(), layer_.weights.end(), place);
    std::copy(layer_.bias.begin(), layer_.bias.end(), place + weight_count_);
    weights_ = place;
    bias_ = place + weight_count_;
    layer_.weights = std::vector<float>();
    layer_.bias = std::vector<float>();
}

std::vector<int32_t> Convolution::direct_taps(const Tensor &input) const {
    std::vector<int32_t> taps;
    for (int ky = 0; ky < op_.kernel_h; ++ky)
        for (int kx = 0; kx < op_.kernel_w; ++kx)
            taps.push_back((ky * op_.dilation_h - op_.pad_top) * input.pitch + kx * op_.dilation_w -
                           op_.pad_left);
    return taps;
}

void Convolution::locate_direct(const Tensor &input) {
    taps_ = direct_taps(input);
    input_base_ = input.origin(0, 0);
    input_image_ = input.image;
    input_channel_ = input.plane;
}

void Convolution::locate_phases(const void *workspace) {
    taps_ = phases_.taps;
    input_base_ = offset(workspace, dtype_, phases_.front);
    input_image_ = phases_.channel * input_shape_.channels;
    input_channel_ = splits_locally() ? 0 : phases_.channel;
}

// Kept pairs lie one after another, whichever they are.
void Convolution::locate_panel() {
    taps_ = panel_.taps;
    for (int pair = 0; pair < most_pairs(); ++pair)
        channel_offsets_.push_back(static_cast<int32_t>(pair * panel_.pair));
}

void Convolution::make_panel(const Program &program) {
    const int units = task_units_ = units_per_task(program);
    if (row_.method == Method::oc) {
        const std::vector<int32_t> taps = direct_taps(program.tensor(op_.inputs[0]));
        const ptrdiff_t width = static_cast<ptrdiff_t>(output_shape_.width - 1) * op_.stride_w + 1;
        panel_ = lay_out_panel({0}, std::vector<int32_t>(taps.size(), 0), taps,
                               (units - 1) * input_row(program) + width);
        return;
    }
    const ptrdiff_t span = static_cast<ptrdiff_t>(units) * row_.lanes;
    if (splits_phases()) {
        std::vector<ptrdiff_t> planes;
        for (std::size_t i = 0; i < phases_.planes.size(); ++i)
            planes.push_back(static_cast<ptrdiff_t>(i) * phases_.plane);
        panel_ = lay_out(planes, phases_.tap_plane, phases_.tap_shift, span);
    } else {
        const std::vector<int32_t> taps = direct_taps(program.tensor(op_.inputs[0]));
        panel_ = lay_out({0}, std::vector<int32_t>(taps.size(), 0), taps, span);
    }
}

Panel Convolution::lay_out(const std::vector<ptrdiff_t> &planes, const std::vector<int32_t> &tap_plane,
                           const std::vector<int32_t> &tap_shift, ptrdiff_t span) const {
    if (!copies_rows()) return lay_out_panel(planes, tap_plane, tap_shift, span);
    return lay_out_matrix_panel(planes, tap_plane, tap_shift, layer_.row_taps, most_pairs(), span);
}

void Convolution::split_channel(const Tensor &input, int isa, int n, int c, void *to) const {
    split_phases(phases_, op_, input, output_shape_.width, isa, widens(), n, c, to);
}

void Convolution::plan_split(Program &program, int op, void *workspace) {
    const Tensor &input = program.tensor(op_.inputs[0]);
    const std::vector<int64_t> costs(static_cast<std::size_t>(input_shape_.batch) * input_shape_.channels,
                                     1);
    program.add_step(op, costs, [this, &input, isa = program.isa(), workspace](int task, int) {
        split_channel(input, isa, task / input_shape_.channels, task % input_shape_.channels,
                      offset(workspace, dtype_, task * phases_.channel));
    });
}

int Convolution::units(const Program &program) const {
    const int lanes = row_.lanes;
    if (row_.method == Method::oc) return output_shape_.height;
    return static_cast<int>((program.tensor(op_.output).span() + lanes - 1) / lanes);
}

int64_t Convolution::bytes_per_unit(const Program &program) const {
    const bool px = row_.is_flat();
    if (takes_pairs()) {
        const int64_t planes = splits_phases() ? static_cast<int64_t>(phases_.planes.size()) : 1;
        // Matrix panels hold the positions of a kernel row beside each other, once per phase of rows.
        const int64_t copies = copies_rows() ? std::min(op_.stride_h, op_.kernel_h) : planes;
        return (px ? row_.lanes : input_row(program)) * copies * most_pairs() * 4;
    }
    return static_cast<int64_t>(px ? row_.lanes : output_shape_.width) * input_shape_.channels /
           op_.groups * (is_strided() ? op_.stride_h * op_.stride_w : 1) *
           static_cast<int64_t>(sizeof(float));
}

// Workers that share an image read each other's inputs if they divide the outputs among them, and the same
// weights if they divide the pixels.
bool Convolution::prefers_bands(const Program &program) const {
    const int64_t inputs =
        static_cast<int64_t>(input_shape_.channels) * input_shape_.height * input_shape_.width;
    const int64_t weights = static_cast<int64_t>(weight_count_) * static_cast<int64_t>(sizeof(float));
    return program.threads() > 1 && inputs * bytes_of(dtype_) > weights;
}

int Convolution::units_per_task(const Program &program) const {
    const int all = units(program);
    if (splits_locally()) return all;
    const int granule = row_.is_flat() ? row_.tile_pixels / row_.lanes : 1;
    const auto round_up = [granule](int64_t value) {
        return std::max<int64_t>(granule, (value + granule - 1) / granule * granule);
    };
    const int64_t bytes = copies_rows() ? kMatrixPanelBytes : kInputBytesPerTask;
    int64_t most = round_up(bytes / std::max<int64_t>(1, bytes_per_unit(program)));
    if (most * 3 >= all * 2) most = round_up(all);  // no small rest
    if (prefers_bands(program)) {
        const int64_t threads = program.threads(), blocks = (all + most - 1) / most;
        const int64_t bands = (blocks + threads - 1) / threads * threads;
        most = round_up((all + bands - 1) / bands);
    }
    const int64_t strips = static_cast<int64_t>(layer_.strips.size()) * output_shape_.batch;
    const int64_t wanted = program.threads() > 1 ? kTasksPerThread * program.threads() : 1;
    if (strips < wanted) most = std::min(most, round_up(all * strips / wanted));
    return static_cast<int>(std::min<int64_t>(most, all));
}

std::vector<Convolution::Task> Convolution::cut_tasks(const Program &program,
                                                      std::vector<int64_t> &costs) const {
    const int all = units(program), step = units_per_task(program);
    const int64_t pixels = row_.is_flat() ? row_.lanes : output_shape_.width;
    std::vector<Task> tasks;
    for (int n = 0; n < output_shape_.batch; ++n)
        for (int first = 0; first < all; first += step)
            for (std::size_t i = 0; i < layer_.strips.size(); ++i) {
                const int last = std::min(all, first + step);
                const Strip &strip = layer_.strips[i];
                tasks.push_back({n, first, last, static_cast<int32_t>(i)});
                // The epilogue counts as a few channels.
                costs.push_back((strip.kept * layer_.taps + 8) * strip.tiles * pixels * (last - first));
            }
    return tasks;
}

void Convolution::plan(Program &program, int op, void *workspace) {
    if (splits_phases()) {
        if (!splits_locally()) plan_split(program, op, workspace);
        locate_phases(workspace);
    } else {
        locate_direct(program.tensor(op_.inputs[0]));
    }
    if (takes_pairs())
        locate_panel();
    else
        for (int32_t channel : layer_.channels)
            channel_offsets_.push_back(static_cast<int32_t>(channel * input_channel_));
    std::vector<int64_t> costs;
    tasks_ = cut_tasks(program, costs);
    Step &step = program.add_step(op, costs, [this, &program](int task, int worker) {
        run_task(tasks_[static_cast<std::size_t>(task)], program, worker);
    });
    if (!takes_pairs()) return;
    // A run's panels are worth nothing to the next.
    holders_.resize(static_cast<std::size_t>(program.threads()));
    step.prepare = [this](int worker) { holders_[static_cast<std::size_t>(worker)].image = -1; };
}

ConvCall Convolution::call_for(const Task &task, const Program &program) const {
    const Tensor &output = program.tensor(op_.output);
    const Tensor *residual = op_.residual >= 0 ? &program.tensor(op_.residual) : nullptr;
    const Strip &strip = layer_.strips[static_cast<std::size_t>(task.strip)];
    ConvCall call{};
    call.input = static_cast<const float *>(offset(input_base_, dtype_, task.image * input_image_));
    call.channels = channel_offsets_.data() + (takes_pairs() ? 0 : strip.kept_begin);
    call.taps = taps_.data();
    call.weights = weights_ + strip.weights;
    call.bias = bias_ + strip.bias;
    call.output = output.origin(task.image, strip.first_out);
    call.residual = residual ? residual->origin(task.image, strip.first_out) : nullptr;
    call.output_plane = output.plane;
    call.residual_plane = residual ? residual->plane : 0;
    call.valid = output.valid;
    call.kept = depth_of(strip.kept, packing(), layer_.row_taps);
    call.output_dtype = output.dtype;
    call.depth = matrix_depth(strip.kept, layer_.row_taps);
    call.pair = panel_.pair;
    call.tiles = strip.tiles;
    call.tap_count = layer_.taps / layer_.row_taps;
    call.rows = strip.rows;
    call.low = clamps() ? 0.0f : -INFINITY;
    call.high = op_.activation == AS_ACT_RELU6 ? 6.0f : INFINITY;
    call.first = task.first;
    call.last = task.last;
    call.width = output_shape_.width;
    call.stride_w = op_.stride_w;
    call.input_row = input_row(program);
    call.output_row = output.pitch;
    return call;
}

// First pixel of a task.
ptrdiff_t Convolution::start_of(const Task &task, const Program &program) const {
    return task.first * (row_.is_flat() ? static_cast<ptrdiff_t>(row_.lanes) : input_row(program));
}

// Whether a worker's panel is that of this task; from now on it is.
bool Convolution::holds_panel(const Task &task, int worker) {
    const Strip &strip = layer_.strips[static_cast<std::size_t>(task.strip)];
    PanelHolder &holder = holders_[static_cast<std::size_t>(worker)];
    if (holder.image == task.image && holder.first == task.first && holder.kept_begin == strip.kept_begin &&
        holder.kept == strip.kept)
        return true;
    holder.image = task.image;
    holder.first = task.first;
    holder.kept_begin = strip.kept_begin;
    holder.kept = strip.kept;
    return false;
}

void Convolution::take_panel(const Task &task, const Program &program, int worker, ConvCall &call) {
    float *panel = program.scratch(worker);
    const bool is_filled = holds_panel(task, worker);
    if (!is_filled && copies_rows())
        fill_matrix_panel(task, call.input, panel);
    else if (!is_filled)
        fill_panel(task, program, call.input, panel);
    call.input = panel + panel_.reach_before - start_of(task, program);
}

void Convolution::fill_panel(const Task &task, const Program &program, const void *input,
                             float *panel) const {
    const Strip &strip = layer_.strips[static_cast<std::size_t>(task.strip)];
    const ptrdiff_t unit = row_.is_flat() ? row_.lanes : input_row(program);
    const ptrdiff_t start = start_of(task, program);
    const ptrdiff_t length = panel_.length - (task_units_ - (task.last - task.first)) * unit;
    const auto interleave = plane_kernels(program.isa(), AS_BF16).interleave;
    const int32_t *kept = layer_.channels.data() + strip.kept_begin;
    const auto at = [&](int k, ptrdiff_t plane) {
        return k < strip.kept ? offset(input, AS_BF16,
                                       kept[k] * input_channel_ + plane + start - panel_.reach_before)
                              : nullptr;
    };
    // Matrix tiles read pairs beyond the last: their weights are zero, but what they meet must be finite.
    const int pairs = depth_of(strip.kept, packing(), 1);
    for (int k = 0; k < 2 * pairs; k += 2)
        for (std::size_t p = 0; p < panel_.planes.size(); ++p)
            interleave(at(k, panel_.planes[p]), at(k + 1, panel_.planes[p]),
                       panel + k / 2 * panel_.pair + static_cast<ptrdiff_t>(p) * panel_.plane, length);
}

void Convolution::fill_matrix_panel(const Task &task, const void *input, float *panel) const {
    const Strip &strip = layer_.strips[static_cast<std::size_t>(task.strip)];
    const ptrdiff_t units = task.last - task.first;
    MatrixPanelCall call{};
    const ptrdiff_t start = static_cast<ptrdiff_t>(task.first) * row_.lanes;
    call.pixel = offset(input, AS_BF16, start - panel_.reach_before);
    call.channels = layer_.channels.data() + strip.kept_begin;
    call.channel = input_channel_;
    call.shifts = panel_.planes.data();
    call.kept = strip.kept;
    call.positions = panel_.copies;
    call.sets = static_cast<int32_t>(panel_.planes.size()) / call.positions;
    call.rows = depth_of(strip.kept, packing(), layer_.row_taps);
    call.length = panel_.length - (task_units_ - units) * row_.lanes;
    call.row = panel_.pair;
    call.set = panel_.row_set;
    call.out = panel;
    matrix_panel_fill(row_.isa)(call);
}

void Convolution::run_task(const Task &task, const Program &program, int worker) {
    ConvCall call = call_for(task, program);
    if (splits_locally()) {
        const Strip &strip = layer_.strips[static_cast<std::size_t>(task.strip)];
        float *planes = program.scratch(worker) + kScratchGuard;
        split_channel(program.tensor(op_.inputs[0]), program.isa(), task.image,
                      layer_.channels[static_cast<std::size_t>(strip.kept_begin)], planes);
        call.input = planes + phases_.front;
    } else if (takes_pairs()) {
        take_panel(task, program, worker, call);
    }
    row_.run(call);
    const Tensor &output = program.tensor(op_.output);
    if (op_.activation != AS_ACT_NONE && !clamps()) activate(call, output, program.isa());
    finish_borders(call, task, output);
}

// px writes whole vectors, zero in the padding between rows; oc writes pixels only.
void Convolution::finish_borders(const ConvCall &call, const Task &task, const Tensor &output) const {
    const bool px = row_.is_flat();
    const int lanes = row_.lanes;
    const int units = px ? static_cast<int>((output.span() + lanes - 1) / lanes) : output_shape_.height;
    const int gap = output.pitch - output_shape_.width;
    for (int r = 0; r < call.rows; ++r) {
        void *origin = offset(call.output, output.dtype, r * call.output_plane);
        if (task.first == 0) zero_front(output, origin);
        if (!px && gap)
            for (int y = task.first; y < std::min(task.last, output_shape_.height - 1); ++y)
                zero_elements(output, origin,
                              static_cast<ptrdiff_t>(y) * output.pitch + output_shape_.width, gap);
        if (task.last == units)
            zero_tail(output, origin, px ? static_cast<ptrdiff_t>(units) * lanes : output.span());
    }
}

void Convolution::activate(const ConvCall &call, const Tensor &output, int isa) const {
    const bool px = row_.is_flat();
    const ptrdiff_t unit = px ? row_.lanes : output.pitch;
    const ptrdiff_t begin = call.first * unit;
    const ptrdiff_t end = px ? call.last * unit : (call.last - 1) * unit + output_shape_.width;
    for (int r = 0; r < call.rows; ++r)
        plane_kernels(isa, output.dtype)
            .activate(offset(call.output, output.dtype, r * call.output_plane + begin),
                      output.valid + begin, end - begin, op_.activation);
}

}  // namespace autosparse
