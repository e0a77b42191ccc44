// Whether an operator's attributes and the shapes of its tensors fit together.
#pragma once

#include "autosparse.h"
#include "executor/program.h"

namespace autosparse {

// Throws Error naming the rule that is broken.
void check_operator(const Program &program, const as_op &op);

}  // namespace autosparse
