#include "conv/table.h"

#include "cpu/isa.h"
#include "source_hash.h"

namespace autosparse {
namespace {

constexpr int kLanesOfIsa[] = {4, 8, 16, 16, 16};
constexpr const char *kNameOfIsa[] = {"generic", "avx2", "avx512", "avx512bf16", "amx"};

enum Level {
    generic_level = AS_ISA_GENERIC,
    avx2_level = AS_ISA_AVX2,
    avx512_level = AS_ISA_AVX512,
    avx512bf16_level = AS_ISA_AVX512_BF16,
    amx_level = AS_ISA_AMX
};
enum Dtype { f32 = AS_F32, bf16 = AS_BF16 };

const ConvKernels *compiled_kernels(int isa) {
#ifdef AS_HAS_X86_LEVELS
    if (isa == AS_ISA_AMX) return &conv_kernels_amx();
    if (isa == AS_ISA_AVX512_BF16) return &conv_kernels_avx512bf16();
    if (isa == AS_ISA_AVX512) return &conv_kernels_avx512();
    if (isa == AS_ISA_AVX2) return &conv_kernels_avx2();
#endif
    return isa == AS_ISA_GENERIC ? &conv_kernels_generic() : nullptr;
}

// Columns of a matrix tile.
constexpr int kMatrixPixels = 16;

// <dtype>_<contract>__<isa>_<method><outputs>x<pixels>; kernels/README.md has the grammar.
std::string name_of(const KernelRow &row) {
    const std::string contract = name_of_dtype(row.dtype) + std::string("_conv_") +
                                 (row.block_n ? "onexn" + std::to_string(row.block_n) : "dense");
    return contract + "__" + kNameOfIsa[row.isa] + "_" + name_of(row.method) +
           std::to_string(row.tile_out) + "x" + std::to_string(row.tile_pixels);
}

KernelRow make_row(int index, Method method, int dtype, int isa, int block_n, int tile_out,
                   int tile_pixels) {
    const int lanes = method == Method::mx ? kMatrixPixels : kLanesOfIsa[isa];
    KernelRow row{{}, method, isa, dtype, lanes, block_n, tile_out, tile_pixels, nullptr, nullptr};
    row.name = name_of(row);
    row.source_hash = kSourceHash[isa][static_cast<int>(method)];
    if (const ConvKernels *kernels = compiled_kernels(isa)) row.run = kernels->rows[index];
    return row;
}

std::vector<KernelRow> build_table() {
    std::vector<KernelRow> rows;
    int index = 0;
#define AS_PX(dtype, isa, n, tile_out, vectors)                                   \
    rows.push_back(make_row(index++, Method::px, dtype, isa##_level, n, tile_out, \
                            vectors *kLanesOfIsa[isa##_level]));
#define AS_OC(dtype, isa, n, vectors, pixels) \
    rows.push_back(                           \
        make_row(index++, Method::oc, dtype, isa##_level, n, vectors *kLanesOfIsa[isa##_level], pixels));
#define AS_WG(isa, n, tile_out, vectors) \
    rows.push_back(                      \
        make_row(index++, Method::wg, f32, isa##_level, n, tile_out, vectors *kLanesOfIsa[isa##_level]));
#define AS_WF(isa, n, tile_out, vectors) \
    rows.push_back(                      \
        make_row(index++, Method::wf, f32, isa##_level, n, tile_out, vectors *kLanesOfIsa[isa##_level]));
#define AS_WP(isa, n, tile_out, vectors) \
    rows.push_back(                      \
        make_row(index++, Method::wp, f32, isa##_level, n, tile_out, vectors *kLanesOfIsa[isa##_level]));
#define AS_MX(isa, n, outs, vectors) \
    rows.push_back(make_row(index++, Method::mx, bf16, isa##_level, n, outs * 16, vectors * kMatrixPixels));
#include "conv/variants.inc"
#undef AS_MX
#undef AS_PX
#undef AS_OC
#undef AS_WG
#undef AS_WF
#undef AS_WP
    return rows;
}

// Cycles of one step of a register tile: two multiply-adds and two loads a cycle, and no step faster than
// one multiply-add's latency. `loads` counts an unaligned vector twice.
double step_cycles(double multiply_adds, double loads) {
    const double busy = (multiply_adds > loads ? multiply_adds : loads) / 2;
    return busy > 4 ? busy : 4;
}

// How much slower matrix tiles in memory are: never the default.
constexpr double kCyclesOfEmulation = 1000;

// Cycles of transforming one vector of Winograd tiles of one channel, per position.
constexpr double kInputTransformCycles = 4.5, kOutputTransformCycles = 4;

// Kept inputs per group.
double average_kept(const as_op &op, int in_channels, int out_channels) {
    if (op.block_n == 0) return in_channels;
    const int groups = (out_channels + op.block_n - 1) / op.block_n;
    return static_cast<double>(op.group_start[groups]) / groups;
}

// Cycles per kept input and kernel position for the whole layer: good enough to start from; the tuner
// measures.
double expected_cycles(const KernelRow &row, const as_op &op, int in_channels, const Shape &output) {
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
            return n ? positions * planes * step_cycles(row.tile_out * n, row.tile_out + 2 * n) : 0.0;
        };
        const double inputs =
            heights * ((columns + lanes - 1) / lanes) * positions * planes * kInputTransformCycles;
        const double outputs = vectors * positions * kOutputTransformCycles;
        // Per kept input: transforms are shared by all groups and by all inputs.
        const double kept = average_kept(op, in_channels, output.channels);
        return (tiles * (vectors / tile * block(tile) + block(vectors % tile)) +
                (in_channels * inputs + output.channels * outputs) / (kept > 1 ? kept : 1)) /
               (op.kernel_h * op.kernel_w);
    }
    if (row.method == Method::mx) {
        const int blocks = (output.height * (output.width + 1) + row.tile_pixels - 1) / row.tile_pixels;
        // 16 cycles multiply 16 outputs by 16 pixels over 32 inputs, and about half of the peak is reached.
        const double cycles = row.tile_out / 16 * row.tile_pixels / 16;
        return tiles * blocks * cycles * (row.isa == AS_ISA_AMX ? 1 : kCyclesOfEmulation);
    }
    const int pad = op.kernel_w > 1 ? 1 : 0, tile = row.tile_pixels / lanes;
    const int vectors = (output.height * (output.width + pad) + lanes - 1) / lanes;
    const auto block = [&](int n) { return n ? step_cycles(row.tile_out * n, row.tile_out + 2 * n) : 0.0; };
    return tiles * (vectors / tile * block(tile) + block(vectors % tile));
}

}  // namespace

const char *name_of(Method method) {
    constexpr const char *kNames[] = {"px", "oc", "wg", "wf", "mx", "wp"};
    return kNames[static_cast<int>(method)];
}

InputTransform input_transform(Method method, int isa) {
    const ConvKernels *kernels = compiled_kernels(isa);
    return kernels ? kernels->transform_input[method == Method::wg   ? 0
                                              : method == Method::wf ? 1
                                                                     : 2]
                   : nullptr;
}

int lanes_of(int isa) { return kLanesOfIsa[isa]; }

const std::vector<KernelRow> &kernel_table() {
    static const std::vector<KernelRow> rows = build_table();
    return rows;
}

std::vector<std::string> why_not(const KernelRow &row, const as_op &op, const Shape &input, int isa) {
    std::vector<std::string> reasons;
    const auto refuse = [&](bool condition, const std::string &reason) {
        if (condition) reasons.push_back(reason);
    };
    (void)input;
    refuse(!row.run, std::string("this build has no ") + kNameOfIsa[row.isa] + " kernels");
    refuse(row.isa > isa,
           std::string("needs ") + kNameOfIsa[row.isa] + ", but this machine grants " + kNameOfIsa[isa]);
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
    const bool is_winograd = filtering_of(row.method).out != 0;
    const auto has_window = [&](int kernel, int stride) {
        return op.kernel_h == kernel && op.kernel_w == kernel && op.stride_h == stride &&
               op.stride_w == stride && op.dilation_h == 1 && op.dilation_w == 1;
    };
    refuse(row.method == Method::wp && !has_window(7, 2),
           "Winograd's filtering of phases runs 7x7 kernels of stride 2 without dilation only");
    refuse(is_winograd && row.method != Method::wp && !has_window(3, 1),
           "Winograd's filtering runs 3x3 kernels of stride 1 without dilation only");
    refuse(is_winograd && op.activation != AS_ACT_NONE && op.activation != AS_ACT_RELU &&
               op.activation != AS_ACT_RELU6,
           "Winograd's filtering applies no activation but ReLU and ReLU6");
    return reasons;
}

int default_kernel(const as_op &op, int dtype, const Shape &input, const Shape &output, int isa) {
    int best = -1;
    double least = 0;
    const auto &rows = kernel_table();
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (op.kernel == AS_KERNEL_COMPACT && filtering_of(rows[i].method).out) continue;
        if (rows[i].dtype != dtype || !why_not(rows[i], op, input, isa).empty()) continue;
        const double cycles = expected_cycles(rows[i], op, input.channels, output);
        if (best < 0 || cycles < least) {
            least = cycles;
            best = static_cast<int>(i);
        }
    }
    return best;
}

}  // namespace autosparse
