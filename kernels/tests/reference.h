// Every operator by its definition, in float64, one output after another, each value with the error that
// rounding may leave in a kernel's.
#pragma once

#include <cstdint>
#include <vector>

#include "harness.h"

namespace harness {

struct Window {
    int height = 1, width = 1;
    int stride_h = 1, stride_w = 1;
    int top = 0, left = 0, bottom = 0, right = 0;
    int dilation_h = 1, dilation_w = 1;
};

// Shape of what a convolution or pooling (rounded down) over `input` gives.
Extents windowed(const Extents &input, const Window &window, int channels);

// Kept inputs per group of `block_n` outputs; dense where block_n is 0.
struct Pattern {
    int block_n = 0;
    std::vector<int32_t> group_start, kept;
};

// NCHW values, and how far a kernel's may be off.
struct Values {
    Extents extents;
    std::vector<double> value, error;
    // What a kernel may spoil because a value beside it is not finite.
    std::vector<bool> is_lost;

    explicit Values(const Extents &e)
        : extents(e), value(e.count()), error(e.count()), is_lost(e.count()) {}
    // Exact values, such as inputs are.
    Values(const Extents &e, const std::vector<float> &from);
    std::size_t at(int n, int c, int y, int x) const {
        const auto step = [](std::size_t index, int extent, int next) {
            return index * static_cast<std::size_t>(extent) + static_cast<std::size_t>(next);
        };
        const auto plane = step(static_cast<std::size_t>(n), extents.channels, c);
        return step(step(plane, extents.height, y), extents.width, x);
    }
};

Values convolve(const Values &x, const std::vector<float> &weight, const std::vector<float> &bias,
                int outputs, const Window &window, int groups, const Pattern &pattern);
Values max_pool(const Values &x, const Window &window, const Extents &out);
Values average_pool(const Values &x, const Window &window, const Extents &out, bool count_padding);
Values adaptive_average(const Values &x, int height, int width);
Values add(const Values &a, const Values &b);
// `b` of the shape of `a`, or of one pixel per channel.
Values multiply(const Values &a, const Values &b);
Values concatenate(const std::vector<const Values *> &parts);
Values affine(const Values &x, const std::vector<float> &scale, const std::vector<float> &shift);
Values subsample(const Values &x, int stride_h, int stride_w, int before, int channels);
Values flatten(const Values &x);
Values softmax(const Values &x);
// `type` is that of the tensor in which the operator's result lies when an activation that is more than a
// clamp reads it again.
Values activate(Values x, int activation, Type type);
// The same values written to a tensor.
Values written(Values x, Type type);

// Throws Failure at the first value that is off by more than its error.
void check_values(const Guarded &got, const Values &expected);

}  // namespace harness
