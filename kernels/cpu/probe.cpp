// Machine limits, measured by running.
#include "cpu/probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <vector>

#include "autosparse.h"
#include "cpu/isa.h"
#include "executor/memory.h"
#include "executor/pool.h"

namespace autosparse {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

const ProbeKernels &probe_kernels() {
#ifdef AS_HAS_X86_LEVELS
    if (usable_isa() >= AS_ISA_AVX512) return probe_kernels_avx512();
    if (usable_isa() == AS_ISA_AVX2) return probe_kernels_avx2();
#endif
    return probe_kernels_generic();
}

// Best rate of one thread over slices of the time; the best because anything else on the core only slows
// it.
double best_rate(double seconds, const std::function<double(float *)> &slice) {
    alignas(64) float sink[16] = {1.0f, 1e-30f};
    const auto begin = Clock::now();
    double best = 0;
    do {
        const auto start = Clock::now();
        const double work = slice(sink);
        best = std::max(best, work / seconds_since(start));
    } while (seconds_since(begin) < seconds);
    return best;
}

double gflops(int threads, double seconds, const std::function<double(float *)> &slice) {
    retain_pools();
    double total = 0;
    {
        PoolLease pool(threads, true);
        CallerState caller(true);
        std::vector<double> rates(static_cast<std::size_t>(threads));
        pool->run([&](int worker) { rates[static_cast<std::size_t>(worker)] = best_rate(seconds, slice); });
        for (double rate : rates) total += rate;
    }
    release_pools();
    return total * 1e-9;
}

constexpr int64_t kRounds = 1 << 18;

bool is_valid(int threads, double seconds) {
    return threads >= 1 && threads <= 1024 && seconds >= 0.01 && seconds <= 60;
}

}  // namespace
}  // namespace autosparse

using namespace autosparse;

#define AS_EXPORT __attribute__((visibility("default")))

extern "C" {

AS_EXPORT double as_probe_f32_gflops(int32_t threads, double seconds) try {
    if (!is_valid(threads, seconds)) return AS_BAD_ARGUMENT;
    return gflops(threads, seconds,
                  [](float *sink) { return probe_kernels().multiply_add(kRounds, sink); });
} catch (...) {
    return AS_INTERNAL;
}

AS_EXPORT double as_probe_bf16_gflops(int32_t threads, double seconds) try {
    if (!is_valid(threads, seconds)) return AS_BAD_ARGUMENT;
#ifdef AS_HAS_X86_LEVELS
    if (usable_isa() >= AS_ISA_AMX)
        return gflops(threads, seconds, [](float *sink) { return amx_dot(kRounds, sink); });
    if (has_bf16_dot())
        return gflops(threads, seconds, [](float *sink) { return bf16_dot(kRounds, sink); });
#endif
    return AS_UNSUPPORTED;
} catch (...) {
    return AS_INTERNAL;
}

AS_EXPORT double as_probe_read_bytes_per_s(int64_t bytes, double seconds) try {
    constexpr int64_t kGranule = 1024;
    if (bytes < kGranule || bytes > (int64_t{1} << 33) || !is_valid(1, seconds)) return AS_BAD_ARGUMENT;
    const std::size_t floats = static_cast<std::size_t>(bytes / kGranule) * 256;
    Buffer buffer(floats * sizeof(float));
    float *data = reinterpret_cast<float *>(buffer.data());
    std::fill_n(data, floats, 1.0f);
    const std::size_t passes = std::max<std::size_t>(1, (std::size_t{1} << 20) / floats);
    CallerState caller(true);
    return best_rate(seconds, [&](float *sink) {
        for (std::size_t pass = 0; pass < passes; ++pass) {
            probe_kernels().read(data, floats, sink);
            __asm__ volatile("" : : "r"(data) : "memory");
        }
        return static_cast<double>(passes * floats * sizeof(float));
    });
} catch (...) {
    return AS_INTERNAL;
}

}  // extern "C"
