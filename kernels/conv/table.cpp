#include "conv/table.h"

#include "cpu/isa.h"
#include "source_hash.h"

namespace autosparse {
namespace {

enum Dtype { f32 = AS_F32, bf16 = AS_BF16 };

}  // namespace

#define AS_DECLARE(level)                      \
    namespace level {                          \
    extern const ConvKernels conv_kernels;     \
    }
AS_LEVELS_WITH_kernels(AS_DECLARE)
#undef AS_DECLARE

namespace {

// Null where this build lacks the instruction set.
const ConvKernels *compiled_kernels(int isa) {
#define AS_FIND(level) \
    if (isa == level##_level) return &level::conv_kernels;
    AS_LEVELS_WITH_kernels(AS_FIND)
#undef AS_FIND
    return nullptr;
}

const char *source_hash_of(int isa, Method method) {
    for (const SourceHash &hash : kSourceHashes)
        if (hash.level == isa && hash.method == method) return hash.digest;
    return "";
}

// <dtype>_<contract>__<isa>_<method><outputs>x<pixels>; kernels/README.md has the grammar.
std::string name_of(const KernelRow &row) {
    const std::string contract = name_of_dtype(row.dtype) + std::string("_conv_") +
                                 (row.block_n ? "onexn" + std::to_string(row.block_n) : "dense");
    return contract + "__" + kLevels[row.isa].name + "_" + facts_of(row.method).name +
           std::to_string(row.tile_out) + "x" + std::to_string(row.tile_pixels);
}

KernelRow make_row(int index, int dtype, Level level, Method method, int block_n, int outputs, int pixels) {
    const int lanes = kLevels[level].lanes;
    KernelRow row{};
    row.method = method;
    row.isa = level;
    row.dtype = dtype;
    row.lanes = method == Method::mx ? kMatrixSide : lanes;
    row.block_n = block_n;
    row.tile_out = elements_of(facts_of(method).outputs, outputs, lanes);
    row.tile_pixels = elements_of(facts_of(method).pixels, pixels, lanes);
    row.name = name_of(row);
    row.source_hash = source_hash_of(level, method);
    if (const ConvKernels *kernels = compiled_kernels(level)) {
        row.run = kernels->rows[index];
        row.fuses = kernels->fuses;
    }
    return row;
}

std::vector<KernelRow> build_table() {
    std::vector<KernelRow> rows;
    int index = 0;
#define AS_KERNEL(dtype, isa, method, block_n, outputs, pixels) \
    rows.push_back(make_row(index++, dtype, isa##_level, Method::method, block_n, outputs, pixels));
#include "conv/variants.inc"
#undef AS_KERNEL
    return rows;
}

// Cycles of one step of a register tile: two multiply-adds and two loads a cycle, and no step faster than
// one multiply-add's latency. `loads` counts an unaligned vector twice.
double step_cycles(double multiply_adds, double loads) {
    const double busy = (multiply_adds > loads ? multiply_adds : loads) / 2;
    return busy > 4 ? busy : 4;
}

// Cycles of all blocks that `vectors` are cut into (conv/px.h), by the cycles of one.
template <class Block>
double cycles_of_blocks(int vectors, int most, Block &&block) {
    const int blocks = (vectors + most - 1) / most;
    return vectors % blocks * block(vectors / blocks + 1) +
           (blocks - vectors % blocks) * block(vectors / blocks);
}

// Bytes of weights that arrive in a cycle, from behind the second cache.
constexpr double kWeightBytesPerCycle = 16;

// How much slower matrix tiles in memory are: never the default.
constexpr double kCyclesOfEmulation = 1000;

// Cycles of transforming one vector of Winograd tiles of one channel, per position.
constexpr double kInputTransformCycles = 4.5, kOutputTransformCycles = 4;

// Cycles of one multiplication of two matrix tiles in a sparse layer, whose tiles of pixels cross cache lines, and
// of filling as much of its panel: each group of outputs fills its own, for all positions of the kernel. From the
// layers of ResNet-18, ResNet-20 and MobileNetV1 and V2, three quarters of them pruned, over the same dense ones on two
// threads of a Xeon with AMX that others used.
constexpr double kSparseMatrixCycles = 2, kPanelCycles = 3;

// Cycles of a step of a register tile of matrices per cycle of one multiplication of two: tiles come from the
// second-level cache.
double matrix_cycles(double outputs, double pixels) {
    constexpr double kMultiply = 16, kLoad = 22;
    const double busy = outputs * pixels * kMultiply, loads = (outputs + pixels) * kLoad;
    return (busy > loads ? busy : loads) / kMultiply;
}

// Cycles per kept input and kernel position for the whole layer: good enough to start from; the tuner
// measures.
double expected_cycles(const KernelRow &row, const as_op &op, int in_channels, double kept,
                       const Shape &output) {
    const int lanes = lanes_of(row.isa);
    const int group = op.block_n ? op.block_n : output.channels;  // outputs that share their inputs
    const double groups = (output.channels + group - 1) / group;
    const double tiles = groups * ((group + row.tile_out - 1) / row.tile_out);
    if (row.method == Method::oc) {
        const int blocks = (output.width + row.tile_pixels - 1) / row.tile_pixels;
        const int pixels = (output.width + blocks - 1) / blocks, vectors = row.tile_out / lanes;
        // A broadcast per multiply-add never quite reaches the loads' peak.
        const double slack = vectors == 1 ? 1.25 : 1.0;
        return tiles * output.height * blocks * slack * step_cycles(pixels * vectors, pixels + vectors);
    }
    if (const Filtering filtering = filtering_of(row.method); filtering.out) {
        const int side = filtering.out, positions = filtering.in * filtering.in;
        const int columns = (output.width + side - 1) / side, heights = (output.height + side - 1) / side;
        const int vectors = (heights * columns + lanes - 1) / lanes, tile = row.tile_pixels / lanes;
        const int planes = op.stride_h * op.stride_w;
        const auto block = [&](int n) {
            return positions * planes * step_cycles(row.tile_out * n, row.tile_out + n);
        };
        const double inputs =
            heights * ((columns + lanes - 1) / lanes) * positions * planes * kInputTransformCycles;
        const double outputs = vectors * positions * kOutputTransformCycles;
        // Per kept input: transforms are shared by all groups and by all inputs.
        return (tiles * cycles_of_blocks(vectors, tile, block) +
                (in_channels * inputs + output.channels * outputs) / (kept > 1 ? kept : 1)) /
               (op.kernel_h * op.kernel_w);
    }
    if (row.method == Method::mx) {
        const int blocks = (output.height * (output.width + 1) + row.tile_pixels - 1) / row.tile_pixels;
        const double outputs = row.tile_out / kMatrixSide, pixels = row.tile_pixels / kMatrixSide;
        const double cycles =
            op.block_n ? tiles * outputs * pixels * kSparseMatrixCycles +
                             groups * pixels * kPanelCycles / (op.kernel_h * op.kernel_w)
                       : tiles * matrix_cycles(outputs, pixels);
        return blocks * cycles * (row.isa == amx_level ? 1 : kCyclesOfEmulation);
    }
    const int pad = op.kernel_w > 1 ? 1 : 0, tile = row.tile_pixels / lanes;
    const int vectors = (output.height * (output.width + pad) + lanes - 1) / lanes;
    // Vectors of a whole cache line are never aligned to one.
    const double loads = lanes * sizeof(float) < 64 ? 1.5 : 2.0;
    return tiles * cycles_of_blocks(vectors, tile, [&](int n) {
        return step_cycles(row.tile_out * n, row.tile_out + loads * n);
    });
}

}  // namespace

InputTransform input_transform(Method method, int isa) {
    const ConvKernels *kernels = compiled_kernels(isa);
    return kernels ? kernels->transform_input[static_cast<int>(method)] : nullptr;
}

MatrixPanelFill matrix_panel_fill(int isa) {
    const ConvKernels *kernels = compiled_kernels(isa);
    return kernels ? kernels->fill_matrix_panel : nullptr;
}

const std::vector<KernelRow> &kernel_table() {
    static const std::vector<KernelRow> rows = build_table();
    return rows;
}

double average_kept(const as_op &op, int in_channels, int out_channels) {
    if (op.block_n == 0) return in_channels;
    const int groups = (out_channels + op.block_n - 1) / op.block_n;
    return static_cast<double>(op.group_start[groups]) / groups;
}

std::vector<std::string> why_not(const KernelRow &row, const as_op &op, const Shape &input, int isa) {
    std::vector<std::string> reasons;
    const auto refuse = [&](bool condition, const std::string &reason) {
        if (condition) reasons.push_back(reason);
    };
    (void)input;
    refuse(!row.run, std::string("this build has no ") + kLevels[row.isa].name + " kernels");
    refuse(!holds(isa, row.isa),
           std::string("needs ") + kLevels[row.isa].name + ", but this machine grants " + kLevels[isa].name);
    refuse(op.kind != AS_OP_CONV || op.groups != 1,
           "runs convolutions and linear layers without groups only");
    if (row.block_n != op.block_n)
        reasons.push_back(row.block_n == 0 ? "runs dense layers only"
                          : op.block_n == 0
                              ? "runs 1x" + std::to_string(row.block_n) +
                                    " patterns only, but the layer is dense"
                              : "runs 1x" + std::to_string(row.block_n) +
                                    " patterns only, but the layer is 1x" + std::to_string(op.block_n));
    refuse(row.method == Method::oc && op.stride_w > 2,
           "vectors along outputs run horizontal strides 1 and 2 only, but the stride is " +
               std::to_string(op.stride_w));
    const MethodFacts &facts = facts_of(row.method);
    const bool is_winograd = facts.filtering.out != 0;
    const auto has_window = [&](int kernel, int stride) {
        return op.kernel_h == kernel && op.kernel_w == kernel && op.stride_h == stride &&
               op.stride_w == stride && op.dilation_h == 1 && op.dilation_w == 1;
    };
    refuse(facts.window && !has_window(facts.window, facts.stride),
           std::string("Winograd's filtering") + (facts.stride > 1 ? " of phases" : "") + " runs " +
               std::to_string(facts.window) + "x" + std::to_string(facts.window) + " kernels of stride " +
               std::to_string(facts.stride) + " without dilation only");
    refuse(is_winograd && op.activation != AS_ACT_NONE && op.activation != AS_ACT_RELU &&
               op.activation != AS_ACT_RELU6,
           "Winograd's filtering applies no activation but ReLU and ReLU6");
    return reasons;
}

Choice default_kernel(const as_op &op, int dtype, const Shape &input, const Shape &output, double kept,
                      int isa) {
    Choice best;
    const auto &rows = kernel_table();
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (op.kernel == AS_KERNEL_COMPACT && filtering_of(rows[i].method).out) continue;
        if (rows[i].dtype != dtype || rows[i].block_n != op.block_n) continue;
        if (!why_not(rows[i], op, input, isa).empty()) continue;
        const double cycles = expected_cycles(rows[i], op, input.channels, kept, output) * kept *
                              op.kernel_h * op.kernel_w;
        if (best.row < 0 || cycles < best.cycles) best = {static_cast<int>(i), cycles};
    }
    // Whatever the kernel, every kept weight is read once: of two bytes, and two of them in a step, in bf16.
    const double weights = kept * op.kernel_h * op.kernel_w * output.channels;
    const double reading = weights * sizeof(float) / kWeightBytesPerCycle;
    if (reading > best.cycles) best.cycles = reading;
    return best;
}

}  // namespace autosparse
