// bf16: the upper half of a float.
#pragma once

#include <stdint.h>
#include <string.h>

namespace autosparse {

struct Bf16 {
    uint16_t bits;
};

// Inlined everywhere: these are compiled once per instruction set.
__attribute__((always_inline)) static inline float to_float(Bf16 x) {
    const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}
__attribute__((always_inline)) static inline float to_float(float x) { return x; }

// To nearest, ties to even; NaN stays NaN.
__attribute__((always_inline)) static inline Bf16 to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
    return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

__attribute__((always_inline)) static inline void put(float *to, float x) { *to = x; }
__attribute__((always_inline)) static inline void put(Bf16 *to, float x) { *to = to_bf16(x); }

}  // namespace autosparse
