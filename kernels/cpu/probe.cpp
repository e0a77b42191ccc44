// Machine limits, measured by running.
#include "cpu/probe.h"

#include <sched.h>

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

#define AS_DECLARE(level)                    \
    namespace level {                        \
    extern const ProbeKernels probe_kernels; \
    }
AS_LEVELS_WITH_probe_loops(AS_DECLARE)
#undef AS_DECLARE
#define AS_DECLARE(level)                            \
    namespace level {                                \
    double bf16_probe(int64_t rounds, float *sink);  \
    }
AS_LEVELS_WITH_probe_bf16(AS_DECLARE)
#undef AS_DECLARE

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Of the widest usable level, or the nearest that it extends and that has its own.
const ProbeKernels &probe_kernels() {
    for (int isa = usable_isa();; isa = kLevels[isa].extends) {
#define AS_FIND(level) \
    if (isa == level##_level) return level::probe_kernels;
        AS_LEVELS_WITH_probe_loops(AS_FIND)
#undef AS_FIND
    }
}

// The same; null where none computes bf16 by an instruction of its own.
Bf16Probe bf16_probe() {
    for (int isa = usable_isa(), last = -1; isa != last; last = isa, isa = kLevels[isa].extends) {
#define AS_FIND(level) \
    if (isa == level##_level) return level::bf16_probe;
        AS_LEVELS_WITH_probe_bf16(AS_FIND)
#undef AS_FIND
    }
    return nullptr;
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
        const CallerState caller(pool);
        std::vector<double> rates(static_cast<std::size_t>(threads));
        pool->run([&](int worker) { rates[static_cast<std::size_t>(worker)] = best_rate(seconds, slice); });
        for (double rate : rates) total += rate;
    }
    release_pools();
    return total * 1e-9;
}

// A cache line that workers hand on in turn. Nothing else lies near it: processors fetch lines in pairs.
struct alignas(128) Baton {
    std::atomic<uint64_t> turn{0};
    char unused[128 - sizeof(std::atomic<uint64_t>)];
};

constexpr uint64_t kNobody = ~uint64_t{0};  // the baton's value once nobody shall wait for it any more
constexpr int kLaps = 16;                   // per slice: some microseconds, shorter than most disturbances
constexpr int kYieldAfter = 1 << 14;        // looks at the baton, then others may run on this processor
constexpr int kFewestSlices = 9;
constexpr double kLongest_s = 0.02;

// Waits for a worker's turn; false if the game is over.
bool await_turn(const Baton &baton, uint64_t turn) {
    for (int looks = 1;; ++looks) {
        const uint64_t now = baton.turn.load(std::memory_order_acquire);
        if (now == turn) return true;
        if (now == kNobody) return false;
        if (looks % kYieldAfter == 0) sched_yield();
    }
}

// Median over slices of the nanoseconds that the baton takes from one worker to the next. The median,
// as a worker that loses its processor for a while spoils the slice that it happens in.
double handover_ns(int threads, int slices) {
    retain_pools();
    std::vector<double> taken;
    {
        PoolLease pool(threads, true);
        const CallerState caller(pool);
        Baton baton;
        const auto lead = [&] {
            const auto begin = Clock::now();
            uint64_t turn = 0;
            const auto lap = [&] {
                baton.turn.store(turn + 1, std::memory_order_release);
                turn += static_cast<uint64_t>(threads);
                await_turn(baton, turn);
            };
            lap();  // until all are there
            for (int slice = 0; slice < slices; ++slice) {
                if (slice >= kFewestSlices && seconds_since(begin) > kLongest_s) break;
                const auto start = Clock::now();
                for (int i = 0; i < kLaps; ++i) lap();
                taken.push_back(seconds_since(start) * 1e9 / (kLaps * threads));
            }
            baton.turn.store(kNobody, std::memory_order_release);
        };
        pool->run([&](int worker) {
            if (worker == 0) return lead();
            for (uint64_t turn = static_cast<uint64_t>(worker); await_turn(baton, turn);
                 turn += static_cast<uint64_t>(threads))
                baton.turn.store(turn + 1, std::memory_order_release);
        });
    }
    release_pools();
    const auto middle = taken.begin() + static_cast<std::ptrdiff_t>(taken.size() / 2);
    std::nth_element(taken.begin(), middle, taken.end());
    return *middle;
}

// Independent additions and exclusive ors, as many as a core can start: each waits for nothing but its own last.
// Returns their number. No vectors, so nothing that a compiler may do more of at once.
double integers(int64_t rounds, float *sink) {
    uint64_t a = 1, b = 2, c = 3, d = 4, e = 5, f = 6;
    const uint64_t step = static_cast<uint64_t>(rounds) | 1;
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            a += step, b ^= step, c += step, d ^= step, e += step, f ^= step;
            __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f));
        }
    }
    sink[2] = static_cast<float>(a + b + c + d + e + f);
    return 24.0 * static_cast<double>(rounds);
}

