#include "artifact/loader.h"

#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "artifact/container.h"
#include "conv/table.h"

namespace autosparse {
namespace {

constexpr std::size_t kTensorColumns = 5;
// One operator's line in program.ops.
constexpr int32_t as_op::*kBefore[] = {&as_op::kind, &as_op::input_count};
constexpr int32_t as_op::*kAfter[] = {
    &as_op::output,          &as_op::residual,          &as_op::activation,
    &as_op::kernel,          &as_op::kernel_h,          &as_op::kernel_w,
    &as_op::stride_h,        &as_op::stride_w,          &as_op::pad_top,
    &as_op::pad_left,        &as_op::pad_bottom,        &as_op::pad_right,
    &as_op::dilation_h,      &as_op::dilation_w,        &as_op::groups,
    &as_op::channels_before, &as_op::count_include_pad, &as_op::block_n};
constexpr std::size_t kOpColumns = std::size(kBefore) + AS_MAX_INPUTS + std::size(kAfter);
static_assert(kOpColumns == 28, "the format fixes the columns; another number is another format version");

void check(bool condition, const std::string &message) {
    if (!condition) throw Error(AS_BAD_FILE, message);
}

as_op op_of(const std::int32_t *line) {
    as_op op{};
    for (auto field : kBefore) op.*field = *line++;
    for (int32_t &input : op.inputs) input = *line++;
    for (auto field : kAfter) op.*field = *line++;
    return op;
}

std::vector<std::string> lines_of(const Array &text) {
    std::vector<std::string> lines;
    const auto *at = reinterpret_cast<const char *>(text.data), *end = at + text.bytes;
    while (at < end) {
        const auto *stop =
            static_cast<const char *>(std::memchr(at, '\n', static_cast<std::size_t>(end - at)));
        lines.emplace_back(at, stop ? stop : end);
        at = stop ? stop + 1 : end;
    }
    return lines;
}

// Zeroed memory that costs nothing where it is not touched: pruned weights of a layer stay untouched.
class Zeros {
public:
    explicit Zeros(std::size_t floats) : data_(static_cast<float *>(std::calloc(floats, sizeof(float)))) {
        if (!data_) throw std::bad_alloc();
    }
    float *data() const { return data_.get(); }

private:
    struct Free {
        void operator()(float *data) const { std::free(data); }
    };
    std::unique_ptr<float, Free> data_;
};

// Element `i` of an array of F32 or BF16.
float element(const Array &array, std::size_t i) {
    std::uint32_t bits;
    if (array.type == ElementType::f32) {
        std::memcpy(&bits, array.data + i * 4, 4);
    } else {
        std::uint16_t upper;
        std::memcpy(&upper, array.data + i * 2, 2);
        bits = std::uint32_t{upper} << 16;
    }
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

class Loader {
public:
    Loader(const Container &file, as_program &into) : file_(file), into_(into) {}

    void load() {
        add_tensors();
        kernels_ = lines_of(file_.array("program.kernels", ElementType::u8));
        for (int32_t id : file_.integers("program.inputs", 1)) into_.program.add_input(checked(id));
        add_operators();
        for (int32_t id : file_.integers("program.outputs", 1)) into_.program.add_output(checked(id));
        into_.program.share_weights();
        into_.program.finish();
        into_.manifest = file_.text("manifest");
    }

private:
    void add_tensors() {
        const auto cells = file_.integers("program.tensors", 2);
        check(file_.array("program.tensors", ElementType::i32).shape[1] == kTensorColumns,
              "an artifact's program.tensors must have 5 columns");
        for (std::size_t i = 0; i < cells.size(); i += kTensorColumns) {
            check(cells[i] == AS_F32 || cells[i] == AS_BF16,
                  "tensors of an artifact must be of a type that this autosparse knows, but got " +
                      std::to_string(cells[i]) + "; install a newer autosparse");
            into_.program.add_tensor(checked_shape(&cells[i + 1]), cells[i]);
        }
    }

    int32_t checked(int32_t id) const {
        check(id >= 0 && id < into_.program.tensor_count(),
              "an artifact may name only its own tensors, but names tensor " + std::to_string(id));
        return id;
    }

    void add_operators() {
        const auto cells = file_.integers("program.ops", 2);
        check(file_.array("program.ops", ElementType::i32).shape[1] == kOpColumns,
              "an artifact's program.ops must have 28 columns");
        if (file_.has("program.shared")) {
            shared_ = file_.integers("program.shared", 1);
            check(shared_.size() == cells.size() / kOpColumns,
                  "an artifact's program.shared must have one entry per operator");
        }
        for (std::size_t i = 0; i < cells.size(); i += kOpColumns) {
            number_ = i / kOpColumns;
            try {
                add_operator(op_of(&cells[i]));
            } catch (const Error &error) {
                throw Error(error.status, "operator " + std::to_string(number_) + ": " + error.what());
            }
        }
    }

    std::string name(const char *part) const { return name(part, number_); }
    static std::string name(const char *part, std::size_t number) {
        return "op." + std::to_string(number) + "." + part;
    }

    // The name under which this operator's weight or structure lies.
    std::string owned(const char *part) const {
        return name(part, shared_.empty() ? number_ : static_cast<std::size_t>(shared_[number_]));
    }

    void add_operator(as_op op) {
        into_.program.check_op(op);  // ids are valid from here on
        check(shared_.empty() ||
                  (shared_[number_] >= 0 && static_cast<std::size_t>(shared_[number_]) <= number_),
              "an operator may share the weights of earlier operators only");
        std::string note;
        op.kernel = kernel_here(op, note);
        const std::vector<int32_t> group_start = list("group_start"), kept = list("kept");
        if (op.block_n) {
            check_structure(op, group_start, kept);
            op.group_start = group_start.data();
            op.kept = kept.empty() ? nullptr : kept.data();
        }
        const auto weight = file_.has(owned("weight")) ? expanded(op) : nullptr;
        const std::vector<float> bias = biases(op);
        op.weight = weight ? weight->data() : nullptr;
        op.bias = bias.empty() ? nullptr : bias.data();
        into_.program.add_op(op);
        into_.notes.push_back(note);
    }

    // The recorded kernel's row here, or AS_KERNEL_ANY and the reason why it cannot be that.
    int32_t kernel_here(const as_op &op, std::string &note) const {
        if (op.kernel < 0) return AS_KERNEL_ANY;
        check(static_cast<std::size_t>(op.kernel) < kernels_.size(),
              "an artifact may refer only to kernels that it names, but refers to " +
                  std::to_string(op.kernel));
        const std::string &wanted = kernels_[static_cast<std::size_t>(op.kernel)];
        const auto &rows = kernel_table();
        for (std::size_t row = 0; row < rows.size(); ++row) {
            if (rows[row].name != wanted) continue;
            const auto reasons =
                why_not(rows[row], op, into_.program.tensor(op.inputs[0]).shape, into_.program.isa());
            if (reasons.empty()) return static_cast<int32_t>(row);
            note = wanted + ": " + reasons.front();
            return AS_KERNEL_ANY;
        }
        note = wanted + ": this version has no such kernel";
        return AS_KERNEL_ANY;
    }

    std::vector<int32_t> list(const char *part) const {
        return file_.has(owned(part)) ? file_.integers(owned(part), 1) : std::vector<int32_t>();
    }

    // The lengths only: what they hold is checked when the operator is added.
    void check_structure(const as_op &op, const std::vector<int32_t> &group_start,
                         const std::vector<int32_t> &kept) const {
        check(op.block_n > 0 && op.kind == AS_OP_CONV && op.groups == 1,
              "only convolutions without groups have a 1xN structure");
        const int64_t outputs = into_.program.tensor(op.output).shape.channels;
        const int64_t groups = (outputs + op.block_n - 1) / op.block_n;
        check(static_cast<int64_t>(group_start.size()) == groups + 1,
              "group_start must have " + std::to_string(groups + 1) + " entries, but has " +
                  std::to_string(group_start.size()));
        check(group_start.back() == static_cast<int64_t>(kept.size()),
              "kept must have as many entries as group_start ends with, but has " +
                  std::to_string(kept.size()));
        const int32_t inputs = into_.program.tensor(op.inputs[0]).shape.channels;
        for (std::size_t g = 0; g + 1 < group_start.size(); ++g)
            check(group_start[g] >= 0 && group_start[g] <= group_start[g + 1],
                  "group_start must ascend from 0");
        for (int32_t channel : kept)
            check(channel >= 0 && channel < inputs,
                  "kept must name input channels, but names " + std::to_string(channel));
    }

    // Weights as as_op takes them.
    std::unique_ptr<Zeros> expanded(const as_op &op) const {
        const ElementType type = file_.type(owned("weight"));
        check(type == ElementType::f32 || type == ElementType::bf16, "weights must be F32 or BF16");
        const Array stored = file_.array(owned("weight"), type);
        const Shape &in = into_.program.tensor(op.inputs[0]).shape,
                    &out = into_.program.tensor(op.output).shape;
        const bool convolves = op.kind == AS_OP_CONV || op.kind == AS_OP_CONV_GROUPED;
        if (convolves)
            check(op.groups >= 1 && op.kernel_h >= 1 && op.kernel_w >= 1,
                  "groups, kernel_h and kernel_w must be at least 1");
        std::vector<int64_t> dense = {out.channels};
        if (convolves) dense = {out.channels, in.channels / op.groups, op.kernel_h, op.kernel_w};
        int64_t count = 1;
        for (int64_t extent : dense)
            check(!__builtin_mul_overflow(count, extent, &count) && count < kMostWeights,
                  "an operator must have fewer than 2^30 weights");
        check(count >= 1, "an operator must have a weight per group at least");
        auto made = std::make_unique<Zeros>(static_cast<std::size_t>(count));
        if (op.block_n) {
            scatter(op, stored, dense, made->data());
            return made;
        }
        check(stored.shape == dense, "weights must have the shape that their operator needs");
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
            made->data()[i] = element(stored, i);
        return made;
    }

    // Kept blocks to where they belong in OIHW.
    void scatter(const as_op &op, const Array &stored, const std::vector<int64_t> &dense, float *to) const {
        const auto group_start = list("group_start"), kept = list("kept");
        const int64_t taps = dense[2] * dense[3], inputs = dense[1];
        check(stored.shape == std::vector<int64_t>{static_cast<int64_t>(kept.size()), taps, op.block_n},
              "weights of a 1xN layer must be [kept blocks][kernel positions][N]");
        std::size_t from = 0;
        for (std::size_t g = 0; g + 1 < group_start.size(); ++g)
            for (int32_t k = group_start[g]; k < group_start[g + 1]; ++k)
                for (int64_t t = 0; t < taps; ++t)
                    for (int64_t r = 0; r < op.block_n; ++r, ++from) {
                        const int64_t row = static_cast<int64_t>(g) * op.block_n + r;
                        if (row < dense[0])
                            to[(row * inputs + kept[static_cast<std::size_t>(k)]) * taps + t] =
                                element(stored, from);
                    }
    }

    std::vector<float> biases(const as_op &op) const {
        if (!file_.has(name("bias"))) return {};
        const Array stored = file_.array(name("bias"), ElementType::f32);
        const int64_t outputs = into_.program.tensor(op.output).shape.channels;
        check(stored.shape == std::vector<int64_t>{outputs},
              "there must be " + std::to_string(outputs) + " biases, one per output channel");
        std::vector<float> values(static_cast<std::size_t>(outputs));
        std::memcpy(values.data(), stored.data, stored.bytes);
        return values;
    }

    static constexpr int64_t kMostWeights = int64_t{1} << 30;

    const Container &file_;
    as_program &into_;
    std::vector<std::string> kernels_;
    std::vector<int32_t> shared_;  // empty where no operator shares
    std::size_t number_ = 0;
};

}  // namespace

void load_artifact(const void *file, std::size_t size, as_program &into) {
    const Container container(file, size);
    try {
        Loader(container, into).load();
    } catch (const Error &error) {
        // A program's own checks speak of arguments; here the file is what broke the rule.
        const bool is_rule = error.status == AS_BAD_ARGUMENT;
        throw Error(is_rule ? AS_BAD_FILE : error.status, error.what());
    }
}

}  // namespace autosparse
