// The kernel table: the rows of variants.inc with their names, and the one place that picks among them.
#pragma once

#include <string>
#include <vector>

#include "autosparse.h"
#include "conv/call.h"
#include "conv/methods.h"
#include "executor/tensor.h"
#include "levels.h"

namespace autosparse {

struct KernelRow {
    std::string name;
    Method method;
    int isa;
    int dtype;  // of inputs and weights, an as_dtype
    int lanes;  // pixels per unit of work along flattened pixels
    int block_n;
    int tile_out;
    int tile_pixels;
    const char *source_hash;
    ConvKernel run;  // null where this build lacks the instruction set
    bool fuses;      // its multiplications and additions

    // Works on flattened pixels, and writes whole units of them with zeros between the rows.
    bool is_flat() const { return method == Method::px || method == Method::mx; }
};

const std::vector<KernelRow> &kernel_table();

// Transforms one channel for the kernels of a method and an instruction set.
InputTransform input_transform(Method method, int isa);

// Fills panels for the kernels on matrix tiles of an instruction set.
MatrixPanelFill matrix_panel_fill(int isa);

// Floats per vector of an instruction set.
inline int lanes_of(int isa) { return kLevels[isa].lanes; }

// Why a row cannot run this operator here, on inputs of its own type; empty if it can.
std::vector<std::string> why_not(const KernelRow &row, const as_op &op, const Shape &input, int isa);

// Kept inputs per group of outputs.
double average_kept(const as_op &op, int in_channels, int out_channels);

// A row, -1 for none, and the cycles that it is expected to take: good enough to choose by, and no times.
struct Choice {
    int row = -1;
    double cycles = 0;
};

// The executor's own choice, of the rows that `op.kernel` leaves, for inputs of a type, of which it keeps
// so many per group of outputs.
Choice default_kernel(const as_op &op, int dtype, const Shape &input, const Shape &output, double kept,
                      int isa);

}  // namespace autosparse
