// Which instruction sets this process may use.
#pragma once

namespace autosparse {

// Widest as_isa level that the CPU has and the operating system grants.
int detect_isa();

// Widest level that new programs may use: detect_isa() unless lowered by set_isa_limit.
int usable_isa();
void set_isa_limit(int isa);

// Whether the CPU and the operating system grant AVX512-BF16.
bool has_bf16_dot();

}  // namespace autosparse
