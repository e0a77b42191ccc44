// Builds operators, and runs all that are not convolutions.
#include <algorithm>
#include <cmath>
#include <utility>

#include "conv/convolution.h"
#include "conv/depthwise.h"
#include "conv/table.h"
#include "conv/winograd.h"
#include "executor/program.h"
#include "levels.h"
#include "operators/check.h"
#include "operators/planes.h"

namespace autosparse {

#define AS_DECLARE(level)                         \
    namespace level {                             \
    const PlaneKernels &plane_kernels(int dtype); \
    }
AS_LEVELS_WITH_planes(AS_DECLARE)
#undef AS_DECLARE

    const PlaneKernels &plane_kernels(int isa, int dtype) {
    for (;; isa = kLevels[isa].extends) {
#define AS_FIND(level) \
    if (isa == level##_level) return level::plane_kernels(dtype);
        AS_LEVELS_WITH_planes(AS_FIND)
#undef AS_FIND
    }
}

namespace {

// Pixels that whole vectors of every instruction set and type divide.
constexpr ptrdiff_t kWholeVectors = 32;

// Operators whose tasks are single output planes, or bands of them.
class PlaneOperator : public Operator {
public:
    explicit PlaneOperator(const as_op &op) : op_(op) { op_.weight = op_.bias = nullptr; }

    bool suits_bands(const Program &program) const override {
        return runs_in_bands() && program.bands(program.tensor(op_.output).shape) > 1;
    }

    // As the first input is divided.
    void divide(Program &program) override {
        Tensor &out = program.tensor(op_.output);
        if (suits_bands(program) && program.tensor(op_.inputs[0]).is_in_bands)
            bands_ = program.bands(out.shape);
        out.is_in_bands = bands_ > 1;
    }

    void plan(Program &program, int op, void *) override {
        const Tensor &out = program.tensor(op_.output);
        const int bands = bands_;
        const int tasks = out.shape.batch * bands * out.shape.channels;
        std::vector<int64_t> costs(static_cast<std::size_t>(tasks), 1);
        // Calls `body(image, channel, rows)`.
        const auto with = [&out, bands](int task, auto &&body) {
            const int channels = out.shape.channels, band = task / channels % bands;
            body(task / channels / bands, Program::turn(task % channels, channels, band),
                 Program::band(out.shape, band, bands));
        };
        program.add_step(
            op, costs,
            [this, &program, with](int task, int worker) {
                with(task, [&](int n, int c, const Rows &rows) { run_task(program, n, c, worker, rows); });
            },
            [this, &program, with](int task, LineMoves &moves) {
                with(task, [&](int n, int c, const Rows &rows) { touch_task(program, n, c, rows, moves); });
            });
    }

protected:
    const PlaneKernels &kernels(const Program &program) const {
        return plane_kernels(program.isa(), program.tensor(op_.output).dtype);
    }
    virtual void run_plane(Program &, int, int, int, const Tensor &, void *) {}
    // What operators that run in bands do instead.
    virtual void run_rows(Program &program, int n, int c, int worker, const Rows &) {
        const Tensor &out = program.tensor(op_.output);
        run_plane(program, n, c, worker, out, out.origin(n, c));
    }
    virtual bool runs_in_bands() const { return false; }
    // States what a task reads; the whole plane, unless told otherwise.
    virtual void touch_input(const Program &program, int n, int c, const Rows &, LineMoves &moves) const {
        const Tensor &in = program.tensor(op_.inputs[0]);
        moves.read(in, n, c, 0, in.span());
    }
    // Whether run_plane writes whole vectors up to the last pixel with zeros between the rows, or single
    // pixels.
    virtual bool writes_whole_vectors() const { return true; }
    virtual bool fuses_activation() const { return false; }
    // Where a band ends and the next begins, in flattened pixels: operators that write whole vectors share
    // none.
    ptrdiff_t boundary(const Tensor &out, int row) const {
        if (row == out.shape.height) return out.span();
        const ptrdiff_t pixels = static_cast<ptrdiff_t>(row) * out.pitch;
        return writes_whole_vectors() ? pixels / kWholeVectors * kWholeVectors : pixels;
    }

    as_op op_;

private:
    void touch_task(const Program &program, int n, int c, const Rows &rows, LineMoves &moves) const {
        const Tensor &out = program.tensor(op_.output);
        touch_input(program, n, c, rows, moves);
        const bool is_last = rows.last == out.shape.height;
        moves.write_part(out, n, c, boundary(out, rows.first), boundary(out, rows.last), rows.first == 0,
                         is_last);
    }
    void run_task(Program &program, int n, int c, int worker, const Rows &rows) {
        const Tensor &out = program.tensor(op_.output);
        void *origin = out.origin(n, c);
        run_rows(program, n, c, worker, rows);
        if (!writes_whole_vectors()) {
            zero_padding_of_rows(out, origin, rows.first, rows.last);
        } else {
            if (rows.first == 0) zero_front(out, origin);
            if (rows.last == out.shape.height) zero_tail(out, origin, out.span());
        }
        if (op_.activation == AS_ACT_NONE || fuses_activation()) return;
        const ptrdiff_t begin = boundary(out, rows.first), end = boundary(out, rows.last);
        kernels(program).activate(offset(origin, out.dtype, begin), out.valid + begin, end - begin,
                                  op_.activation);
    }

    int bands_ = 1;
};

// Operators that run along flattened pixels: all their tensors share one pitch.
class FlatOperator : public PlaneOperator {
public:
    using PlaneOperator::PlaneOperator;
    void constrain(Program &program) override {
        for (int i = 0; i < op_.input_count; ++i)
            if (program.tensor(op_.inputs[i]).shape.width == program.tensor(op_.output).shape.width)
                program.share_pitch(op_.inputs[i], op_.output);
    }

protected:
    // Pixels [begin, begin + count) of plane `c` of image `n`, flattened; `begin` is a whole number of
    // vectors.
    struct Stretch {
        int n, c;
        ptrdiff_t begin, count;
    };
    virtual void run_stretch(Program &, const Stretch &, void *out, const int32_t *valid) = 0;

    static const void *at(const Tensor &tensor, const Stretch &s) {
        return offset(tensor.origin(s.n, s.c), tensor.dtype, s.begin);
    }
    bool runs_in_bands() const override { return true; }
    // An input's part of a plane, or its one pixel.
    void touch_input(const Program &program, int n, int c, const Rows &rows,
                     LineMoves &moves) const override {
        const Tensor &out = program.tensor(op_.output);
        for (int i = 0; i < op_.input_count; ++i) {
            const Tensor &in = program.tensor(op_.inputs[i]);
            if (in.shape.height == out.shape.height && in.shape.width == out.shape.width)
                moves.read(in, n, c, boundary(out, rows.first), boundary(out, rows.last));
            else
                moves.read(in, n, c, 0, 1);
        }
    }
    void run_rows(Program &program, int n, int c, int, const Rows &rows) override {
        const Tensor &out = program.tensor(op_.output);
        const ptrdiff_t begin = boundary(out, rows.first), end = boundary(out, rows.last);
        run_stretch(program, {n, c, begin, end - begin}, offset(out.origin(n, c), out.dtype, begin),
                    out.valid + begin);
    }
};

class Add : public FlatOperator {
public:
    using FlatOperator::FlatOperator;

protected:
    bool fuses_activation() const override {
        return op_.activation == AS_ACT_RELU || op_.activation == AS_ACT_RELU6;
    }
    void run_stretch(Program &program, const Stretch &s, void *out, const int32_t *valid) override {
        const float low = fuses_activation() ? 0.0f : -INFINITY;
        const float high = op_.activation == AS_ACT_RELU6 ? 6.0f : INFINITY;
        kernels(program).add(at(program.tensor(op_.inputs[0]), s), at(program.tensor(op_.inputs[1]), s),
                             out, valid, s.count, low, high);
    }
};

class Mul : public FlatOperator {
public:
    using FlatOperator::FlatOperator;

protected:
    void run_stretch(Program &program, const Stretch &s, void *out, const int32_t *valid) override {
        const Tensor &a = program.tensor(op_.inputs[0]), &b = program.tensor(op_.inputs[1]);
        if (b.shape == a.shape)
            kernels(program).mul(at(a, s), at(b, s), out, valid, s.count);
        else
            kernels(program).affine(at(a, s), kernels(program).get(b.origin(s.n, s.c), 0), 0.0f, out, valid,
                                    s.count);
    }
};

class Concat : public FlatOperator {
public:
    using FlatOperator::FlatOperator;

protected:
    // The tensor that channel `c` comes from, and which channel it is there.
    std::pair<int, int> source_of(const Program &program, int c) const {
        int source = 0;
        while (c >= program.tensor(op_.inputs[source]).shape.channels)
            c -= program.tensor(op_.inputs[source++]).shape.channels;
        return {source, c};
    }
    void touch_input(const Program &program, int n, int c, const Rows &rows,
                     LineMoves &moves) const override {
        const Tensor &out = program.tensor(op_.output);
        const auto [source, channel] = source_of(program, c);
        moves.read(program.tensor(op_.inputs[source]), n, channel, boundary(out, rows.first),
                   boundary(out, rows.last));
    }
    void run_stretch(Program &program, const Stretch &s, void *out, const int32_t *) override {
        const auto [source, channel] = source_of(program, s.c);
        Stretch from = s;
        from.c = channel;
        const ptrdiff_t count = (s.count + 15) / 16 * 16;
        kernels(program).copy_rows(at(program.tensor(op_.inputs[source]), from), count, out, count, 1,
                                   static_cast<int>(count));
    }
};

class Affine : public FlatOperator {
public:
    Affine(const as_op &op, int channels) : FlatOperator(op) {
        scale_.assign(static_cast<std::size_t>(channels), 1.0f);
        shift_.assign(static_cast<std::size_t>(channels), 0.0f);
        if (op.weight) std::copy_n(op.weight, channels, scale_.begin());
        if (op.bias) std::copy_n(op.bias, channels, shift_.begin());
    }

protected:
    void run_stretch(Program &program, const Stretch &s, void *out, const int32_t *valid) override {
        const std::size_t c = static_cast<std::size_t>(s.c);
        kernels(program).affine(at(program.tensor(op_.inputs[0]), s), scale_[c], shift_[c], out, valid,
                                s.count);
    }

private:
    std::vector<float> scale_, shift_;
};

class Activation : public FlatOperator {
public:
    using FlatOperator::FlatOperator;

protected:
    void run_stretch(Program &program, const Stretch &s, void *out, const int32_t *valid) override {
        kernels(program).affine(at(program.tensor(op_.inputs[0]), s), 1.0f, 0.0f, out, valid, s.count);
    }
};

class Pooling : public PlaneOperator {
public:
    using PlaneOperator::PlaneOperator;
    std::size_t scratch(const Program &program) override {
        return static_cast<std::size_t>(pool_scratch(call(program))) * sizeof(float);
    }

protected:
    bool writes_whole_vectors() const override { return false; }
    PoolCall call(const Program &program) const {
        const Tensor &in = program.tensor(op_.inputs[0]), &out = program.tensor(op_.output);
        PoolCall c{};
        c.in_pitch = in.pitch, c.in_height = in.shape.height, c.in_width = in.shape.width;
        c.out_pitch = out.pitch, c.out_height = out.shape.height, c.out_width = out.shape.width;
        c.kernel_h = op_.kernel_h, c.kernel_w = op_.kernel_w;
        c.stride_h = op_.stride_h, c.stride_w = op_.stride_w;
        c.dilation_h = op_.dilation_h, c.dilation_w = op_.dilation_w;
        c.pad_top = op_.pad_top, c.pad_left = op_.pad_left;
        c.pad_bottom = op_.pad_bottom, c.pad_right = op_.pad_right;
        c.count_include_pad = op_.count_include_pad;
        return c;
    }
    bool runs_in_bands() const override { return true; }
    void touch_input(const Program &program, int n, int c, const Rows &rows,
                     LineMoves &moves) const override {
        const int first = rows.first * op_.stride_h - op_.pad_top;
        moves.read_rows(
            program.tensor(op_.inputs[0]), n, c, first,
            first + (rows.last - rows.first - 1) * op_.stride_h + (op_.kernel_h - 1) * op_.dilation_h + 1);
    }
    void run_rows(Program &program, int n, int c, int worker, const Rows &rows) override {
        PoolCall one = call(program);
        one.input = program.tensor(op_.inputs[0]).origin(n, c);
        one.output = program.tensor(op_.output).origin(n, c);
        one.first_row = rows.first;
        one.last_row = rows.last;
        one.scratch = program.scratch(worker);
        op_.kind == AS_OP_MAX_POOL ? kernels(program).max_pool(one) : kernels(program).avg_pool(one);
    }
};

class GlobalAveragePool : public PlaneOperator {
public:
    using PlaneOperator::PlaneOperator;

protected:
    bool writes_whole_vectors() const override { return false; }
    void run_plane(Program &program, int n, int c, int, const Tensor &, void *origin) override {
        const Tensor &in = program.tensor(op_.inputs[0]);
        const float pixels = static_cast<float>(in.shape.height) * static_cast<float>(in.shape.width);
        const PlaneKernels &planes = kernels(program);
        planes.put(origin, 0, planes.sum(in.origin(n, c), in.valid, in.span()) / pixels);
    }
};

// Any output size. Every window is summed by itself: rare, and small where it occurs.
class AdaptiveAveragePool : public PlaneOperator {
public:
    using PlaneOperator::PlaneOperator;

protected:
    bool writes_whole_vectors() const override { return false; }
    void run_plane(Program &program, int n, int c, int, const Tensor &out, void *origin) override {
        const Tensor &in = program.tensor(op_.inputs[0]);
        const void *from = in.origin(n, c);
        const PlaneKernels &planes = kernels(program);
        for (int y = 0; y < out.shape.height; ++y)
            for (int x = 0; x < out.shape.width; ++x) {
                const int top = begin(y, in.shape.height, out.shape.height),
                          bottom = end(y, in.shape.height, out.shape.height);
                const int left = begin(x, in.shape.width, out.shape.width),
                          right = end(x, in.shape.width, out.shape.width);
                float total = 0.0f;
                for (int i = top; i < bottom; ++i)
                    for (int j = left; j < right; ++j)
                        total += planes.get(from, static_cast<ptrdiff_t>(i) * in.pitch + j);
                planes.put(origin, static_cast<ptrdiff_t>(y) * out.pitch + x,
                           total / static_cast<float>((bottom - top) * (right - left)));
            }
    }

private:
    static int begin(int i, int size, int outputs) {
        return static_cast<int>(static_cast<int64_t>(i) * size / outputs);
    }
    static int end(int i, int size, int outputs) {
        return static_cast<int>((static_cast<int64_t>(i + 1) * size + outputs - 1) / outputs);
    }
};

class SubsamplePad : public PlaneOperator {
public:
    using PlaneOperator::PlaneOperator;

protected:
    bool writes_whole_vectors() const override { return false; }
    bool runs_in_bands() const override { return true; }
    void touch_input(const Program &program, int n, int c, const Rows &rows,
                     LineMoves &moves) const override {
        const Tensor &in = program.tensor(op_.inputs[0]);
        const int source = c - op_.channels_before;
        if (source >= 0 && source < in.shape.channels)
            moves.read_rows(in, n, source, rows.first * op_.stride_h, (rows.last - 1) * op_.stride_h + 1);
    }
    void run_rows(Program &program, int n, int c, int, const Rows &rows) override {
        const Tensor &in = program.tensor(op_.inputs[0]), &out = program.tensor(op_.output);
        void *origin = out.origin(n, c);
        const int source = c - op_.channels_before;
        if (source < 0 || source >= in.shape.channels) {
            for (int y = rows.first; y < rows.last; ++y)
                zero_elements(out, origin, static_cast<ptrdiff_t>(y) * out.pitch, out.shape.width);
            return;
        }
        const void *from = in.origin(n, source);
        const ptrdiff_t in_step = static_cast<ptrdiff_t>(in.pitch) * op_.stride_h;
        const int whole = std::max(rows.first, rows_as_vectors(out, rows));
        const ptrdiff_t above = static_cast<ptrdiff_t>(rows.first) * out.pitch;
        kernels(program).split_rows(offset(from, in.dtype, rows.first * in_step), in_step,
                                    offset(origin, out.dtype, above), out.pitch, whole - rows.first,
                                    out.shape.width, op_.stride_w);
        for (int y = whole; y < rows.last; ++y)
            for (int x = 0; x < out.shape.width; ++x)
                kernels(program).put(
                    origin, static_cast<ptrdiff_t>(y) * out.pitch + x,
                    kernels(program).get(from, y * in_step + static_cast<ptrdiff_t>(x) * op_.stride_w));
    }

private:
    // Behind the last row that can be written as whole vectors: the next band or plane may be another
    // worker's, and done already.
    static int rows_as_vectors(const Tensor &out, const Rows &rows) {
        const ptrdiff_t room = rows.last == out.shape.height
                                   ? out.plane - out.front
                                   : static_cast<ptrdiff_t>(rows.last) * out.pitch,
                        row = (static_cast<ptrdiff_t>(out.pitch) + 15) / 16 * 16;
        if (room < row) return 0;
        return static_cast<int>(std::min<ptrdiff_t>(rows.last, (room - row) / out.pitch + 1));
    }
};

class Flatten : public PlaneOperator {
public:
    using PlaneOperator::PlaneOperator;

protected:
    bool writes_whole_vectors() const override { return false; }
    // The input's channel and the element of its plane that an output is.
    static std::pair<int, ptrdiff_t> source_of(const Tensor &in, int c) {
        const int pixels = in.shape.height * in.shape.width, pixel = c % pixels;
        return {c / pixels,
                static_cast<ptrdiff_t>(pixel / in.shape.width) * in.pitch + pixel % in.shape.width};
    }
    void touch_input(const Program &program, int n, int c, const Rows &, LineMoves &moves) const override {
        const Tensor &in = program.tensor(op_.inputs[0]);
        const auto [channel, at] = source_of(in, c);
        moves.read(in, n, channel, at, at + 1);
    }
    void run_plane(Program &program, int n, int c, int, const Tensor &, void *origin) override {
        const Tensor &in = program.tensor(op_.inputs[0]);
        const auto [channel, at] = source_of(in, c);
        kernels(program).put(origin, 0, kernels(program).get(in.origin(n, channel), at));
    }
};

class Softmax : public PlaneOperator {
public:
    using PlaneOperator::PlaneOperator;
    void constrain(Program &program) override { program.share_pitch(op_.inputs[0], op_.output); }
    void plan(Program &program, int op, void *) override {
        const Tensor &in = program.tensor(op_.inputs[0]), &out = program.tensor(op_.output);
        std::vector<int64_t> costs(static_cast<std::size_t>(out.shape.batch), 1);
        program.add_step(
            op, costs,
            [this, &program, &in, &out](int n, int) {
                kernels(program).softmax(in.origin(n, 0), in.plane, out.origin(n, 0), out.plane,
                                         out.shape.channels, out.valid, out.span());
                for (int c = 0; c < out.shape.channels; ++c) {
                    zero_padding(out, out.origin(n, c));
                    kernels(program).activate(out.origin(n, c), out.valid, out.span(), op_.activation);
                }
            },
            [&in, &out](int n, LineMoves &moves) {
                for (int c = 0; c < out.shape.channels; ++c) {
                    moves.read(in, n, c, 0, in.span());
                    moves.write_plane(out, n, c);
                }
            });
    }
};

// Outputs that one tile of a grouped convolution computes.
int grouped_tile(int outputs_per_group) {
    if (outputs_per_group >= 6) return 8;
    if (outputs_per_group >= 3) return 4;
    return outputs_per_group;
}

// The row along pixels with the widest vectors, then the tallest tile of at most `tile_out`.
int grouped_kernel(int tile_out, int dtype, int isa) {
    const auto &rows = kernel_table();
    int best = -1;
    const auto worth = [&](int i) {
        const KernelRow &row = rows[static_cast<std::size_t>(i)];
        return row.isa * 1000 + row.tile_out;
    };
    for (int i = 0; i < static_cast<int>(rows.size()); ++i) {
        const KernelRow &row = rows[static_cast<std::size_t>(i)];
        if (!row.run || row.isa > isa || row.dtype != dtype || row.method != Method::px ||
            row.tile_out > tile_out)
            continue;
        if (best < 0 || worth(i) > worth(best)) best = i;
    }
    return best;
}

std::unique_ptr<Operator> make_convolution(const Program &program, const as_op &op) {
    const Shape &input = program.tensor(op.inputs[0]).shape, &output = program.tensor(op.output).shape;
    const int dtype = program.tensor(op.inputs[0]).dtype;
    if (op.kind == AS_OP_CONV_GROUPED &&
        DepthwiseConvolution::runs(op, program.tensor(op.inputs[0]), program.tensor(op.output)))
        return std::make_unique<DepthwiseConvolution>(op, dtype, input, output);
    if (op.kind == AS_OP_CONV_GROUPED) {
        const int tile = grouped_tile(output.channels / op.groups);
        // A single input per output has no pairs of channels.
        const int arithmetic = op.groups == input.channels ? static_cast<int>(AS_F32) : dtype;
        return std::make_unique<Convolution>(op, input, output, dtype,
                                             grouped_kernel(tile, arithmetic, program.isa()), false);
    }
    int kernel = op.kernel;
    if (kernel >= 0) {
        const KernelRow &row = kernel_table()[static_cast<std::size_t>(kernel)];
        auto reasons = why_not(row, op, input, program.isa());
        if (row.dtype != dtype)
            reasons.push_back(std::string("reads ") + name_of_dtype(row.dtype) +
                              " tensors, but the input is " + name_of_dtype(dtype));
        if (!reasons.empty()) throw Error(AS_UNSUPPORTED, row.name + ": " + reasons.front());
    } else {
        const double kept = average_kept(op, input.channels, output.channels);
        kernel = default_kernel(op, dtype, input, output, kept, program.isa()).row;
        if (kernel < 0)
            throw Error(AS_UNSUPPORTED, "no kernel runs 1x" + std::to_string(op.block_n) +
                                            " patterns; block_n must be 0, 1, 2, 4, 8, 16, 32 or 64");
    }
    if (filtering_of(kernel_table()[static_cast<std::size_t>(kernel)].method).out)
        return std::make_unique<WinogradConvolution>(op, input, output, kernel);
    return std::make_unique<Convolution>(op, input, output, dtype, kernel, true);
}

}  // namespace

std::unique_ptr<Operator> make_operator(const Program &program, const as_op &op) {
    check_operator(program, op);
    switch (op.kind) {
        case AS_OP_CONV:
        case AS_OP_CONV_GROUPED:
            return make_convolution(program, op);
        case AS_OP_MAX_POOL:
        case AS_OP_AVG_POOL:
            return std::make_unique<Pooling>(op);
        case AS_OP_GLOBAL_AVG_POOL:
            return std::make_unique<GlobalAveragePool>(op);
        case AS_OP_ADD:
            return std::make_unique<Add>(op);
        case AS_OP_MUL:
            return std::make_unique<Mul>(op);
        case AS_OP_CONCAT:
            return std::make_unique<Concat>(op);
        case AS_OP_AFFINE:
            return std::make_unique<Affine>(op, program.tensor(op.output).shape.channels);
        case AS_OP_ACTIVATION:
            return std::make_unique<Activation>(op);
        case AS_OP_SUBSAMPLE_PAD:
            return std::make_unique<SubsamplePad>(op);
        case AS_OP_FLATTEN:
            return std::make_unique<Flatten>(op);
        case AS_OP_ADAPTIVE_AVG_POOL:
            return std::make_unique<AdaptiveAveragePool>(op);
        default:
            return std::make_unique<Softmax>(op);
    }
}

}  // namespace autosparse
