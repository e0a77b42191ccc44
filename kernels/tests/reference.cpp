#include "reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace harness {
namespace {

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
// Half a unit in the last place of bf16, relative to the value.
constexpr double kBf16Rounding = 1.0 / 256;

// Relative to the sum of the terms' absolute values. Rounding errors of random sign grow with the square
// root of the count of terms; the constant leaves room for the largest of many outputs. A missing term is
// off by about one part in `terms`, far above.
double error_of_sum(double terms) { return kEpsilon * (std::sqrt(terms) + 8); }

bool is_inside(int y, int x, const Extents &e) { return y >= 0 && y < e.height && x >= 0 && x < e.width; }

// Calls visit(n, c, y, x) for every element.
template <class Visit>
void for_each(const Extents &e, Visit &&visit) {
    for (int n = 0; n < e.batch; ++n)
        for (int c = 0; c < e.channels; ++c)
            for (int y = 0; y < e.height; ++y)
                for (int x = 0; x < e.width; ++x) visit(n, c, y, x);
}

// Calls visit(ky, kx, y, x) for every position of the window of output pixel (out_y, out_x).
template <class Visit>
void for_window(const Window &w, int out_y, int out_x, Visit &&visit) {
    for (int ky = 0; ky < w.height; ++ky)
        for (int kx = 0; kx < w.width; ++kx)
            visit(ky, kx, out_y * w.stride_h - w.top + ky * w.dilation_h,
                  out_x * w.stride_w - w.left + kx * w.dilation_w);
}

// Inputs that an output reads, as channels of its group.
std::vector<int> inputs_of(int output, int per_group, const Pattern &pattern) {
    std::vector<int> inputs;
    if (pattern.block_n == 0) {
        for (int i = 0; i < per_group; ++i) inputs.push_back(i);
        return inputs;
    }
    const auto group = static_cast<std::size_t>(output / pattern.block_n);
    for (int i = pattern.group_start[group]; i < pattern.group_start[group + 1]; ++i)
        inputs.push_back(pattern.kept[static_cast<std::size_t>(i)]);
    return inputs;
}

double hard_sigmoid(double x) { return std::clamp(x + 3, 0.0, 6.0) / 6; }

double activated(double x, int activation) {
    if (std::isnan(x)) return x;
    switch (activation) {
        case AS_ACT_NONE:
            return x;
        case AS_ACT_RELU:
            return std::max(x, 0.0);
        case AS_ACT_RELU6:
            return std::clamp(x, 0.0, 6.0);
        case AS_ACT_SILU:
            return x / (1 + std::exp(-x));
        case AS_ACT_HARD_SWISH:
            return x * hard_sigmoid(x);
        case AS_ACT_HARD_SIGMOID:
            return hard_sigmoid(x);
        case AS_ACT_SIGMOID:
            return 1 / (1 + std::exp(-x));
        case AS_ACT_GELU:
            return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
        default:
            throw Failure("the test knows no activation " + std::to_string(activation));
    }
}

// Output pixels [begin, end) along one axis whose window position `k` lies inside the image.
struct Range {
    int begin, end;
    Range(int outputs, int stride, int before, int k, int dilation, int size) {
        const int reach = k * dilation - before;
        begin = 0;
        while (begin < outputs && begin * stride + reach < 0) ++begin;
        end = begin;
        while (end < outputs && end * stride + reach < size) ++end;
    }
};

// Adds one input channel at one window position, times `factor`, to the plane of output channel `o`;
// `magnitude` becomes the sum of the terms' absolute values.
void add_position(Values &out, std::vector<double> &magnitude, const Values &x, const Window &w, int n,
                  int o, int i, int ky, int kx, double factor) {
    const Range rows(out.extents.height, w.stride_h, w.top, ky, w.dilation_h, x.extents.height);
    const Range columns(out.extents.width, w.stride_w, w.left, kx, w.dilation_w, x.extents.width);
    for (int y = rows.begin; y < rows.end; ++y) {
        if (columns.begin == columns.end) return;
        const std::size_t to = out.at(n, o, y, 0);
        const std::size_t from = x.at(n, i, y * w.stride_h - w.top + ky * w.dilation_h, 0);
        for (int u = columns.begin; u < columns.end; ++u) {
            const auto at = from + static_cast<std::size_t>(u * w.stride_w - w.left + kx * w.dilation_w);
            const double term = factor * x.value[at];
            const std::size_t here = to + static_cast<std::size_t>(u);
            out.value[here] += term;
            magnitude[here] += std::abs(term);
            out.error[here] += std::abs(factor) * x.error[at];
        }
    }
}

}  // namespace

Extents windowed(const Extents &in, const Window &w, int channels) {
    return {in.batch, channels,
            (in.height + w.top + w.bottom - w.dilation_h * (w.height - 1) - 1) / w.stride_h + 1,
            (in.width + w.left + w.right - w.dilation_w * (w.width - 1) - 1) / w.stride_w + 1};
}

