// Instantiates the rows of variants.inc that belong to the instruction set this file is compiled for.
#include "conv/mx.h"
#include "conv/oc.h"
#include "conv/px.h"
#include "conv/wg.h"

namespace autosparse {
namespace {

enum Level { generic_level, avx2_level, avx512_level, avx512bf16_level, amx_level };
using f32 = AS_ISA_NS::F32;
using bf16 = AS_ISA_NS::Bf16Pairs;

#if defined(AS_COMPILE_AMX)
constexpr Level kLevel = amx_level;
#elif defined(AS_COMPILE_AVX512_BF16)
constexpr Level kLevel = avx512bf16_level;
#elif defined(AS_COMPILE_AVX512)
constexpr Level kLevel = avx512_level;
#elif defined(AS_COMPILE_AVX2)
constexpr Level kLevel = avx2_level;
#else
constexpr Level kLevel = generic_level;
#endif

template <class A, Level L, int R, int V>
constexpr ConvKernel pick_px() {
    if constexpr (L == kLevel)
        return AS_ISA_NS::px<A, R, V>;
    else
        return nullptr;
}

template <class A, Level L, int O, int P>
constexpr ConvKernel pick_oc() {
    if constexpr (L == kLevel)
        return AS_ISA_NS::oc<A, O, P>;
    else
        return nullptr;
}

template <class W, Level L, int R, int V>
constexpr ConvKernel pick_wg() {
    if constexpr (L == kLevel)
        return AS_ISA_NS::wg<W, R, V>;
    else
        return nullptr;
}

template <Level L, int O, int V>
constexpr ConvKernel pick_mx() {
    if constexpr (L == kLevel)
        return AS_ISA_NS::mx<O, V>;
    else
        return nullptr;
}

#define AS_PX(dtype, isa, block_n, tile_out, vectors) pick_px<dtype, isa##_level, tile_out, vectors>(),
#define AS_OC(dtype, isa, block_n, vectors, pixels) pick_oc<dtype, isa##_level, vectors, pixels>(),
#define AS_WG(isa, block_n, tile_out, vectors) pick_wg<AS_ISA_NS::Wg, isa##_level, tile_out, vectors>(),
#define AS_WF(isa, block_n, tile_out, vectors) pick_wg<AS_ISA_NS::Wf, isa##_level, tile_out, vectors>(),
#define AS_WP(isa, block_n, tile_out, vectors) pick_wg<AS_ISA_NS::Wp, isa##_level, tile_out, vectors>(),
#define AS_MX(isa, block_n, outs, vectors) pick_mx<isa##_level, outs, vectors>(),
constexpr ConvKernel rows[] = {
#include "conv/variants.inc"
};
#undef AS_PX
#undef AS_OC
#undef AS_WG
#undef AS_WF
#undef AS_WP
#undef AS_MX

constexpr ConvKernels table = {
    AS_ISA_NS::kLanes,
    rows,
    {AS_ISA_NS::wg_transform_input<AS_ISA_NS::Wg>, AS_ISA_NS::wg_transform_input<AS_ISA_NS::Wf>,
     AS_ISA_NS::wg_transform_input<AS_ISA_NS::Wp>}};

}  // namespace

#if defined(AS_COMPILE_AMX)
const ConvKernels &conv_kernels_amx() { return table; }
#elif defined(AS_COMPILE_AVX512_BF16)
const ConvKernels &conv_kernels_avx512bf16() { return table; }
#elif defined(AS_COMPILE_AVX512)
const ConvKernels &conv_kernels_avx512() { return table; }
#elif defined(AS_COMPILE_AVX2)
const ConvKernels &conv_kernels_avx2() { return table; }
#else
const ConvKernels &conv_kernels_generic() { return table; }
#endif

}  // namespace autosparse
