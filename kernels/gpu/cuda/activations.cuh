// The functions that come last, by the numbers of `autosparse.records.Activation`.
#pragma once

enum Activation { NONE, RELU, RELU6, SILU, HARD_SWISH, HARD_SIGMOID, SIGMOID, GELU };

template <int ACTIVATION>
DEVICE float activated(float x) {
    if constexpr (ACTIVATION == RELU) return fmaxf(x, 0.0f);
    if constexpr (ACTIVATION == RELU6) return fminf(fmaxf(x, 0.0f), 6.0f);
    if constexpr (ACTIVATION == SILU) return x / (1.0f + expf(-x));
    const float ramp = fminf(fmaxf(x + 3.0f, 0.0f), 6.0f) * (1.0f / 6.0f);
    if constexpr (ACTIVATION == HARD_SWISH) return x * ramp;
    if constexpr (ACTIVATION == HARD_SIGMOID) return ramp;
    if constexpr (ACTIVATION == SIGMOID) return 1.0f / (1.0f + expf(-x));
    if constexpr (ACTIVATION == GELU) return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    return x;
}
