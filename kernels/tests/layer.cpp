#include "layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <type_traits>

namespace harness {
namespace {

// What the program gets, and what the kernel sees of it: bf16 kernels round weights and tensors.
struct Arrays {
    std::vector<float> weight, bias, input, residual;
    Pattern pattern;
};

int kept_inputs(Kept kept, int group, int inputs, Random &random) {
    switch (kept) {
        case Kept::all:
            return inputs;
        case Kept::none:
            return 0;
        case Kept::half:
            return (inputs + 1) / 2;
        case Kept::quarter:
            return (inputs + 3) / 4;
        default:
            return group % 3 == 0 ? 0 : group % 3 == 1 ? inputs : random.below(inputs + 1);
    }
}

Pattern draw_pattern(int block_n, int outputs, int inputs, Kept kept, Random &random) {
    Pattern pattern;
    pattern.block_n = block_n;
    if (!block_n) return pattern;
    pattern.group_start.push_back(0);
    for (int group = 0; group * block_n < outputs; ++group) {
        for (int32_t channel : random.some_of(inputs, kept_inputs(kept, group, inputs, random)))
            pattern.kept.push_back(channel);
        pattern.group_start.push_back(static_cast<int32_t>(pattern.kept.size()));
    }
    return pattern;
}

Extents output_of(const Layer &layer) { return windowed(layer.input, layer.window, layer.outputs); }

Arrays draw_arrays(const Row &row, const Layer &layer, uint32_t seed) {
    Random random(seed);
    const int taps = layer.window.height * layer.window.width;
    const auto weights =
        static_cast<std::size_t>(layer.outputs) * static_cast<std::size_t>(layer.input.channels * taps);
    Arrays arrays;
    arrays.weight = random.normal(weights, 1 / std::sqrt(static_cast<float>(layer.input.channels * taps)));
    if (layer.has_bias) arrays.bias = random.normal(static_cast<std::size_t>(layer.outputs));
    arrays.input = random.normal(layer.input.count());
    if (layer.has_residual) arrays.residual = random.normal(output_of(layer).count());
    arrays.pattern =
        draw_pattern(row.info.block_n, layer.outputs, layer.input.channels, layer.kept, random);
    return arrays;
}

// Loses the tile of `side` x `side` pixels that holds a pixel, in one channel of one image.
void lose_tile(Values &x, int side, int n, int c, int row, int column) {
    const Extents &e = x.extents;
    const int top = row / side * side, left = column / side * side;
    for (int y = top; y < std::min(e.height, top + side); ++y)
        for (int u = left; u < std::min(e.width, left + side); ++u) x.is_lost[x.at(n, c, y, u)] = true;
}

// Winograd's filtering adds and subtracts the values of a tile of inputs, times what its matrices hold, so
// that every output may be off by as much as the worst of its neighbours and more, and a tile that reads
// something not finite is lost as a whole. Of phases it reads an eighth row and column, times zero.
Values filtered_by_tiles(Values x, const Row &row) {
    const double transforms = row.is("wg") ? 2 : row.is("wf") ? 4 : 8;
    const int side = row.winograd_side(), reach = row.is("wp") ? 1 : 0;
    double worst = 0;
    for (double error : x.error)
        if (std::isfinite(error)) worst = std::max(worst, error);
    std::fill(x.error.begin(), x.error.end(), transforms * worst);
    const Extents &e = x.extents;
    for (int n = 0; n < e.batch; ++n)
        for (int c = 0; c < e.channels; ++c)
            for (int y = 0; y < e.height; ++y)
                for (int u = 0; u < e.width; ++u)
                    if (!std::isfinite(x.value[x.at(n, c, y, u)]))
                        for (int down : {y, y + reach})
                            for (int right : {u, u + reach}) lose_tile(x, side, n, c, down, right);
    return x;
}

Values expected_of(const Row &row, const Layer &layer, const Arrays &arrays, Type output_type) {
    const Type type = type_of(row.info);
    const Values input(layer.input, as_type(arrays.input, type));
    Values out = convolve(input, as_type(arrays.weight, type), arrays.bias, layer.outputs, layer.window, 1,
                          arrays.pattern);
    if (row.winograd_side()) out = filtered_by_tiles(std::move(out), row);
    if (layer.has_residual) out = add(out, Values(out.extents, as_type(arrays.residual, output_type)));
    return written(activate(std::move(out), layer.activation, output_type), output_type);
}

as_op op_of(const Row &row, const Layer &layer, const Arrays &arrays, const std::vector<int> &tensors) {
    const Window &w = layer.window;
    as_op op = plain_op(AS_OP_CONV, {tensors[0]}, tensors[1]);
    op.residual = tensors[2];
    op.activation = layer.activation;
    op.kernel = row.index;
    op.kernel_h = w.height, op.kernel_w = w.width, op.stride_h = w.stride_h, op.stride_w = w.stride_w;
    op.pad_top = w.top, op.pad_left = w.left, op.pad_bottom = w.bottom, op.pad_right = w.right;
    op.dilation_h = w.dilation_h, op.dilation_w = w.dilation_w;
    op.weight = arrays.weight.data();
    op.bias = arrays.bias.empty() ? nullptr : arrays.bias.data();
    op.block_n = arrays.pattern.block_n;
    op.group_start = op.block_n ? arrays.pattern.group_start.data() : nullptr;
    op.kept = op.block_n ? arrays.pattern.kept.data() : nullptr;
    return op;
}

bool can_run(const Row &row, const Layer &layer, const Arrays &arrays) {
    const as_op op = op_of(row, layer, arrays, {0, 1, -1});
    const int32_t shape[4] = {layer.input.batch, layer.input.channels, layer.input.height,
                              layer.input.width};
    char reasons[256];
    return as_kernel_why_not(row.index, &op, shape, reasons, sizeof reasons) == 0;
}

// Adds the operator from arrays that end right before memory that nobody may touch, and that are gone
// afterwards.
void add_op(Program &program, as_op op, const Arrays &arrays) {
    std::deque<Guarded> guarded;
    const auto guard = [&](auto *&pointer, const auto &values) {
        static_assert(sizeof values[0] == sizeof(float), "guarded arrays hold 32 bits per element");
        if (!pointer) return;
        Guarded &array = guarded.emplace_back(values.size(), Guarded::Place::at_end);
        if (!values.empty()) std::memcpy(array.data(), values.data(), values.size() * sizeof values[0]);
        pointer = reinterpret_cast<std::decay_t<decltype(pointer)>>(array.data());
    };
    guard(op.weight, arrays.weight);
    guard(op.bias, arrays.bias);
    guard(op.group_start, arrays.pattern.group_start);
    guard(op.kept, arrays.pattern.kept);
    program.op(op);
    for (const Guarded &array : guarded) array.check_neighbours();
}

// A program of one layer with its arrays, each right before or behind memory that nobody may touch.
class LayerRun {
public:
    LayerRun(const Row &row, const Layer &layer, const Arrays &arrays, int threads, Type output_type)
        : arrays_(arrays),
          program_(threads),
          input_(arrays.input.size(), Guarded::Place::after_start),
          residual_(std::max<std::size_t>(1, arrays.residual.size()), Guarded::Place::at_end),
          output_(output_of(layer).count(), Guarded::Place::at_end) {
        const Type type = type_of(row.info);
        const int input = program_.input(layer.input, type);
        const int residual = layer.has_residual ? program_.input(output_of(layer), output_type) : -1;
        const int output = program_.tensor(output_of(layer), output_type);
        add_op(program_, op_of(row, layer, arrays, {input, output, residual}), arrays);
        program_.output(output);
        program_.finish();
    }

