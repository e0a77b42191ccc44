// All operators outside the kernel table, at every instruction set, alone and in small nets.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <memory>

#include "conformance.h"
#include "reference.h"

namespace harness {
namespace {

constexpr int kAllActivations[] = {AS_ACT_NONE,       AS_ACT_RELU,         AS_ACT_RELU6,   AS_ACT_SILU,
                                   AS_ACT_HARD_SWISH, AS_ACT_HARD_SIGMOID, AS_ACT_SIGMOID, AS_ACT_GELU};
// Around every vector length, and with planes of one pixel, one row and one column.
const Extents kShapes[] = {{1, 1, 1, 1},  {2, 3, 1, 1},   {1, 5, 1, 16}, {3, 2, 17, 1},
                           {2, 3, 7, 9},  {1, 6, 13, 11}, {1, 2, 9, 31}, {1, 3, 8, 32},
                           {2, 1, 5, 33}, {1, 17, 15, 4}, {5, 2, 3, 15}};

// A net's arrays at the borders and its program at one thread count.
class NetRun {
public:
    NetRun(int threads, Type type, const std::vector<Extents> &tensors, int inputs,
           const std::vector<as_op> &ops, const std::vector<int> &outputs)
        : program_(threads) {
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            const bool is_input = i < static_cast<std::size_t>(inputs);
            const int id = is_input ? program_.input(tensors[i], type) : program_.tensor(tensors[i], type);
            expect(id == static_cast<int>(i), "tensors are numbered in the order in which they are made");
            if (is_input) inputs_.emplace_back(tensors[i].count(), Guarded::Place::at_end);
        }
        for (const as_op &op : ops) program_.op(op);
        for (int tensor : outputs) {
            program_.output(tensor);
            results_.emplace_back(tensors[static_cast<std::size_t>(tensor)].count(),
                                  Guarded::Place::after_start);
        }
        program_.finish();
    }

    // Once on NaN, so that nothing may depend on what the arena held; then on the values.
    const std::deque<Guarded> &run(const std::vector<std::vector<float>> &given) {
        const float nan = std::numeric_limits<float>::quiet_NaN();
        for (Guarded &array : inputs_) array.fill(nan);
        run_once();
        for (std::size_t i = 0; i < given.size(); ++i) inputs_[i].copy(given[i]);
        for (Guarded &array : results_) array.fill(nan);
        return run_once();
    }

    const std::deque<Guarded> &run_once() {
        std::vector<const float *> sources;
        std::vector<float *> sinks;
        for (const Guarded &array : inputs_) sources.push_back(array.data());
        for (const Guarded &array : results_) sinks.push_back(array.data());
        program_.run(sources, sinks);
        for (const auto *arrays : {&inputs_, &results_})
            for (const Guarded &array : *arrays) array.check_neighbours();
        return results_;
    }

private:
    Program program_;
    std::deque<Guarded> inputs_, results_;
};

// A net and its value in float64, built side by side. All its tensors are of one type, its inputs come
// first.
class Net {
public:
    explicit Net(Type type) : type_(type), random_(1) {}

    int input(const Extents &extents, float scale = 1.0f) {
        given_.push_back(random_.normal(extents.count(), scale));
        return keep(Values(extents, as_type(given_.back(), type_)));
    }
    const Values &at(int tensor) const { return values_[static_cast<std::size_t>(tensor)]; }
    // Puts `value` into an input, before anything reads it.
    void replace(int input, std::size_t position, float value) {
        given_[static_cast<std::size_t>(input)][position] = value;
        values_[static_cast<std::size_t>(input)].value[position] = static_cast<double>(value);
    }
    // Normal draws that live as long as the net.
    const std::vector<float> &draw(int count, float scale = 1.0f) {
        return drawn_.emplace_back(random_.normal(static_cast<std::size_t>(count), scale));
    }

