// Instantiates the rows of variants.inc that belong to the instruction set this file is compiled for.
#include "conv/oc.h"
#include "conv/px.h"

namespace autosparse {
namespace {

enum Level { generic_level, avx2_level, avx512_level };

#if defined(AS_COMPILE_AVX512)
constexpr Level kLevel = avx512_level;
#elif defined(AS_COMPILE_AVX2)
constexpr Level kLevel = avx2_level;
#else
constexpr Level kLevel = generic_level;
#endif

template <Level L, int R, int V>
constexpr ConvKernel pick_px() {
    if constexpr (L == kLevel)
        return AS_ISA_NS::px<R, V>;
    else
        return nullptr;
}

template <Level L, int O, int P>
constexpr ConvKernel pick_oc() {
    if constexpr (L == kLevel)
        return AS_ISA_NS::oc<O, P>;
    else
        return nullptr;
}

#define AS_PX(isa, block_n, tile_out, vectors) pick_px<isa##_level, tile_out, vectors>(),
#define AS_OC(isa, block_n, vectors, pixels) pick_oc<isa##_level, vectors, pixels>(),
constexpr ConvKernel rows[] = {
#include "conv/variants.inc"
};
#undef AS_PX
#undef AS_OC

constexpr ConvKernels table = {AS_ISA_NS::kLanes, rows};

}  // namespace

#if defined(AS_COMPILE_AVX512)
const ConvKernels &conv_kernels_avx512() { return table; }
#elif defined(AS_COMPILE_AVX2)
const ConvKernels &conv_kernels_avx2() { return table; }
#else
const ConvKernels &conv_kernels_generic() { return table; }
#endif

}  // namespace autosparse
