// The kernel table: the rows of variants.inc with their names, and the one place that picks among them.
#pragma once

#include <string>
#include <vector>

#include "autosparse.h"
#include "conv/call.h"
#include "executor/tensor.h"

namespace autosparse {

enum class Method { px, oc, wg };
const char *name_of(Method method);

struct KernelRow {
    std::string name;
    Method method;
    int isa;
    int dtype;  // of inputs and weights, an as_dtype
    int block_n;
    int tile_out;
    int tile_pixels;
    const char *source_hash;
    ConvKernel run;  // null where this build lacks the instruction set
};

const std::vector<KernelRow> &kernel_table();

// Transforms one channel for the wg kernels of an instruction set.
using InputTransform = void (*)(const WinogradInput &);
InputTransform input_transform(int isa);

// Elements per vector of an instruction set.
int lanes_of(int isa);

// Why a row cannot run this operator here, on inputs of its own type; empty if it can.
std::vector<std::string> why_not(const KernelRow &row, const as_op &op, const Shape &input, int isa);

// The executor's own choice for an operator on inputs of a type, or -1 if no row can run it.
int default_kernel(const as_op &op, int dtype, const Shape &input, const Shape &output, int isa);

}  // namespace autosparse