Values::Values(const Extents &e, const std::vector<float> &from)
    : extents(e), value(from.begin(), from.end()), error(from.size()), is_lost(from.size()) {}

Values convolve(const Values &x, const std::vector<float> &weight, const std::vector<float> &bias,
                int outputs, const Window &w, int groups, const Pattern &pattern) {
    Values out(windowed(x.extents, w, outputs));
    for_each(out.extents, [&](int n, int o, int y, int u) {
        if (!bias.empty()) out.value[out.at(n, o, y, u)] = bias[static_cast<std::size_t>(o)];
    });
    std::vector<double> magnitude(out.value.size());
    std::transform(out.value.begin(), out.value.end(), magnitude.begin(),
                   [](double v) { return std::abs(v); });
    const int per_group = x.extents.channels / groups, taps = w.height * w.width;
    for (int o = 0; o < outputs; ++o)
        for (int i : inputs_of(o, per_group, pattern))
            for (int t = 0; t < taps; ++t) {
                const auto index = static_cast<std::size_t>((o * per_group + i) * taps + t);
                const int first = o / (outputs / groups) * per_group;
                for (int n = 0; n < x.extents.batch; ++n)
                    add_position(out, magnitude, x, w, n, o, first + i, t / w.width, t % w.width,
                                 static_cast<double>(weight[index]));
            }
    for (std::size_t i = 0; i < out.value.size(); ++i)
        out.error[i] += error_of_sum(per_group * taps + 2) * magnitude[i];
    return out;
}

Values max_pool(const Values &x, const Window &w, const Extents &extents) {
    Values out(extents);
    for_each(extents, [&](int n, int c, int y, int u) {
        double most = -std::numeric_limits<double>::infinity(), error = 0;
        for_window(w, y, u, [&](int, int, int iy, int ix) {
            if (!is_inside(iy, ix, x.extents)) return;
            const double value = x.value[x.at(n, c, iy, ix)];
            if (std::isnan(value) || value > most) most = value;
            error = std::max(error, x.error[x.at(n, c, iy, ix)]);
        });
        out.value[out.at(n, c, y, u)] = most;
        out.error[out.at(n, c, y, u)] = error;
    });
    return out;
}

// Sum of values with its error, over a count that may be larger than what was added.
struct Mean {
    double sum = 0, magnitude = 0, error = 0;
    int count = 0;
    void take(const Values &x, std::size_t at) {
        sum += x.value[at];
        magnitude += std::abs(x.value[at]);
        error += x.error[at];
    }
    void give(Values &out, std::size_t at) const {
        out.value[at] = sum / count;
        out.error[at] = (error + error_of_sum(count) * magnitude) / count;
    }
};

Values average_pool(const Values &x, const Window &w, const Extents &extents, bool count_padding) {
    Values out(extents);
    for_each(extents, [&](int n, int c, int y, int u) {
        Mean mean;
        for_window(w, y, u, [&](int, int, int iy, int ix) {
            const bool inside = is_inside(iy, ix, x.extents);
            if (inside) mean.take(x, x.at(n, c, iy, ix));
            const bool in_padding = iy < x.extents.height + w.bottom && ix < x.extents.width + w.right;
            mean.count += inside || (count_padding && in_padding);
        });
        mean.give(out, out.at(n, c, y, u));
    });
    return out;
}

Values adaptive_average(const Values &x, int height, int width) {
    Values out({x.extents.batch, x.extents.channels, height, width});
    const auto begin = [](int i, int size, int parts) { return i * size / parts; };
    const auto end = [](int i, int size, int parts) { return ((i + 1) * size + parts - 1) / parts; };
    for_each(out.extents, [&](int n, int c, int y, int u) {
        Mean mean;
        for (int iy = begin(y, x.extents.height, height); iy < end(y, x.extents.height, height); ++iy)
            for (int ix = begin(u, x.extents.width, width); ix < end(u, x.extents.width, width); ++ix) {
                mean.take(x, x.at(n, c, iy, ix));
                ++mean.count;
            }
        mean.give(out, out.at(n, c, y, u));
    });
    return out;
}

Values add(const Values &a, const Values &b) {
    Values out = a;
    for (std::size_t i = 0; i < out.value.size(); ++i) {
        out.value[i] += b.value[i];
        out.error[i] += b.error[i] + kEpsilon * (std::abs(a.value[i]) + std::abs(b.value[i]));
    }
    return out;
}

Values multiply(const Values &a, const Values &b) {
    Values out = a;
    const bool per_channel = b.extents.height == 1 && b.extents.width == 1;
    for_each(a.extents, [&](int n, int c, int y, int x) {
        const std::size_t at = a.at(n, c, y, x), other = per_channel ? b.at(n, c, 0, 0) : at;
        const double left = std::abs(a.value[at]), right = std::abs(b.value[other]);
        out.value[at] *= b.value[other];
        out.error[at] = left * b.error[other] + right * a.error[at] + a.error[at] * b.error[other] +
                        kEpsilon * left * right;
    });
    return out;
}

