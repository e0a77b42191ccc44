#include "cpu/isa.h"

#include <atomic>
#include <cstdint>

#include "autosparse.h"

#ifdef AS_HAS_X86_LEVELS
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace autosparse {
namespace {

std::atomic<int> isa_limit{AS_ISA_AMX};

#ifdef AS_HAS_X86_LEVELS
struct Leaf {
    uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Leaf cpuid(uint32_t leaf, uint32_t subleaf) {
    Leaf out;
    __get_cpuid_count(leaf, subleaf, &out.eax, &out.ebx, &out.ecx, &out.edx);
    return out;
}

// Register state that the operating system saves, XCR0; 0 without XSAVE.
uint64_t granted_state() {
    if (!(cpuid(1, 0).ecx & (1u << 27))) return 0;
    uint32_t low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<uint64_t>(high) << 32) | low;
}

constexpr uint64_t kYmmState = 0x6;   // SSE and AVX
constexpr uint64_t kZmmState = 0xe6;  // and opmask, upper halves, upper registers

constexpr uint64_t kTileState = 0x60000;

// Linux grants the large tile registers to processes that ask.
bool is_amx_permitted() {
#if defined(__linux__) && defined(__x86_64__)
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

bool has_all(uint32_t word, uint32_t bits) { return (word & bits) == bits; }

int detect_x86() {
    const uint64_t state = granted_state();
    const Leaf basic = cpuid(1, 0), extended = cpuid(7, 0);
    constexpr uint32_t kFma = 1u << 12, kAvx = 1u << 28, kF16c = 1u << 29;
    constexpr uint32_t kAvx2 = 1u << 5;
    constexpr uint32_t kAvx512 = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F DQ BW VL
    if ((state & kYmmState) != kYmmState || !has_all(basic.ecx, kFma | kAvx | kF16c) ||
        !has_all(extended.ebx, kAvx2))
        return AS_ISA_GENERIC;
    if ((state & kZmmState) != kZmmState || !has_all(extended.ebx, kAvx512)) return AS_ISA_AVX2;
    constexpr uint32_t kBf16 = 1u << 5;
    if (!has_all(cpuid(7, 1).eax, kBf16)) return AS_ISA_AVX512;
    constexpr uint32_t kAmx = (1u << 22) | (1u << 24);  // BF16 TILE
    if ((state & kTileState) == kTileState && has_all(extended.edx, kAmx) && is_amx_permitted())
        return AS_ISA_AMX;
    return AS_ISA_AVX512_BF16;
}
#endif

}  // namespace

int detect_isa() {
#ifdef AS_HAS_X86_LEVELS
    static const int isa = detect_x86();
    return isa;
#else
    return AS_ISA_GENERIC;
#endif
}

int usable_isa() {
    const int limit = isa_limit.load(), have = detect_isa();
    return limit < have ? limit : have;
}

void set_isa_limit(int isa) { isa_limit.store(isa); }

bool has_bf16_dot() { return detect_isa() >= AS_ISA_AVX512_BF16; }

}  // namespace autosparse
