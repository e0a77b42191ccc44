// From an artifact to a finished program.
//
//     program.tensors   I32 [tensors][5]    dtype (as_dtype), batch, channels, height, width
//     program.inputs    I32 [inputs]        tensor ids, in the order that as_program_run takes them
//     program.outputs   I32 [outputs]
//     program.ops       I32 [operators][28] the fields of as_op that are numbers, in the order of kColumns
//     program.kernels   U8                  names of kernels, one per line; program.ops refers to lines
//     program.shared    I32 [operators]     optional: the operator, this or an earlier one, under whose
//                                           number the weight and the 1xN structure of each lie
//     op.<i>.weight     F32 or BF16         dense: OIHW; 1xN: [kept blocks][kernel positions][N]; else [C]
//     op.<i>.bias       F32 [outputs]
//     op.<i>.group_start, op.<i>.kept       I32: the 1xN structure, as in as_op
//     pad.<i>           U8                  zeros in front of the next array
//
// Nothing in a file is trusted: ids, extents and lengths are checked before they are used, here or by
// the checks that every program passes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "executor/handle.h"

namespace autosparse {

// Adds the tensors and operators of the artifact in `size` bytes at `file` to an empty program and
// finishes it. Throws AS_BAD_FILE, or what a program's own checks throw.
void load_artifact(const void *file, std::size_t size, as_program &into);

}  // namespace autosparse
