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
// A block of one vector has too few sums to keep the arithmetic busy.
constexpr int kLeastUnits = 2;
// The same of processors with matrix tiles, whose second-level caches have 2 MiB: the panel holds every
// input several times, and every task streams all weights.
constexpr int64_t kMatrixPanelBytes = 512 << 10;
// Rows of pixels become at most this much longer for the sake of matrix panels.
constexpr double kMostLengthening = 1.15;
// Tasks per thread that let uneven groups even out.
constexpr int kTasksPerThread = 4;
// Tasks that must wait before a thread splits the inputs of another thread's tasks once more.
constexpr int kWorthASplit = 3;

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
      weight_count_(layer_.packed->weights.size()),
      bias_count_(layer_.packed->bias.size()) {
    // The caller's arrays end with the call.
    op_.weight = op_.bias = nullptr;
    op_.group_start = op_.kept = nullptr;
    // Whatever the arithmetic, the layer is one of bf16 weights.
    if (widens())
        for (float &weight : layer_.packed->weights) weight = to_float(to_bf16(weight));
}

std::unique_ptr<Operator> Convolution::again(const as_op &op) const {
    auto copy = std::make_unique<Convolution>(*this);
    copy->op_ = op;
    return copy;
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

std::size_t Convolution::workspace(const Program &) {
    if (splitting_ != Splitting::step) return 0;
    const int64_t elements =
        static_cast<int64_t>(input_shape_.batch) * input_shape_.channels * phases_.channel;
    return static_cast<std::size_t>(elements * bytes_of(dtype_));
}

std::size_t Convolution::scratch(const Program &program) {
    if (splitting_ == Splitting::channel || splitting_ == Splitting::task)
        return static_cast<std::size_t>(split_floats() + 2 * kScratchGuard) * sizeof(float);
    const std::size_t spare =
        split_bands_ > 1 ? static_cast<std::size_t>(spare_floats(phases_)) * sizeof(float) : 0;
    if (!takes_pairs()) return spare;
    make_panel(program);
    const int64_t words = panel_words() + 2 * kScratchGuard;
    require(words < INT32_MAX / 2, "the kept inputs of a bf16 convolution must stay below 2^30 elements");
    return std::max(static_cast<std::size_t>(words) * sizeof(float), spare);
}

void Convolution::place_weights(float *place) {
    const PackedWeights &packed = *layer_.packed;
    std::copy(packed.weights.begin(), packed.weights.end(), place);
    std::copy(packed.bias.begin(), packed.bias.end(), place + weight_count_);
    weights_ = place;
    bias_ = place + weight_count_;
    layer_.packed.reset();
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
    const int64_t copies = splits_phases() ? static_cast<int64_t>(phases_.planes.size())
                                           : static_cast<int64_t>(op_.stride_h) * op_.stride_w;
    return static_cast<int64_t>(px ? row_.lanes : output_shape_.width) * input_shape_.channels /
           op_.groups * copies * static_cast<int64_t>(sizeof(float));
}

int64_t Convolution::input_bytes() const { return image_bytes(input_shape_, dtype_); }

// Workers that share an image fetch all of each other's inputs if they divide the outputs among them, and
// read the same weights if they divide the pixels. Either way they fetch half of what a neighbour divides
// otherwise.
bool Convolution::prefers_bands(const Program &program) const {
    const int threads = program.threads();
    if (threads == 1 || (splits_phases() && is_depthwise())) return false;
    const Tensor &output = program.tensor(op_.output);
    const int64_t before = input_bytes(), behind = image_bytes(output_shape_, output.dtype) / threads;
    int64_t spared = program.tensor(op_.inputs[0]).is_in_bands ? before : before - before / threads;
    spared += program.next_suits_bands(output) ? behind : -behind;
    return weight_bytes() < kWeightsPerForeignLine * spared;
}

int Convolution::parts_of_outputs(const Program &program) const {
    const int strips = static_cast<int>(layer_.strips.size()), threads = program.threads();
    return prefers_bands_ || strips < threads ? 1 : threads;
}

void Convolution::divide(Program &program) {
    // Phase planes have the output's pitch.
    if (splits_phases()) phases_ = phase_planes(op_, output_shape_, program.tensor(op_.output).pitch);
    require(phases_.channel * input_shape_.channels < INT32_MAX / 2,
            "one image of a strided convolution must stay below 2^30 elements");
    prefers_bands_ = prefers_bands(program);
    choose_splitting(program);
    const int all = units(program), step = units_per_task(program);
    Tensor &output = program.tensor(op_.output);
    output.is_in_bands = program.threads() > 1 && parts_of_outputs(program) == 1 &&
                         (all + step - 1) / step >= program.threads();
    if (output.is_in_bands) split_bands_ = program.bands(output_shape_);
}

int Convolution::units_per_task(const Program &program) const {
    const int all = units(program);
    if (splitting_ == Splitting::channel) return all;
    const int granule = row_.is_flat() ? row_.tile_pixels / row_.lanes : 1;
    const auto round_up = [granule](int64_t value) {
        return std::max<int64_t>(granule, (value + granule - 1) / granule * granule);
    };
    const int64_t bytes = copies_rows() ? kMatrixPanelBytes : kInputBytesPerTask;
    int64_t most = round_up(bytes / std::max<int64_t>(1, bytes_per_unit(program)));
    if (most * 3 >= all * 2) most = round_up(all);  // no small rest
    const int64_t strips = static_cast<int64_t>(layer_.strips.size()) * output_shape_.batch;
    const int64_t threads = program.threads(), wanted = threads > 1 ? kTasksPerThread * threads : 1;
    if (prefers_bands_) {
        const int64_t stretches = std::max((all + most - 1) / most, (wanted + strips - 1) / strips);
        const int64_t bands = (stretches + threads - 1) / threads * threads;
        const int64_t whole = band_granule(program);
        most = std::max<int64_t>((all + bands - 1) / bands, std::min(granule, kLeastUnits));
        most = (most + whole - 1) / whole * whole;
    } else if (strips < wanted) {
        most = std::min(most, round_up(all * strips / wanted));
    }
    return static_cast<int>(std::min<int64_t>(most, all));
}

// Bands end where those of other operators do, but for what is left of a cache line, of which two workers
// would write a part each. Vectors along pixels cut any number of them into equal blocks; matrix tiles
// waste what is no whole tile.
int Convolution::band_granule(const Program &program) const {
    if (!row_.is_flat()) return 1;
    if (row_.method == Method::mx) return row_.tile_pixels / row_.lanes;
    const auto unit = row_.lanes * bytes_of(program.tensor(op_.output).dtype);
    return std::max(1, static_cast<int>(static_cast<ptrdiff_t>(kCacheLine) / unit));
}

int Convolution::first_unit(const Program &program, int stretch, int count) const {
    const int64_t all = units(program), whole = band_granule(program);
    if (!prefers_bands_) return static_cast<int>(std::min<int64_t>(all, stretch * units_per_task(program)));
    return static_cast<int>(std::min(all, (all * stretch / count + whole - 1) / whole * whole));
}

std::vector<Convolution::Task> Convolution::cut_tasks(const Program &program,
                                                      std::vector<int64_t> &costs) const {
    const int all = units(program), step = units_per_task(program);
    const int64_t pixels = row_.is_flat() ? row_.lanes : output_shape_.width;
    const int count = (all + step - 1) / step;
    std::vector<Task> tasks;
    const int strips = static_cast<int>(layer_.strips.size()), parts = parts_of_outputs(program);
    for (int cut = 0; cut < output_shape_.batch * parts * count; ++cut) {
        const int n = cut / count / parts, part = cut / count % parts, stretch = cut % count;
        const int first = first_unit(program, stretch, count);
        const int last = first_unit(program, stretch + 1, count);
        for (int i = strips * part / parts; i < strips * (part + 1) / parts; ++i) {
            const Strip &strip = layer_.strips[static_cast<std::size_t>(i)];
            tasks.push_back({n, first, last, i});
            // The epilogue counts as a few channels.
            costs.push_back((strip.kept * layer_.taps + 8) * strip.tiles * pixels * (last - first));
        }
    }
    return tasks;
}

void Convolution::plan(Program &program, int op, void *workspace) {
    if (splits_phases()) {
        if (splitting_ == Splitting::step) plan_split(program, op, workspace);
        locate_phases(workspace);
    } else {
        locate_direct(program.tensor(op_.inputs[0]));
    }
    if (takes_pairs())
        locate_panel();
    else
        for (int32_t channel : layer_.channels)
            channel_offsets_.push_back(static_cast<int32_t>(slot_of(channel) * input_channel_));
    std::vector<int64_t> costs;
    tasks_ = cut_tasks(program, costs);
    Step &step = program.add_step(
        op, costs,
        [this, &program](int task, int worker) {
            run_task(tasks_[static_cast<std::size_t>(task)], program, worker);
        },
        [this, &program](int task, LineMoves &moves) {
            touch_task(tasks_[static_cast<std::size_t>(task)], program, moves);
        });
    if (!takes_pairs() && splitting_ != Splitting::task) return;
    // What workers hold of a run's inputs is worth nothing to the next.
    holders_.resize(static_cast<std::size_t>(program.threads()));
    step.prepare = [this](int worker) { holders_[static_cast<std::size_t>(worker)].held.image = -1; };
    if (splitting_ == Splitting::task) step.queue->take_only_from(kWorthASplit);
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
    call.shares_lines = program.threads() > 1;
    call.shares_inputs = program.threads() > 1 && !prefers_bands_;
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

// Whether a worker's scratch holds this already; from now on it does.
bool Convolution::holds(const Held &wanted, int worker) {
    Held &held = holders_[static_cast<std::size_t>(worker)].held;
    const bool is_held = held.image == wanted.image && held.first == wanted.first &&
                         held.kept_begin == wanted.kept_begin && held.kept == wanted.kept;
    held = wanted;
    return is_held;
}

void Convolution::take_panel(const Task &task, const Program &program, int worker, ConvCall &call) {
    float *panel = program.scratch(worker);
    const Strip &strip = layer_.strips[static_cast<std::size_t>(task.strip)];
    const bool is_filled = holds({task.image, task.first, strip.kept_begin, strip.kept}, worker);
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
        return k < strip.kept
                   ? offset(input, AS_BF16, kept[k] * input_channel_ + plane + start - panel_.reach_before)
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
    if (splitting_ == Splitting::channel)
        take_channel(task, program, worker, call);
    else if (splitting_ == Splitting::task)
        take_rows(task, program, worker, call);
    else if (takes_pairs())
        take_panel(task, program, worker, call);
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
