// What one multiply-add of a convolution kernel does with 32-bit elements of inputs and weights.
#pragma once

#include "autosparse.h"
#include "cpu/vec.h"

namespace autosparse::AS_ISA_NS {

struct F32 {
    AS_INLINE Vec mac(Vec w, Vec x, Vec acc) { return fma(w, x, acc); }
};

// Two bf16 channels at once, summed in float.
struct Bf16Pairs {
    AS_INLINE Vec mac(Vec w, Vec x, Vec acc) { return dot_pairs(w, x, acc); }
};

}  // namespace autosparse::AS_ISA_NS
