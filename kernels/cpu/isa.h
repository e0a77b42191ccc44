// Which instruction sets this process may use.
#pragma once

#include "levels.h"

namespace autosparse {

// Whether a level is `other` or extends it, at any remove.
bool holds(int isa, int other);

// Widest level that this build has, the CPU has, the operating system grants, and the limit holds: what new
// programs use.
int usable_isa();
// Nothing but this level and what it extends, or AS_ISA_ANY.
void set_isa_limit(int isa);

}  // namespace autosparse