    // Once on NaN, so that nothing may depend on what a former run left; then on the values.
    const Guarded &run() {
        const float nan = std::numeric_limits<float>::quiet_NaN();
        input_.fill(nan);
        residual_.fill(nan);
        run_once();
        input_.copy(arrays_.input);
        if (!arrays_.residual.empty()) residual_.copy(arrays_.residual);
        output_.fill(nan);
        return run_once();
    }

    const Guarded &run_once() {
        program_.run({input_.data(), residual_.data()}, {output_.data()});
        for (const Guarded *array : {&input_, &residual_, &output_}) array->check_neighbours();
        return output_;
    }

    void check_inputs() const {
        expect(std::memcmp(input_.data(), arrays_.input.data(), input_.size() * sizeof(float)) == 0,
               "the input was written");
    }

private:
    const Arrays &arrays_;
    Program program_;
    Guarded input_, residual_, output_;
};

bool same_bits(const Guarded &got, const std::vector<float> &wanted) {
    return std::memcmp(got.data(), wanted.data(), got.size() * sizeof(float)) == 0;
}

void check_outputs(const Row &row, const Layer &layer, const Arrays &arrays, Type output_type) {
    const Values expected = expected_of(row, layer, arrays, output_type);
    std::vector<float> first;
    for (int threads : layer.threads) {
        LayerRun run(row, layer, arrays, threads, output_type);
        const Guarded &got = run.run();
        check_values(got, expected);
        run.check_inputs();
        if (first.empty()) first.assign(got.data(), got.data() + got.size());
        expect(same_bits(got, first), "other bits on " + std::to_string(threads) + " threads");
        expect(same_bits(run.run_once(), first), "other bits in a second run");
    }
}

bool check_arrays(const Row &row, const Layer &layer, const Arrays &arrays) {
    if (!can_run(row, layer, arrays)) return false;
    in_situation(std::string(row.info.name) + ", " + layer.name + ", input " + layer.input.text() +
                     ", outputs " + std::to_string(layer.outputs),
                 [&] {
                     check_outputs(row, layer, arrays, type_of(row.info));
                     if (type_of(row.info) != Type::f32) check_outputs(row, layer, arrays, Type::f32);
                 });
    return true;
}

}  // namespace

bool check_layer(const Row &row, const Layer &layer, uint32_t seed) {
    return check_arrays(row, layer, draw_arrays(row, layer, seed));
}

bool check_layer_with(const Row &row, const Layer &layer, uint32_t seed, std::size_t position,
                      float special) {
    Arrays arrays = draw_arrays(row, layer, seed);
    arrays.input[position] = special;
    return check_arrays(row, layer, arrays);
}

}  // namespace harness
