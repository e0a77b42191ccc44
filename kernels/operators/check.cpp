#include "operators/check.h"

#include <string>

#include "conv/table.h"

namespace autosparse {
namespace {

std::string text(const Shape &s) {
    return "(" + std::to_string(s.batch) + ", " + std::to_string(s.channels) + ", " +
           std::to_string(s.height) + ", " + std::to_string(s.width) + ")";
}

void check_shape(const Shape &expected, const Shape &got) {
    require(expected == got, "the output must have shape " + text(expected) + ", but it has " + text(got));
}

void check_inputs(const as_op &op, int count) {
    require(op.input_count == count, "this operator takes " + std::to_string(count) + " inputs, but got " +
                                         std::to_string(op.input_count));
}

constexpr int kMostKernel = 1024, kMostPadding = 4096;

void check_window(const as_op &op) {
    const auto within = [](int value, int low, int high) { return value >= low && value <= high; };
    require(within(op.kernel_h, 1, kMostKernel) && within(op.kernel_w, 1, kMostKernel),
            "kernel_h and kernel_w must lie in 1..1024");
    require(within(op.stride_h, 1, kMostKernel) && within(op.stride_w, 1, kMostKernel),
            "stride_h and stride_w must lie in 1..1024");
    require(within(op.dilation_h, 1, kMostKernel) && within(op.dilation_w, 1, kMostKernel),
            "dilation_h and dilation_w must lie in 1..1024");
    require(within(op.pad_top, 0, kMostPadding) && within(op.pad_left, 0, kMostPadding) &&
                within(op.pad_bottom, 0, kMostPadding) && within(op.pad_right, 0, kMostPadding),
            "paddings must lie in 0..4096");
}

// Pixels of the output along one axis, rounding the last window down or up.
int extent(int size, int before, int after, int kernel, int stride, int dilation, bool up) {
    const int room = size + before + after - (dilation * (kernel - 1) + 1);
    require(room >= 0, "the kernel must fit into the padded input");
    return (room + (up ? stride - 1 : 0)) / stride + 1;
}

void check_structure(const as_op &op, int in_channels, int out_channels) {
    if (op.block_n == 0) {
        require(!op.group_start && !op.kept, "a dense layer (block_n 0) has no lists of kept inputs");
        return;
    }
    require(op.block_n > 0 && op.block_n <= 4096, "block_n must lie in 0..4096");
    require(op.group_start != nullptr, "a 1xN layer needs group_start");
    const int groups = (out_channels + op.block_n - 1) / op.block_n;
    require(op.group_start[0] == 0, "group_start must begin with 0");
    // All of group_start first: its last entry says how long `kept` is.
    for (int g = 0; g < groups; ++g) {
        const int64_t count = static_cast<int64_t>(op.group_start[g + 1]) - op.group_start[g];
        require(count >= 0 && count <= in_channels,
                "group_start must ascend by at most the number of inputs");
    }
    require(op.group_start[groups] == 0 || op.kept != nullptr, "a 1xN layer needs the list of kept inputs");
    for (int g = 0; g < groups; ++g) {
        const int begin = op.group_start[g], end = op.group_start[g + 1];
        for (int i = begin; i < end; ++i)
            require(
                op.kept[i] >= 0 && op.kept[i] < in_channels && (i == begin || op.kept[i] > op.kept[i - 1]),
                "kept must ascend within a group and lie in 0.." + std::to_string(in_channels - 1) +
                    ", but entry " + std::to_string(i) + " is " + std::to_string(op.kept[i]));
    }
}

void check_convolution(const Program &program, const as_op &op) {
    check_inputs(op, 1);
    check_window(op);
    const Shape &in = program.tensor(op.inputs[0]).shape, &out = program.tensor(op.output).shape;
    require(op.weight != nullptr, "a convolution needs weights");
    require(op.groups >= 1 && in.channels % op.groups == 0 && out.channels % op.groups == 0,
            "groups must divide both channel counts");
    require(op.kind == AS_OP_CONV_GROUPED || op.groups == 1,
            "AS_OP_CONV has groups == 1; use AS_OP_CONV_GROUPED");
    require(op.kind == AS_OP_CONV || op.block_n == 0, "grouped convolutions are dense");
    require(op.kernel >= AS_KERNEL_COMPACT && op.kernel < static_cast<int>(kernel_table().size()),
            "kernel must be a row of the kernel table, -1 or -2, but got " + std::to_string(op.kernel));
    require(op.kind == AS_OP_CONV || op.kernel < 0, "grouped convolutions choose no kernel");
    check_structure(op, in.channels, out.channels);
    check_shape(
        {in.batch, out.channels,
         extent(in.height, op.pad_top, op.pad_bottom, op.kernel_h, op.stride_h, op.dilation_h, false),
         extent(in.width, op.pad_left, op.pad_right, op.kernel_w, op.stride_w, op.dilation_w, false)},
        out);
    if (op.residual >= 0)
        require(program.tensor(op.residual).shape == out &&
                    program.tensor(op.residual).dtype == program.tensor(op.output).dtype,
                "the residual must have the output's shape and type");
    require(program.tensor(op.inputs[0]).dtype == AS_BF16 || program.tensor(op.output).dtype == AS_F32,
            "a convolution of f32 writes f32");
}

void check_pooling(const Program &program, const as_op &op) {
    check_inputs(op, 1);
    check_window(op);
    const Shape &in = program.tensor(op.inputs[0]).shape, &out = program.tensor(op.output).shape;
    require(op.pad_top < op.kernel_h * op.dilation_h && op.pad_left < op.kernel_w * op.dilation_w,
            "pooling pads by less than its kernel");
    require(op.kind == AS_OP_MAX_POOL || (op.dilation_h == 1 && op.dilation_w == 1),
            "average pooling has no dilation");
    const auto fits = [&](bool up_h, bool up_w) {
        return out == Shape{in.batch, in.channels,
                            extent(in.height, op.pad_top, op.pad_bottom, op.kernel_h, op.stride_h,
                                   op.dilation_h, up_h),
                            extent(in.width, op.pad_left, op.pad_right, op.kernel_w, op.stride_w,
                                   op.dilation_w, up_w)};
    };
    if (!fits(true, true) && !fits(false, true) && !fits(true, false) && !fits(false, false))
        throw Error(AS_BAD_ARGUMENT,
                    "the output of pooling " + text(in) + " cannot have shape " + text(out));
}

void check_same(const Program &program, const as_op &op, int inputs) {
    check_inputs(op, inputs);
    for (int i = 0; i < inputs; ++i)
        check_shape(program.tensor(op.inputs[i]).shape, program.tensor(op.output).shape);
}

void check_mul(const Program &program, const as_op &op) {
    check_inputs(op, 2);
    const Shape &a = program.tensor(op.inputs[0]).shape, &b = program.tensor(op.inputs[1]).shape;
    require(b == a || b == Shape{a.batch, a.channels, 1, 1},
            "the second factor must have the first's shape or one pixel per channel, but got " + text(b));
    check_shape(a, program.tensor(op.output).shape);
}

void check_concat(const Program &program, const as_op &op) {
    Shape expected = program.tensor(op.inputs[0]).shape;
    int64_t channels = 0;
    for (int i = 0; i < op.input_count; ++i) {
        const Shape &s = program.tensor(op.inputs[i]).shape;
        require(s.batch == expected.batch && s.height == expected.height && s.width == expected.width,
                "concatenated tensors must agree in batch, height and width");
        channels += s.channels;
    }
    require(channels <= INT32_MAX, "concatenated channels must stay below 2^31");
    expected.channels = static_cast<int>(channels);
    check_shape(expected, program.tensor(op.output).shape);
}

void check_subsample(const Program &program, const as_op &op) {
    check_inputs(op, 1);
    require(op.stride_h >= 1 && op.stride_w >= 1, "stride_h and stride_w must be at least 1");
    const Shape &in = program.tensor(op.inputs[0]).shape, &out = program.tensor(op.output).shape;
    require(op.channels_before >= 0 && out.channels - in.channels >= op.channels_before,
            "the output must have room for channels_before and all input channels");
    check_shape(
        {in.batch, out.channels, (in.height - 1) / op.stride_h + 1, (in.width - 1) / op.stride_w + 1}, out);
}

}  // namespace

void check_operator(const Program &program, const as_op &op) {
    require(op.kind >= AS_OP_CONV && op.kind <= AS_OP_ADAPTIVE_AVG_POOL,
            "kind must be an as_op_kind, but got " + std::to_string(op.kind));
    const Shape &in = program.tensor(op.inputs[0]).shape, &out = program.tensor(op.output).shape;
    if (op.kind != AS_OP_CONV && op.kind != AS_OP_CONV_GROUPED)
        for (int i = 0; i < op.input_count; ++i)
            require(program.tensor(op.inputs[i]).dtype == program.tensor(op.output).dtype,
                    "an operator other than a convolution reads and writes tensors of one type");
    switch (op.kind) {
        case AS_OP_CONV:
        case AS_OP_CONV_GROUPED:
            return check_convolution(program, op);
        case AS_OP_MAX_POOL:
        case AS_OP_AVG_POOL:
            return check_pooling(program, op);
        case AS_OP_GLOBAL_AVG_POOL:
            check_inputs(op, 1);
            return check_shape({in.batch, in.channels, 1, 1}, out);
        case AS_OP_ADAPTIVE_AVG_POOL:
            check_inputs(op, 1);
            return check_shape({in.batch, in.channels, out.height, out.width}, out);
        case AS_OP_ADD:
            return check_same(program, op, 2);
        case AS_OP_MUL:
            return check_mul(program, op);
        case AS_OP_CONCAT:
            return check_concat(program, op);
        case AS_OP_SUBSAMPLE_PAD:
            return check_subsample(program, op);
        case AS_OP_FLATTEN:
            check_inputs(op, 1);
            return check_shape({in.batch, in.channels * in.height * in.width, 1, 1}, out);
        default:
            return check_same(program, op, 1);
    }
}

}  // namespace autosparse