    // Adds an operator whose value before the activation is `value`.
    int apply(as_op op, const Values &value) {
        op.output = keep(written(activate(value, op.activation, type_), type_));
        ops_.push_back(op);
        return op.output;
    }
    int convolution(int x, int outputs, const Window &window, int groups = 1,
                    int activation = AS_ACT_NONE) {
        const auto &weight =
            draw(outputs * (at(x).extents.channels / groups) * window.height * window.width, 0.3f);
        const auto &bias = draw(outputs);
        as_op op = windowed_op(groups == 1 ? AS_OP_CONV : AS_OP_CONV_GROUPED, x, window);
        op.groups = groups;
        op.activation = activation;
        op.weight = weight.data();
        op.bias = bias.data();
        return apply(op, convolve(at(x), as_type(weight, type_), bias, outputs, window, groups, {}));
    }
    static as_op windowed_op(int kind, int x, const Window &w) {
        as_op op = plain_op(kind, {x}, -1);
        op.kernel_h = w.height, op.kernel_w = w.width, op.stride_h = w.stride_h, op.stride_w = w.stride_w;
        op.pad_top = w.top, op.pad_left = w.left, op.pad_bottom = w.bottom, op.pad_right = w.right;
        op.dilation_h = w.dilation_h, op.dilation_w = w.dilation_w;
        return op;
    }
    void output(int tensor) { outputs_.push_back(tensor); }

    // Against the values, and for the same bits in a second run and at other thread counts.
    void check() const {
        std::vector<Extents> tensors;
        for (const Values &values : values_) tensors.push_back(values.extents);
        std::vector<std::vector<float>> first;
        for (int threads : {2, 1, 3}) {
            NetRun run(threads, type_, tensors, static_cast<int>(given_.size()), ops_, outputs_);
            const std::deque<Guarded> &results = run.run(given_);
            for (std::size_t i = 0; first.size() < outputs_.size(); ++i) {
                check_values(results[i], at(outputs_[i]));
                first.emplace_back(results[i].data(), results[i].data() + results[i].size());
            }
            expect_bits(results, first, "other bits on " + std::to_string(threads) + " threads");
            expect_bits(run.run_once(), first, "other bits in a second run");
        }
    }

private:
    int keep(Values value) {
        values_.push_back(std::move(value));
        return static_cast<int>(values_.size()) - 1;
    }
    static void expect_bits(const std::deque<Guarded> &got, const std::vector<std::vector<float>> &wanted,
                            const std::string &otherwise) {
        for (std::size_t i = 0; i < wanted.size(); ++i)
            expect(std::memcmp(got[i].data(), wanted[i].data(), got[i].size() * sizeof(float)) == 0,
                   otherwise);
    }

