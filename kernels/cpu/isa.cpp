#include "cpu/isa.h"

#include <atomic>
#include <cstdint>

#include "autosparse.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace autosparse {
namespace {

std::atomic<int> isa_limit{AS_ISA_ANY};

// Whether the CPU has and the operating system grants what a level adds to the one it extends. A build has
// some of the levels.
#define AS_GRANTS(level) [[maybe_unused]] bool grants_##level()

AS_GRANTS(generic) { return true; }

#if defined(__x86_64__)
struct Leaf {
    uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Leaf cpuid(uint32_t leaf, uint32_t subleaf) {
    Leaf out;
    __get_cpuid_count(leaf, subleaf, &out.eax, &out.ebx, &out.ecx, &out.edx);
    return out;
}

bool has_all(uint64_t word, uint64_t bits) { return (word & bits) == bits; }

// Whether the operating system saves these parts of the registers (XCR0).
bool saves(uint64_t parts) {
    if (!(cpuid(1, 0).ecx & (1u << 27))) return false;
    uint32_t low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return has_all((static_cast<uint64_t>(high) << 32) | low, parts);
}

AS_GRANTS(avx2) {
    constexpr uint64_t kYmm = 0x6;  // SSE and AVX
    constexpr uint32_t kFma = 1u << 12, kAvx = 1u << 28, kF16c = 1u << 29, kAvx2 = 1u << 5;
    return saves(kYmm) && has_all(cpuid(1, 0).ecx, kFma | kAvx | kF16c) && has_all(cpuid(7, 0).ebx, kAvx2);
}

AS_GRANTS(avx512) {
    constexpr uint64_t kZmm = 0xe6;  // and opmask, upper halves, upper registers
    constexpr uint32_t kAvx512 = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F DQ BW VL
    return saves(kZmm) && has_all(cpuid(7, 0).ebx, kAvx512);
}

AS_GRANTS(avx512bf16) { return has_all(cpuid(7, 1).eax, 1u << 5); }

// Linux grants the large tile registers to processes that ask.
bool asks_for_tiles() {
#if defined(__linux__)
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

AS_GRANTS(amx) {
    constexpr uint64_t kTiles = 0x60000;
    constexpr uint32_t kAmx = (1u << 22) | (1u << 24);  // BF16 TILE
    return saves(kTiles) && has_all(cpuid(7, 0).edx, kAmx) && asks_for_tiles();
}
#endif

// Levels come behind those that they extend.
uint32_t granted_levels() {
    static const uint32_t granted = [] {
        uint32_t found = 0;
#define AS_ASK(level)                                       \
    if ((kLevels[level##_level].extends == level##_level || \
         found >> kLevels[level##_level].extends & 1) &&    \
        grants_##level())                                   \
        found |= 1u << level##_level;
        AS_BUILT_LEVELS(AS_ASK)
#undef AS_ASK
        return found;
    }();
    return granted;
}

}  // namespace

bool holds(int isa, int other) {
    while (isa != other && kLevels[isa].extends != isa) isa = kLevels[isa].extends;
    return isa == other;
}

int usable_isa() {
    const int limit = isa_limit.load();
    const uint32_t granted = granted_levels();
    for (int isa = level_count - 1; isa > 0; --isa)
        if (granted >> isa & 1 && (limit == AS_ISA_ANY || holds(limit, isa))) return isa;
    return 0;
}

void set_isa_limit(int isa) { isa_limit.store(isa); }

}  // namespace autosparse
