// Vectors of float for the instruction set that this file is compiled for. The same kernels are compiled
// once per instruction set; everything here lies in a namespace of that set's own, so that no inline
// function compiled with wider instructions can be picked by the linker for a narrower CPU.
//
// Every header gives: Vec, kLanes, kRegisters (architectural vector registers), load/store (unaligned),
// load_some/store_some (first `count` lanes; the rest reads as 0 and is not written), load_every_second,
// first_lanes_of (the rest zero), broadcast, fma (a*b+c), max/min (returning the second argument when
// either is NaN), max_or_nan (NaN when either is), and_mask, sum, transpose (kLanes x kLanes, in place), zip
// and unzip (of two vectors), shift_in. Loads and stores take float or Bf16 in memory; a store to Bf16 rounds
// to nearest even.
//
// dot_pairs takes vectors whose 32-bit lanes are pairs of bf16 (first of the pair in the low half): acc +
// first products + second products in float. interleave makes such pairs from two runs of bf16.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu/bf16.h"

#if defined(AS_COMPILE_AMX)
#define AS_ISA_NS amx
#include "cpu/vec_avx512.h"
#elif defined(AS_COMPILE_AVX512_BF16)
#define AS_ISA_NS avx512bf16
#include "cpu/vec_avx512.h"
#elif defined(AS_COMPILE_AVX512)
#define AS_ISA_NS avx512
#include "cpu/vec_avx512.h"
#elif defined(AS_COMPILE_AVX2)
#define AS_ISA_NS avx2
#include "cpu/vec_avx2.h"
#else
#define AS_ISA_NS generic
#include "cpu/vec_generic.h"
#endif

namespace autosparse::AS_ISA_NS {

// Weights are read once per inference, in order, from beyond the second-level cache: asks that cache for
// `count` floats some way ahead. Measured on ResNet-18 (75 % sparse, Zen 5): 16 KB ahead brings the
// 512-channel layers from 365 to 292 us, as fast as with warm weights; 4 KB and the first-level cache a
// little less. Addresses beyond the buffer are harmless.
AS_INLINE void prefetch_weights(const float *weights, int count) {
    constexpr int kAhead = 4096, kSecondLevel = 2;
    for (int i = 0; i < count; i += 16) __builtin_prefetch(weights + kAhead + i, 0, kSecondLevel);
}

}  // namespace autosparse::AS_ISA_NS
