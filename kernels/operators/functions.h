// Activation functions on vectors.
#pragma once

#include "cpu/vec.h"

namespace autosparse::AS_ISA_NS {

AS_INLINE Vec clamp(Vec x, float low, float high) { return min(broadcast(high), max(broadcast(low), x)); }

// e^x: x = n ln 2 + r with |r| <= ln(2) / 2; Taylor polynomial of degree 7 on r, error about 1 ulp.
AS_INLINE Vec exponential(Vec x) {
    x = clamp(x, -87.0f, 88.0f);
    const Vec n = round_nearest(x * broadcast(1.44269504f));
    Vec r = fma(n, broadcast(-0.693145752f), x);  // ln 2 in two parts, the first with few bits
    r = fma(n, broadcast(-1.42860677e-6f), r);
    Vec y = broadcast(1.0f / 5040);
    y = fma(y, r, broadcast(1.0f / 720));
    y = fma(y, r, broadcast(1.0f / 120));
    y = fma(y, r, broadcast(1.0f / 24));
    y = fma(y, r, broadcast(1.0f / 6));
    y = fma(y, r, broadcast(0.5f));
    y = fma(y, r, broadcast(1.0f));
    y = fma(y, r, broadcast(1.0f));
    return y * power_of_two(n);
}

AS_INLINE Vec relu(Vec x) { return max(zero(), x); }
AS_INLINE Vec relu6(Vec x) { return clamp(x, 0.0f, 6.0f); }
AS_INLINE Vec sigmoid(Vec x) { return broadcast(1.0f) / (broadcast(1.0f) + exponential(zero() - x)); }
AS_INLINE Vec silu(Vec x) { return x * sigmoid(x); }
AS_INLINE Vec hard_sigmoid(Vec x) { return clamp(x + broadcast(3.0f), 0.0f, 6.0f) * broadcast(1.0f / 6); }
AS_INLINE Vec hard_swish(Vec x) { return x * hard_sigmoid(x); }

// erf after Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
AS_INLINE Vec error_function(Vec x) {
    const Vec a = absolute(x);
    const Vec t = broadcast(1.0f) / fma(a, broadcast(0.3275911f), broadcast(1.0f));
    Vec y = broadcast(1.061405429f);
    y = fma(y, t, broadcast(-1.453152027f));
    y = fma(y, t, broadcast(1.421413741f));
    y = fma(y, t, broadcast(-0.284496736f));
    y = fma(y, t, broadcast(0.254829592f));
    return copy_sign(broadcast(1.0f) - y * t * exponential(zero() - a * a), x);
}

AS_INLINE Vec gelu(Vec x) {
    const Vec half = x * broadcast(0.5f);
    return fma(half, error_function(x * broadcast(0.70710678f)), half);
}

}  // namespace autosparse::AS_ISA_NS
