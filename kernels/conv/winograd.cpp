#include "conv/winograd.h"

#include <algorithm>
#include <cmath>

#include "operators/planes.h"

namespace autosparse {
namespace {

// Transformed inputs of a block should stay in the second-level cache while every strip passes over them,
// and so should the products of the tiles of outputs that are done together.
constexpr ptrdiff_t kBytesPerBlock = 512 << 10, kBytesOfProducts = 160 << 10;
// In multiply-adds of vectors: reading one weight from behind the second-level cache and from there,
// transforming one vector of inputs to one position, and fetching a cache line that another processor
// wrote. Weights come from behind it once per inference and worker: on two processors of a Zen 3, 75 %
// pruned layers of 256 channels took 1.44 times as long where both read all of them.
constexpr double kCostOfReading = 0.8, kCostOfReadingAgain = 0.2, kCostOfTransform = 5.0,
                 kCostOfLine = 16.0;
// Inputs that are transformed while one comes from another processor.
constexpr int kInputsAhead = 3;
// Tasks per thread that let uneven groups even out.
constexpr int kTasksPerThread = 4;
// Tasks that must wait before a thread transforms the inputs of another thread's tasks once more.
constexpr int kWorthATransform = 3;

bool clamps(int activation) { return activation == AS_ACT_RELU || activation == AS_ACT_RELU6; }

}  // namespace

// A strided convolution as one of stride 1 over phase planes: planes are inputs, and every kernel position
// is one of a smaller kernel on one of the planes.
WinogradConvolution::Unstrided WinogradConvolution::unstride(const as_op &op, const Shape &input,
                                                             const Shape &output) {
    Unstrided made;
    const PhasePlanes phases = phase_planes(op, output, phase_pitch(op, input, output));
    const Axis y = split_axis(op.kernel_h, op.stride_h, op.dilation_h, op.pad_top);
    const Axis x = split_axis(op.kernel_w, op.stride_w, op.dilation_w, op.pad_left);
    const int taps = filtering_.taps, planes = static_cast<int>(phases.planes.size());
    made.weight.assign(static_cast<std::size_t>(output.channels) *
                           static_cast<std::size_t>(input.channels) *
                           static_cast<std::size_t>(planes * taps * taps),
                       0.0f);
    for (int64_t kernel = 0; kernel < static_cast<int64_t>(output.channels) * input.channels; ++kernel)
        for (int ky = 0; ky < op.kernel_h; ++ky)
            for (int kx = 0; kx < op.kernel_w; ++kx) {
                const int tap = ky * op.kernel_w + kx;
                const int row = y.shift[static_cast<std::size_t>(ky)] - y.min_shift;
                const int column = x.shift[static_cast<std::size_t>(kx)] - x.min_shift;
                const int64_t plane = kernel * planes + phases.tap_plane[static_cast<std::size_t>(tap)];
                made.weight[static_cast<std::size_t>((plane * taps + row) * taps + column)] =
                    op.weight[kernel * op.kernel_h * op.kernel_w + tap];
            }
    const int groups = op.block_n ? (output.channels + op.block_n - 1) / op.block_n : 0;
    for (int g = 0; g <= groups && op.block_n; ++g) made.group_start.push_back(op.group_start[g] * planes);
    for (int i = 0; i < (op.block_n ? op.group_start[groups] : 0); ++i)
        for (int plane = 0; plane < planes; ++plane) made.kept.push_back(op.kept[i] * planes + plane);
    made.channels = input.channels * planes;
    made.op = op;
    made.op.kernel_h = made.op.kernel_w = taps;
    made.op.weight = made.weight.data();
    made.op.group_start = op.block_n ? made.group_start.data() : nullptr;
    made.op.kept = op.block_n ? made.kept.data() : nullptr;
    return made;
}

TiledLayer WinogradConvolution::tile(const as_op &op, const Shape &input, const Shape &output) {
    if (row_.method == Method::wp) {
        const Unstrided made = unstride(op, input, output);
        return tile_layer(made.op, made.channels, output.channels, row_.tile_out, Packing::winograd_phases,
                          most_together());
    }
    return tile_layer(op, input.channels, output.channels, row_.tile_out,
                      row_.method == Method::wg ? Packing::winograd_2x2 : Packing::winograd_4x4,
                      most_together());
}

int WinogradConvolution::most_together() const {
    const ptrdiff_t tile = static_cast<ptrdiff_t>(positions()) * row_.tile_out * row_.tile_pixels;
    return static_cast<int>(std::max<ptrdiff_t>(1, kBytesOfProducts / (tile * sizeof(float))));
}

ptrdiff_t WinogradConvolution::kernel_scratch() const {
    int together = 1;
    for (const Strip &strip : layer_.strips) together = std::max(together, strip.together);
    const ptrdiff_t products = static_cast<ptrdiff_t>(together) * row_.tile_out * row_.tile_pixels + 16;
    return positions() * products + static_cast<ptrdiff_t>(out_ * out_) * row_.tile_pixels;
}

WinogradConvolution::WinogradConvolution(const as_op &op, const Shape &input, const Shape &output,
                                         int kernel)
    : op_(op),
      input_shape_(input),
      output_shape_(output),
      kernel_(kernel),
      row_(kernel_table()[static_cast<std::size_t>(kernel)]),
      filtering_(filtering_of(row_.method)),
      out_(filtering_.out),
      layer_(tile(op, input, output)),
      weight_count_(layer_.packed->weights.size()),
      bias_count_(layer_.packed->bias.size()),
      tile_rows_((output.height + out_ - 1) / out_),
      tile_columns_((output.width + out_ - 1) / out_) {
    if (splits_phases()) phases_ = phase_planes(op, output, phase_pitch(op, input, output));
    op_.weight = op_.bias = nullptr;
    op_.group_start = op_.kept = nullptr;
    find_used_channels(splits_phases() ? input.channels * static_cast<int>(phases_.planes.size())
                                       : input.channels);
}

std::unique_ptr<Operator> WinogradConvolution::again(const as_op &op) const {
    auto copy = std::make_unique<WinogradConvolution>(*this);
    copy->op_.inputs[0] = op.inputs[0];
    copy->op_.residual = op.residual;
    copy->op_.output = op.output;
    return copy;
}

void WinogradConvolution::find_used_channels(int in_channels) {
    slot_of_.assign(static_cast<std::size_t>(in_channels), -1);
    for (int32_t channel : layer_.channels) slot_of_[static_cast<std::size_t>(channel)] = 0;
    for (int32_t channel = 0; channel < in_channels; ++channel) {
        int32_t &slot = slot_of_[static_cast<std::size_t>(channel)];
        if (slot < 0) continue;
        slot = static_cast<int32_t>(used_.size());
        used_.push_back(channel);
    }
}

void WinogradConvolution::constrain(Program &program) {
    // Rows below the image are never read.
    if (!splits_phases()) program.pad(op_.inputs[0], {op_.pad_top, op_.pad_left, 0, pad_right()});
    if (op_.residual >= 0) program.share_pitch(op_.residual, op_.output);
}

ptrdiff_t WinogradConvolution::channel_of(const Block &block) const {
    return (static_cast<ptrdiff_t>(block.rows) * tile_columns_ + 15) / 16 * 16;
}

// A cache line more spreads the positions, which are written together, over the sets of the caches.
ptrdiff_t WinogradConvolution::position_of(const Block &block) const {
    return static_cast<ptrdiff_t>(used_.size()) * channel_of(block) + 16;
}

int WinogradConvolution::vectors_of(const Block &block) const {
    const int lanes = lanes_of(row_.isa);
    return (block.rows * tile_columns_ + lanes - 1) / lanes;
}

std::vector<WinogradConvolution::Block> WinogradConvolution::cut(int count) const {
    std::vector<Block> blocks;
    for (int i = 0; i < count; ++i) {
        const int first = tile_rows_ * i / count, last = tile_rows_ * (i + 1) / count;
        blocks.push_back({first, last - first});
    }
    return blocks;
}

// Multiply-adds of vectors that the busiest worker spends. All blocks are shared out in contiguous runs of
// strips, and every worker transforms the inputs of all blocks that its run touches.
double WinogradConvolution::cost_of(const std::vector<Block> &blocks, int threads,
                                    bool input_is_in_bands) const {
    double vectors = 0;
    ptrdiff_t bytes = 0;
    for (const Block &block : blocks) {
        vectors += vectors_of(block);
        bytes = std::max(bytes, floats_of(block) * static_cast<ptrdiff_t>(sizeof(float)));
    }
    vectors *= output_shape_.batch;
    const int all = static_cast<int>(blocks.size()) * output_shape_.batch;
    const double fair = 1.0 / threads;
    const double touched = all % threads ? std::min(1.0, (all / threads + 1.0) / all) : fair;
    const double words = static_cast<double>(weight_count_);
    const double slowdown = bytes > kBytesPerBlock ? 1.2 : 1.0;
    const double inputs = static_cast<double>(input_shape_.batch) * input_shape_.channels *
                          input_shape_.height * input_shape_.width;
    // Lines of what it reads that others wrote.
    const double foreign = input_is_in_bands ? touched - fair : touched * (1 - fair);
    const double reads = fair * all, first = std::min(1.0, reads);
    const bool stays = words * sizeof(float) <= kBytesPerBlock / 2;
    const double again = stays ? kCostOfReadingAgain : kCostOfReading;
    return words * (fair * vectors * slowdown + first * kCostOfReading + (reads - first) * again) +
           touched * vectors * static_cast<double>(used_.size()) * positions() * kCostOfTransform +
           foreign * inputs / 16 * kCostOfLine;
}

void WinogradConvolution::cut_blocks(int threads, bool input_is_in_bands) {
    blocks_ = cut(1);
    for (int count = 2; count <= tile_rows_; ++count) {
        const std::vector<Block> blocks = cut(count);
        if (cost_of(blocks, threads, input_is_in_bands) < cost_of(blocks_, threads, input_is_in_bands))
            blocks_ = blocks;
    }
    require(floats_of(blocks_[0]) < INT32_MAX / 2, "one transformed image must stay below 2^30 elements");
}

void WinogradConvolution::divide(Program &program) {
    cut_blocks(program.threads(), program.tensor(op_.inputs[0]).is_in_bands);
    int stretches = 0;
    for (const Block &block : blocks_) {
        const int step = vectors_per_task(block, program.threads());
        stretches += (vectors_of(block) + step - 1) / step;
    }
    program.tensor(op_.output).is_in_bands = program.threads() > 1 && stretches >= program.threads();
}

std::size_t WinogradConvolution::scratch(const Program &) {
    ptrdiff_t inputs = 0, phases = 0;
    for (const Block &block : blocks_) {
        inputs = std::max(inputs, floats_of(block));
        if (splits_phases()) phases = std::max(phases, phase_floats(block));
    }
    transformed_floats_ = inputs;
    return static_cast<std::size_t>(kernel_scratch() + inputs + phases) * sizeof(float);
}

void WinogradConvolution::place_weights(float *place) {
    const PackedWeights &packed = *layer_.packed;
    std::copy(packed.weights.begin(), packed.weights.end(), place);
    std::copy(packed.bias.begin(), packed.bias.end(), place + weight_count_);
    weights_ = place;
    bias_ = place + weight_count_;
    layer_.packed.reset();
}

void WinogradConvolution::plan(Program &program, int op, void *) {
    for (const Block &block : blocks_) {
        std::vector<int32_t> &offsets = channel_offsets_.emplace_back();
        for (int32_t channel : layer_.channels)
            offsets.push_back(
                static_cast<int32_t>(slot_of_[static_cast<std::size_t>(channel)] * channel_of(block)));
    }
    held_ = std::vector<Held>(static_cast<std::size_t>(program.threads()));
    const std::vector<int64_t> costs = cut_tasks(program.threads());
    Step &step = program.add_step(
        op, costs,
        [this, &program](int index, int worker) {
            const Task &task = tasks_[static_cast<std::size_t>(index)];
            run_strip(task, transformed(program, task, worker), program, worker);
        },
        [this, &program](int index, LineMoves &moves) {
            touch_task(tasks_[static_cast<std::size_t>(index)], program, moves);
        });
    step.prepare = [this](int worker) { held_[static_cast<std::size_t>(worker)] = Held{}; };
    step.queue->take_only_from(kWorthATransform);
}

int WinogradConvolution::vectors_per_task(const Block &block, int threads) const {
    const int granule = row_.tile_pixels / lanes_of(row_.isa), all = vectors_of(block);
    const int strips = static_cast<int>(layer_.strips.size() * blocks_.size()) * output_shape_.batch;
    const int wanted = threads > 1 ? kTasksPerThread * threads : 1;
    if (strips >= wanted) return all;
    return std::max(granule, (all * strips / wanted + granule - 1) / granule * granule);
}

// Strips of one block follow each other, and so do the blocks of an image from its top to its bottom.
std::vector<int64_t> WinogradConvolution::cut_tasks(int threads) {
    std::vector<int64_t> costs;
    for (int n = 0; n < output_shape_.batch; ++n)
        for (std::size_t b = 0; b < blocks_.size(); ++b) {
            const int all = vectors_of(blocks_[b]), step = vectors_per_task(blocks_[b], threads);
            for (int first = 0; first < all; first += step)
                for (std::size_t i = 0; i < layer_.strips.size(); ++i) {
                    const int last = std::min(all, first + step);
                    tasks_.push_back({n, static_cast<int32_t>(b), static_cast<int32_t>(i), first, last});
                    costs.push_back(cost(layer_.strips[i], last - first));
                }
        }
    return costs;
}

// The inputs of a task's block, transformed by this worker for itself: fetching them from another one costs
// more than making them.
const float *WinogradConvolution::transformed(const Program &program, const Task &task, int worker) {
    Held &held = held_[static_cast<std::size_t>(worker)];
    float *inputs = program.scratch(worker) + kernel_scratch();
    if (held.image == task.image && held.block == task.block) return inputs;
    const Block &block = blocks_[static_cast<std::size_t>(task.block)];
    float *phases = inputs + transformed_floats_;
    const int planes = splits_phases() ? static_cast<int>(phases_.planes.size()) : 1;
    int split = -1;
    for (int slot = 0; slot < static_cast<int>(used_.size()); ++slot) {
        const int channel = used_[static_cast<std::size_t>(slot)] / planes;
        if (splits_phases() && channel != split)
            split_phase_rows(phases_, op_, program.tensor(op_.inputs[0]), output_shape_.width,
                             program.isa(), task.image, channel, out_ * block.first + phases_.first_row,
                             phase_rows_of(block), plane_of_rows(phases_, phase_rows_of(block)), phases);
        split = channel;
        prefetch_input(program, task, slot + kInputsAhead);
        WinogradInput call =
            splits_phases() ? phase_source(block, slot, phases)
                            : source(program.tensor(op_.inputs[0]), task.image, slot, out_ * block.first);
        call.tile_rows = block.rows;
        call.tile_columns = tile_columns_;
        call.out = inputs + slot * channel_of(block);
        call.position = position_of(block);
        input_transform(row_.method, row_.isa)(call);
    }
    held = {task.image, task.block};
    return inputs;
}

// Asks for the rows of an input that the transform of a task's block will read: others may have written
// them.
void WinogradConvolution::prefetch_input(const Program &program, const Task &task, int slot) const {
    if (program.threads() == 1 || splits_phases() || slot >= static_cast<int>(used_.size())) return;
    const Block &block = blocks_[static_cast<std::size_t>(task.block)];
    const int top = out_ * block.first - op_.pad_top;
    prefetch_rows(program.tensor(op_.inputs[0]), task.image, used_[static_cast<std::size_t>(slot)], top,
                  top + out_ * block.rows + filtering_.in - out_);
}

int64_t WinogradConvolution::cost(const Strip &strip, int vectors) const {
    // The output's transform counts as a few channels.
    return static_cast<int64_t>(strip.kept + 4) * positions() * strip.tiles * vectors;
}

// The plane that an input of the filtering is, from output row `first` on.
WinogradInput WinogradConvolution::source(const Tensor &input, int image, int slot, int first) const {
    WinogradInput call{};
    const int row = first - op_.pad_top;
    call.rows = static_cast<const float *>(input.origin(image, used_[static_cast<std::size_t>(slot)])) +
                static_cast<ptrdiff_t>(row) * input.pitch - op_.pad_left;
    call.input_row = input.pitch;
    call.height = input_shape_.height - row;
    call.width = op_.pad_left + input_shape_.width + pad_right();
    return call;
}

// The same of a block whose phase planes lie in scratch memory.
WinogradInput WinogradConvolution::phase_source(const Block &block, int slot, const float *phases) const {
    WinogradInput call{};
    const int rows = phase_rows_of(block);
    const int plane = used_[static_cast<std::size_t>(slot)] % static_cast<int>(phases_.planes.size());
    call.rows =
        phases + plane * plane_of_rows(phases_, rows) + front_of_rows(phases_) + phases_.min_shift_x;
    call.input_row = phases_.pitch;
    call.height = rows;
    call.width = phases_.pitch;
    return call;
}

void WinogradConvolution::run_strip(const Task &task, const float *transformed, const Program &program,
                                    int worker) const {
    const Tensor &output = program.tensor(op_.output);
    const Tensor *residual = op_.residual >= 0 ? &program.tensor(op_.residual) : nullptr;
    const Strip &strip = layer_.strips[static_cast<std::size_t>(task.strip)];
    const Block &block = blocks_[static_cast<std::size_t>(task.block)];
    const ptrdiff_t down = static_cast<ptrdiff_t>(out_ * block.first) * output.pitch;
    void *origin = output.origin(task.image, strip.first_out);
    ConvCall call{};
    call.input = transformed;
    call.channels = channel_offsets_[static_cast<std::size_t>(task.block)].data() + strip.kept_begin;
    call.position = position_of(block);
    call.weights = weights_ + strip.weights;
    call.bias = bias_ + strip.bias;
    call.output = offset(origin, AS_F32, down);
    call.output_plane = output.plane;
    call.output_row = output.pitch;
    if (residual) {
        call.residual = offset(residual->origin(task.image, strip.first_out), AS_F32, down);
        call.residual_plane = residual->plane;
    }
    call.kept = strip.kept;
    call.tiles = strip.tiles;
    call.together = strip.together;
    call.rows = strip.rows;
    call.shares_lines = program.threads() > 1;
    call.low = clamps(op_.activation) ? 0.0f : -INFINITY;
    call.high = op_.activation == AS_ACT_RELU6 ? 6.0f : INFINITY;
    call.first = task.first;
    call.last = task.last;
    call.tile_rows = block.rows;
    call.tile_columns = tile_columns_;
    call.width = output_shape_.width;
    call.height = output_shape_.height - out_ * block.first;
    call.scratch = program.scratch(worker);
    row_.run(call);
    finish(task, strip, output, origin);
}

// The kernel wrote pixels and the padding between rows.
void WinogradConvolution::finish(const Task &task, const Strip &strip, const Tensor &output,
                                 void *origin) const {
    const Block &block = blocks_[static_cast<std::size_t>(task.block)];
    const bool is_first = block.first == 0 && task.first == 0;
    const bool is_last = block.first + block.rows == tile_rows_ && task.last == vectors_of(block);
    for (int r = 0; r < strip.rows; ++r) {
        void *plane = offset(origin, AS_F32, r * output.plane);
        if (is_first) zero_front(output, plane);
        if (is_last) zero_tail(output, plane, output.span());
    }
}

}  // namespace autosparse
