// Vectors of float for the instruction set that this file is compiled for. The same kernels are compiled
// once per instruction set; everything here lies in a namespace of that set's own, so that no inline
// function compiled with wider instructions can be picked by the linker for a narrower CPU.
//
// Every header gives: Vec, kLanes, kRegisters (architectural vector registers), load/store (unaligned),
// load_some/store_some (first `count` lanes; the rest reads as 0 and is not written), load_every_second,
// first_lanes_of (the rest zero), broadcast, fma (a*b+c), max/min (returning the second argument when either is NaN), and_mask, sum,
// transpose (kLanes x kLanes, in place).
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(AS_COMPILE_AVX512)
#define AS_ISA_NS avx512
#include "cpu/vec_avx512.h"
#elif defined(AS_COMPILE_AVX2)
#define AS_ISA_NS avx2
#include "cpu/vec_avx2.h"
#else
#define AS_ISA_NS generic
#include "cpu/vec_generic.h"
#endif