Values concatenate(const std::vector<const Values *> &parts) {
    Extents extents = parts[0]->extents;
    extents.channels = 0;
    for (const Values *part : parts) extents.channels += part->extents.channels;
    Values out(extents);
    int first = 0;
    for (const Values *part : parts) {
        for_each(part->extents, [&](int n, int c, int y, int x) {
            out.value[out.at(n, first + c, y, x)] = part->value[part->at(n, c, y, x)];
            out.error[out.at(n, first + c, y, x)] = part->error[part->at(n, c, y, x)];
        });
        first += part->extents.channels;
    }
    return out;
}

Values affine(const Values &x, const std::vector<float> &scale, const std::vector<float> &shift) {
    Values out = x;
    for_each(x.extents, [&](int n, int c, int y, int u) {
        const double s = static_cast<double>(scale[static_cast<std::size_t>(c)]),
                     t = static_cast<double>(shift[static_cast<std::size_t>(c)]);
        const std::size_t at = out.at(n, c, y, u);
        out.value[at] = x.value[at] * s + t;
        out.error[at] =
            x.error[at] * std::abs(s) + 2 * kEpsilon * (std::abs(x.value[at] * s) + std::abs(t));
    });
    return out;
}

Values subsample(const Values &x, int stride_h, int stride_w, int before, int channels) {
    Values out({x.extents.batch, channels, (x.extents.height - 1) / stride_h + 1,
                (x.extents.width - 1) / stride_w + 1});
    for_each(out.extents, [&](int n, int c, int y, int u) {
        const int from = c - before;
        if (from < 0 || from >= x.extents.channels) return;
        const std::size_t at = x.at(n, from, y * stride_h, u * stride_w);
        out.value[out.at(n, c, y, u)] = x.value[at];
        out.error[out.at(n, c, y, u)] = x.error[at];
    });
    return out;
}

Values flatten(const Values &x) {
    Values out = x;
    out.extents = {x.extents.batch, x.extents.channels * x.extents.height * x.extents.width, 1, 1};
    return out;
}

Values softmax(const Values &x) {
    // The least exponential that kernels tell from zero.
    constexpr double kLeast = 1e-37;
    Values out(x.extents);
    for_each(x.extents, [&](int n, int c, int y, int u) {
        double top = -std::numeric_limits<double>::infinity(), total = 0, error = 0;
        for (int i = 0; i < x.extents.channels; ++i) {
            top = std::max(top, x.value[x.at(n, i, y, u)]);
            error = std::max(error, x.error[x.at(n, i, y, u)]);
        }
        for (int i = 0; i < x.extents.channels; ++i) total += std::exp(x.value[x.at(n, i, y, u)] - top);
        const double below = top - x.value[x.at(n, c, y, u)], value = std::exp(-below) / total;
        // An error of the exponent is an error of the result, in proportion.
        const double relative = 2 * error + error_of_sum(x.extents.channels) + kEpsilon * (below + 4);
        out.value[out.at(n, c, y, u)] = value;
        out.error[out.at(n, c, y, u)] = value * relative + kLeast;
    });
    return out;
}

Values activate(Values x, int activation, Type type) {
    const bool clamps = activation == AS_ACT_RELU || activation == AS_ACT_RELU6;
    if (activation == AS_ACT_NONE) return x;
    if (!clamps) x = written(std::move(x), type);
    // Steepest slope of all of them, and units in the last place that the longest of them loses.
    constexpr double kSlope = 1.2, kUnits = 8;
    for (std::size_t i = 0; i < x.value.size(); ++i) {
        const double before = x.value[i];
        x.value[i] = activated(before, activation);
        if (!clamps) x.error[i] = kSlope * x.error[i] + kUnits * kEpsilon * (std::abs(before) + 1);
        // What was infinite and was cut off is exact.
        if (!std::isfinite(x.error[i])) x.error[i] = 0;
    }
    return x;
}

Values written(Values x, Type type) {
    if (type == Type::bf16)
        for (std::size_t i = 0; i < x.value.size(); ++i)
            x.error[i] += kBf16Rounding * (std::abs(x.value[i]) + x.error[i]);
    return x;
}

void check_values(const Guarded &got, const Values &expected) {
    expect(got.size() == expected.value.size(), "the test must compare as many values as there are");
    for (std::size_t i = 0; i < got.size(); ++i) {
        const double value = static_cast<double>(got.data()[i]), wanted = expected.value[i];
        if (std::isnan(wanted) ? std::isnan(value) : value == wanted) continue;
        if (expected.is_lost[i] && (std::isfinite(wanted) || !std::isfinite(value))) continue;
        // Asks what is right: every comparison with NaN is false.
        if (std::isfinite(wanted) && std::abs(value - wanted) <= expected.error[i]) continue;
        throw Failure("value " + std::to_string(i) + " is " + std::to_string(value) + " instead of " +
                      std::to_string(wanted) + ", and may be off by " + std::to_string(expected.error[i]));
    }
}

}  // namespace harness