// The rate of the slowest of threads that all work at once, each at the median of its slices. It takes some
// hundred microseconds, so that what was timed just before or after met the same processors. A core that
// somebody else computes on as well, another guest of a hypervisor for one, shows here and nowhere else.
double slowest_rate(int threads, int slices, const std::function<void(int)> &prepare,
                    const std::function<double(int, float *)> &slice) {
    retain_pools();
    std::vector<double> rates(static_cast<std::size_t>(threads));
    {
        PoolLease pool(threads, true);
        const CallerState caller(pool);
        std::atomic<int> missing{threads};
        pool->run([&](int worker) {
            alignas(64) float sink[16] = {1.0f, 1e-30f};
            std::vector<double> taken(static_cast<std::size_t>(slices));
            prepare(worker);
            missing.fetch_sub(1, std::memory_order_acq_rel);
            for (int looks = 1; missing.load(std::memory_order_acquire) > 0; ++looks)
                if (looks % kYieldAfter == 0) sched_yield();
            for (double &rate : taken) {
                const auto start = Clock::now();
                const double work = slice(worker, sink);
                rate = work / seconds_since(start);
            }
            const auto middle = taken.begin() + slices / 2;
            std::nth_element(taken.begin(), middle, taken.end());
            rates[static_cast<std::size_t>(worker)] = *middle;
        });
    }
    release_pools();
    return *std::min_element(rates.begin(), rates.end());
}

constexpr int64_t kSliceRounds = 1 << 13;      // some ten microseconds of arithmetic
constexpr int64_t kSliceIntegers = 1 << 12;    // rounds, as much time of integer instructions
constexpr int64_t kSliceBytes = 1 << 20;       // as much time of reading
constexpr int64_t kGranule = 1024;             // the read loop's
constexpr int64_t kMostNear = int64_t{1} << 24;

double slowest_gflops(int threads, int slices) {
    return slowest_rate(
               threads, slices, [](int) {},
               [](int, float *sink) { return probe_kernels().multiply_add(kSliceRounds, sink); }) *
           1e-9;
}

double slowest_integers(int threads, int slices) {
    return slowest_rate(
        threads, slices, [](int) {},
        [](int, float *sink) { return integers(kSliceIntegers, sink); });
}

double slowest_read(int threads, int slices, int64_t bytes) {
    const std::size_t floats = static_cast<std::size_t>(bytes / kGranule) * 256;
    const std::size_t passes = static_cast<std::size_t>((kSliceBytes + bytes - 1) / bytes);
    Buffer buffer(static_cast<std::size_t>(threads) * floats * sizeof(float));
    float *all = reinterpret_cast<float *>(buffer.data());
    return slowest_rate(
        threads, slices,
        [=](int worker) { std::fill_n(all + static_cast<std::size_t>(worker) * floats, floats, 1.0f); },
        [=](int worker, float *sink) {
            const float *data = all + static_cast<std::size_t>(worker) * floats;
            for (std::size_t pass = 0; pass < passes; ++pass) {
                probe_kernels().read(data, floats, sink);
                __asm__ volatile("" : : "r"(data) : "memory");
            }
            return static_cast<double>(passes * floats * sizeof(float));
        });
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
    const Bf16Probe probe = bf16_probe();
    if (!probe) return AS_UNSUPPORTED;
    return gflops(threads, seconds, [probe](float *sink) { return probe(kRounds, sink); });
} catch (...) {
    return AS_INTERNAL;
}

AS_EXPORT double as_probe_slowest_read_bytes_per_s(int32_t threads, int32_t slices, int64_t bytes) try {
    const bool has_room = bytes >= kGranule && bytes <= kMostNear;
    if (threads < 1 || threads > 1024 || slices < 1 || slices > 1000000 || !has_room) return AS_BAD_ARGUMENT;
    return slowest_read(threads, slices, bytes);
} catch (...) {
    return AS_INTERNAL;
}

AS_EXPORT double as_probe_slowest_integers_per_s(int32_t threads, int32_t slices) try {
    if (threads < 1 || threads > 1024 || slices < 1 || slices > 1000000) return AS_BAD_ARGUMENT;
    return slowest_integers(threads, slices);
} catch (...) {
    return AS_INTERNAL;
}

AS_EXPORT double as_probe_slowest_gflops(int32_t threads, int32_t slices) try {
    if (threads < 1 || threads > 1024 || slices < 1 || slices > 1000000) return AS_BAD_ARGUMENT;
    return slowest_gflops(threads, slices);
} catch (...) {
    return AS_INTERNAL;
}

AS_EXPORT double as_probe_handover_ns(int32_t threads, int32_t slices) try {
    if (threads < 2 || threads > 1024 || slices < kFewestSlices || slices > 1000000) return AS_BAD_ARGUMENT;
    return handover_ns(threads, slices);
} catch (...) {
    return AS_INTERNAL;
}

AS_EXPORT double as_probe_read_bytes_per_s(int64_t bytes, double seconds) try {
    if (bytes < kGranule || bytes > (int64_t{1} << 33) || !is_valid(1, seconds)) return AS_BAD_ARGUMENT;
    const std::size_t floats = static_cast<std::size_t>(bytes / kGranule) * 256;
    Buffer buffer(floats * sizeof(float));
    float *data = reinterpret_cast<float *>(buffer.data());
    std::fill_n(data, floats, 1.0f);
    const std::size_t passes = std::max<std::size_t>(1, (std::size_t{1} << 20) / floats);
    const PoolLease pool(1, true);
    const CallerState caller(pool);
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
