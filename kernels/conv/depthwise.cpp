#include "conv/depthwise.h"

#include <algorithm>
#include <cmath>

#include "cpu/bf16.h"
#include "operators/planes.h"

namespace autosparse {
namespace {

// Pixels per task: small planes are taken together.
constexpr int kPixelsPerTask = 2048;
// Rows of the input. Fewer cost more than fetching them all from another processor does: a band reads the
// rows above and below it once more, and jumps from plane to plane so often that the next lines are not
// foreseen (28 rows in two bands 1.3 times as long, 14 rows 1.45 times).
constexpr int kRowsPerBand = 28;

}  // namespace

DepthwiseConvolution::DepthwiseConvolution(const as_op &op, int dtype, const Shape &input,
                                           const Shape &output)
    : op_(op), input_shape_(input), output_shape_(output) {
    const std::size_t channels = static_cast<std::size_t>(input.channels);
    weights_.assign(op.weight, op.weight + channels * static_cast<std::size_t>(op.kernel_h * op.kernel_w));
    // It computes in float; the layer is one of bf16 weights none the less.
    if (dtype == AS_BF16)
        for (float &weight : weights_) weight = to_float(to_bf16(weight));
    bias_.assign(channels, 0.0f);
    if (op.bias) std::copy_n(op.bias, channels, bias_.begin());
    op_.weight = op_.bias = nullptr;
}

bool DepthwiseConvolution::runs(const as_op &op, const Tensor &input, const Tensor &output) {
    return op.groups == input.shape.channels && input.shape.channels == output.shape.channels &&
           op.kernel_h == op.kernel_w && (op.kernel_h == 3 || op.kernel_h == 5) &&
           op.stride_h == op.stride_w && op.stride_h <= 2 && op.dilation_h == 1 && op.dilation_w == 1 &&
           input.dtype == output.dtype;
}

void DepthwiseConvolution::constrain(Program &program) {
    const auto after = [&](int out, int before, int size) {
        return std::max(0, (out - 1) * op_.stride_h + op_.kernel_h - 1 - before - (size - 1));
    };
    program.pad(op_.inputs[0],
                {op_.pad_top, op_.pad_left, after(output_shape_.height, op_.pad_top, input_shape_.height),
                 after(output_shape_.width, op_.pad_left, input_shape_.width)});
}

void DepthwiseConvolution::place_weights(float *place) {
    std::copy(bias_.begin(), bias_.end(), std::copy(weights_.begin(), weights_.end(), place));
    placed_ = place;
}

bool DepthwiseConvolution::suits_bands(const Program &program) const {
    return program.threads() > 1 && input_shape_.height >= 2 * kRowsPerBand;
}

// As the input is, where that is high.
void DepthwiseConvolution::divide(Program &program) {
    if (program.tensor(op_.inputs[0]).is_in_bands && suits_bands(program))
        bands_ = std::min(program.bands(output_shape_), input_shape_.height / kRowsPerBand);
    program.tensor(op_.output).is_in_bands = bands_ > 1;
}

// Small planes are taken together.
void DepthwiseConvolution::plan(Program &program, int op, void *) {
    const int channels = output_shape_.channels, bands = bands_;
    const int run = std::max(1, kPixelsPerTask * bands / (output_shape_.height * output_shape_.width));
    const int runs = (channels + run - 1) / run;
    const int tasks = output_shape_.batch * bands * runs;
    // Calls `body(image, channel, rows)` for all that a task does.
    const auto each = [this, channels, bands, run, runs](int task, auto &&body) {
        const int band = task / runs % bands;
        const Rows rows = Program::band(output_shape_, band, bands);
        const int first = Program::turn(task % runs, runs, band) * run;
        for (int c = first; c < std::min(channels, first + run); ++c) body(task / runs / bands, c, rows);
    };
    program.add_step(
        op, std::vector<int64_t>(static_cast<std::size_t>(tasks), 1),
        [this, &program, each](int task, int) {
            each(task, [&](int n, int c, const Rows &rows) { run_rows(program, n, c, rows); });
        },
        [this, &program, each](int task, LineMoves &moves) {
            each(task, [&](int n, int c, const Rows &rows) { touch_rows(program, n, c, rows, moves); });
        });
}

void DepthwiseConvolution::run_rows(const Program &program, int image, int channel,
                                    const Rows &rows) const {
    const Tensor &input = program.tensor(op_.inputs[0]), &output = program.tensor(op_.output);
    const PlaneKernels &planes = plane_kernels(program.isa(), input.dtype);
    const bool clamps = op_.activation == AS_ACT_RELU || op_.activation == AS_ACT_RELU6;
    void *origin = output.origin(image, channel);
    DepthwiseCall call{};
    call.input = offset(input.origin(image, channel), input.dtype,
                        static_cast<ptrdiff_t>(rows.first) * op_.stride_h * input.pitch);
    call.output = offset(origin, output.dtype, static_cast<ptrdiff_t>(rows.first) * output.pitch);
    call.in_pitch = input.pitch;
    call.out_pitch = output.pitch;
    call.out_height = rows.last - rows.first;
    call.out_width = output_shape_.width;
    call.kernel = op_.kernel_h;
    call.stride = op_.stride_h;
    call.pad_top = op_.pad_top;
    call.pad_left = op_.pad_left;
    call.weights = placed_ + static_cast<ptrdiff_t>(channel) * op_.kernel_h * op_.kernel_w;
    call.bias = placed_[weights_.size() + static_cast<std::size_t>(channel)];
    call.low = clamps ? 0.0f : -INFINITY;
    call.high = op_.activation == AS_ACT_RELU6 ? 6.0f : INFINITY;
    planes.depthwise(call);
    zero_padding_of_rows(output, origin, rows.first, rows.last);
    if (op_.activation == AS_ACT_NONE || clamps) return;
    const ptrdiff_t begin = static_cast<ptrdiff_t>(rows.first) * output.pitch;
    const ptrdiff_t end = static_cast<ptrdiff_t>(rows.last - 1) * output.pitch + output_shape_.width;
    planes.activate(offset(origin, output.dtype, begin), output.valid + begin, end - begin, op_.activation);
}

}  // namespace autosparse