    const Type type_;
    Random random_;
    std::deque<Values> values_;
    std::vector<std::vector<float>> given_;
    std::deque<std::vector<float>> drawn_;
    std::vector<as_op> ops_;
    std::vector<int> outputs_;
};

Window square(int size, int stride, int padding, int dilation = 1) {
    return {size, size, stride, stride, padding, padding, padding, padding, dilation, dilation};
}

void check_activations(Type type) {
    for (const Extents &shape : kShapes) {
        Net net(type);
        const int x = net.input(shape, 3.0f);
        for (int activation : kAllActivations) {
            as_op op = plain_op(AS_OP_ACTIVATION, {x}, -1);
            op.activation = activation;
            const int active = net.apply(op, net.at(x));
            net.output(active);
            // What is not zero at zero must not leave its trace in the padding.
            net.output(net.convolution(active, 2, square(3, 1, 1)));
        }
        net.check();
    }
}

void check_elementwise(Type type) {
    for (const Extents &shape : kShapes) {
        Net net(type);
        const int a = net.input(shape), b = net.input(shape),
                  gate = net.input({shape.batch, shape.channels, 1, 1});
        const auto &scale = net.draw(shape.channels), &shift = net.draw(shape.channels);
        for (int activation : kAllActivations) {
            const auto with = [&](as_op op, const Values &value) {
                op.activation = activation;
                net.output(net.apply(op, value));
            };
            with(plain_op(AS_OP_ADD, {a, b}, -1), add(net.at(a), net.at(b)));
            with(plain_op(AS_OP_MUL, {a, b}, -1), multiply(net.at(a), net.at(b)));
            with(plain_op(AS_OP_MUL, {a, gate}, -1), multiply(net.at(a), net.at(gate)));
            as_op op = plain_op(AS_OP_AFFINE, {b}, -1);
            op.weight = scale.data();
            op.bias = shift.data();
            with(op, affine(net.at(b), scale, shift));
        }
        net.check();
    }
}

void check_pooling(Type type) {
    const Window windows[] = {square(2, 2, 0),   square(3, 2, 1),          square(3, 1, 1),
                              square(5, 3, 2),   {2, 3, 1, 4, 1, 0, 0, 1}, {3, 1, 2, 1, 0, 0, 2, 0},
                              square(3, 1, 2, 2)};
    for (const Extents &shape : {Extents{2, 3, 7, 9}, {1, 2, 9, 33}, {1, 1, 16, 17}, {1, 2, 5, 70}}) {
        Net net(type);
        const int x = net.input(shape), wide = net.convolution(x, 3, square(5, 1, 2));
        for (int source : {x, wide})
            for (const Window &window : windows) {
                const Extents out = windowed(shape, window, net.at(source).extents.channels);
                net.output(net.apply(Net::windowed_op(AS_OP_MAX_POOL, source, window),
                                     max_pool(net.at(source), window, out)));
                if (window.dilation_h > 1) continue;
                for (int count_padding : {0, 1}) {
                    as_op op = Net::windowed_op(AS_OP_AVG_POOL, source, window);
                    op.count_include_pad = count_padding;
                    net.output(
                        net.apply(op, average_pool(net.at(source), window, out, count_padding != 0)));
                }
            }
        net.check();
    }
}

void check_means(Type type) {
    for (const Extents &shape : kShapes) {
        Net net(type);
        const int x = net.input(shape), wide = net.convolution(x, 3, square(3, 1, 1));
        for (int source : {x, wide}) {
            net.output(net.apply(plain_op(AS_OP_GLOBAL_AVG_POOL, {source}, -1),
                                 adaptive_average(net.at(source), 1, 1)));
            for (int size : {1, 2, 3, 7})
                net.output(net.apply(plain_op(AS_OP_ADAPTIVE_AVG_POOL, {source}, -1),
                                     adaptive_average(net.at(source), size, size + 1)));
        }
        net.check();
    }
}

void check_shapes(Type type) {
    for (const Extents &shape : kShapes) {
        Net net(type);
        const int x = net.input(shape), wide = net.convolution(x, 3, square(5, 1, 2));
        const int joined = net.apply(plain_op(AS_OP_CONCAT, {x, wide, x}, -1),
                                     concatenate({&net.at(x), &net.at(wide), &net.at(x)}));
        net.output(joined);
        net.output(net.convolution(joined, 4, square(3, 1, 1)));
        for (int source : {x, wide}) {
            net.output(net.apply(plain_op(AS_OP_FLATTEN, {source}, -1), flatten(net.at(source))));
            net.output(net.apply(plain_op(AS_OP_SOFTMAX, {source}, -1), softmax(net.at(source))));
            for (int stride : {1, 2, 3}) {
                as_op op = plain_op(AS_OP_SUBSAMPLE_PAD, {source}, -1);
                op.stride_h = stride, op.stride_w = 4 - stride, op.channels_before = 2;
                const int channels = net.at(source).extents.channels + 5;
                net.output(net.apply(op, subsample(net.at(source), stride, 4 - stride, 2, channels)));
            }
        }
        net.check();
    }
}

void check_grouped(Type type) {
    for (int groups : {2, 3, 12})
        for (int stride : {1, 2, 3})
            for (int size : {1, 3, 5}) {
                Net net(type);
                const int x = net.input({2, 12, 11, 14});
                for (int multiplier : {1, 2})
                    net.output(net.convolution(x, 12 * multiplier, square(size, stride, size / 2), groups,
                                               kAllActivations[(groups + stride + size) % 8]));
                net.check();
            }
}

// One kernel per channel, of images around every vector length.
void check_depthwise(Type type) {
    for (const Extents &shape : kShapes) {
        Net net(type);
        const int x = net.input(shape);
        int activation = 0;
        for (int size : {3, 5})
            for (int stride : {1, 2})
                for (const auto &[before, after] :
                     {std::pair{size / 2, size / 2}, {size - 1, 0}, {0, size}}) {
                    const Window window{size, size, stride, stride, before, after, size - 1, size - 1};
                    net.output(net.convolution(x, shape.channels, window, shape.channels,
                                               kAllActivations[activation++ % 8]));
                }
        net.check();
    }
}

// Consumers that want different padding of one tensor, residual sums, and a memory that is used again.
void check_chains(Type type) {
    for (int activation : kAllActivations) {
        Net net(type);
        int x = net.input({2, 7, 13, 10});
        for (int round = 0; round < 4; ++round) {
            const int inner =
                net.convolution(x, 11, square(3 + 2 * (round % 2), 1, 1 + round % 2), 1, activation);
            const int narrow = net.convolution(inner, 7, square(1, 1, 0));
            x = net.apply(plain_op(AS_OP_ADD, {narrow, x}, -1), add(net.at(narrow), net.at(x)));
            net.output(net.convolution(x, 5, square(7, 2, 3), 1, activation));
        }
        net.output(x);
        net.check();
    }
}

// A maximum of NaN and numbers is NaN, whatever their order; so is a mean.
void check_nan_in_pools(Type type) {
    for (std::size_t position = 0; position < 45; ++position) {
        Net net(type);
        const int x = net.input({1, 1, 5, 9});
        net.replace(x, position, std::numeric_limits<float>::quiet_NaN());
        for (const Window &window : {square(3, 1, 1), square(3, 2, 1)}) {
            const Extents out = windowed(net.at(x).extents, window, 1);
            net.output(
                net.apply(Net::windowed_op(AS_OP_MAX_POOL, x, window), max_pool(net.at(x), window, out)));
            net.output(net.apply(Net::windowed_op(AS_OP_AVG_POOL, x, window),
                                 average_pool(net.at(x), window, out, false)));
        }
        net.output(net.apply(plain_op(AS_OP_GLOBAL_AVG_POOL, {x}, -1), adaptive_average(net.at(x), 1, 1)));
        net.check();
    }
}

struct Part {
    const char *name;
    void (*check)(Type type);
};
constexpr Part kParts[] = {{"activations", check_activations},
                           {"element-wise operators", check_elementwise},
                           {"pooling", check_pooling},
                           {"means", check_means},
                           {"concatenation, flattening, softmax, sub-sampling", check_shapes},
                           {"grouped convolutions", check_grouped},
                           {"depthwise convolutions", check_depthwise},
                           {"chains", check_chains},
                           {"NaN in pools", check_nan_in_pools}};

}  // namespace

int check_operators() {
    const int widest = as_detect_isa();
    for (int isa = 0; isa <= widest; ++isa) {
        expect(as_limit_isa(isa) == AS_OK, "levels that the machine has must be accepted");
        for (const Part &part : kParts)
            for (Type type : {Type::f32, Type::bf16})
                in_situation(std::string(part.name) + ", level " + std::to_string(isa) +
                                 (type == Type::bf16 ? ", bf16" : ", f32"),
                             [&] { part.check(type); });
    }
    expect(as_limit_isa(widest) == AS_OK, "the widest level must be accepted");
    return widest + 1;
}

}  // namespace harness
