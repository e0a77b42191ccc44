// Instantiates the rows of variants.inc that belong to the instruction set this file is compiled for.
#include "conv/mx.h"
#include "conv/oc.h"
#include "conv/px.h"
#include "conv/wg.h"
#include "levels.h"

namespace autosparse::AS_ISA_NS {
namespace {

#define AS_JOIN_(a, b) a##b
#define AS_JOIN(a, b) AS_JOIN_(a, b)
constexpr Level kLevel = AS_JOIN(AS_ISA_NS, _level);
static_assert(kLanes == kLevels[kLevel].lanes, "CMakeLists.txt must give a level the lanes of its vectors");

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
constexpr bool kFuses = true;
#else
constexpr bool kFuses = false;
#endif

using f32 = F32;
using bf16 = Bf16Pairs;

template <class A, Level L, Method M, int Outputs, int Pixels>
constexpr ConvKernel pick() {
    if constexpr (L != kLevel)
        return nullptr;
    else if constexpr (M == Method::px)
        return px<A, Outputs, Pixels>;
    else if constexpr (M == Method::oc)
        return oc<A, Outputs, Pixels>;
    else if constexpr (M == Method::wg)
        return wg<Wg, Outputs, Pixels>;
    else if constexpr (M == Method::wf)
        return wg<Wf, Outputs, Pixels>;
    else if constexpr (M == Method::wp)
        return wg<Wp, Outputs, Pixels>;
    else
        return mx<Outputs, Pixels>;
}

#define AS_KERNEL(dtype, isa, method, block_n, outputs, pixels) \
    pick<dtype, isa##_level, Method::method, outputs, pixels>(),
constexpr ConvKernel rows[] = {
#include "conv/variants.inc"
};
#undef AS_KERNEL

}  // namespace

extern const ConvKernels conv_kernels;
const ConvKernels conv_kernels = {
    kFuses,
    rows,
    {nullptr, nullptr, wg_transform_input<Wg>, wg_transform_input<Wf>, nullptr, wg_transform_input<Wp>},
    mx_fill_panel};

}  // namespace autosparse::AS_ISA_NS
