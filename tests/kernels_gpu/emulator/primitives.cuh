// The names of the kernels' primitives, each done as its section of NVIDIA's PTX ISA 9.1 says. Nothing
// here knows how the kernels pack or place anything.
#pragma once

#include <cmath>

#include "machine.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE inline

struct alignas(16) uint4 {
    u32 x, y, z, w;
};
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
inline float __uint_as_float(u32 bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline int thread_index() { return machine::fiber->thread; }
inline int block_index() { return machine::block->index; }
inline int grid_size() { return machine::block->grid; }

// ------------------------------------------------------------------------------------- types of data

struct Bf16 {
    static float widened(u16 bits) { return __uint_as_float(static_cast<u32>(bits) << 16); }
    static u16 rounded(float value) {
        u32 bits;
        std::memcpy(&bits, &value, 4);
        if (std::isnan(value)) return 0x7fff;
        return static_cast<u16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
    static u32 pair(float low, float high) { return rounded(low) | static_cast<u32>(rounded(high)) << 16; }
};

struct F16 {
    static float widened(u16 bits) {
        const int exponent = bits >> 10 & 31, fraction = bits & 1023;
        const float sign = bits >> 15 ? -1.0f : 1.0f;
        if (exponent == 31) return fraction ? NAN : sign * INFINITY;
        return sign * (exponent ? std::ldexp(1024.0f + fraction, exponent - 25) : std::ldexp(float(fraction), -24));
    }
    static u16 rounded(float value) {
        const u16 sign = std::signbit(value) ? 0x8000 : 0;
        if (std::isnan(value)) return 0x7fff;
        const float size = std::fabs(value);
        if (size >= 65520.0f) return sign | 0x7c00;
        int exponent;
        std::frexp(size, &exponent);
        // What the last bit of the fraction counts; the smallest are not normal.
        const int least = size < 0x1p-14f ? -24 : exponent - 11;
        const int steps = static_cast<int>(std::nearbyint(std::ldexp(size, -least)));
        return sign | static_cast<u16>(((least + 24) << 10) + steps);
    }
    static u32 pair(float low, float high) { return rounded(low) | static_cast<u32>(rounded(high)) << 16; }
};

// ------------------------------------------------------------------------------------- shared memory

inline u32 shared_base() { return machine::BASE; }
inline u32 load_shared(u32 address) { return machine::loaded<u32>(address); }
inline void load_shared_x2(int (&v)[2], u32 address) {
    machine::shared_at(address, 8, 8);
    for (int at = 0; at < 2; ++at) v[at] = machine::loaded<int>(address + 4 * at);
}
inline void load_shared_x4(u32 (&v)[4], u32 address) {
    machine::shared_at(address, 16, 16);
    for (int at = 0; at < 4; ++at) v[at] = machine::loaded<u32>(address + 4 * at);
}
inline void store_shared(u32 address, float value) { machine::store(address, value); }
inline void store_shared_x2(u32 address, int first, int second) {
    machine::shared_at(address, 8, 8);
    machine::store(address, first);
    machine::store(address + 4, second);
}

// 9.7.13.1
inline void block_sync() { machine::meet(machine::BLOCK_PLACE, machine::block->threads, "bar.sync 0", nullptr, {}); }
inline void named_sync(int name, int threads) {
    machine::check(name > 0 && name < 16 && threads % 32 == 0, "barriers are 1 to 15, of whole warps");
    machine::meet(machine::NAMED_PLACES + name, threads, "bar.sync", nullptr, {});
}
inline void warp_sync() { machine::meet(machine::warp_place(), 32, "bar.warp.sync", nullptr, {}); }

// 9.7.9.25.3
inline void copy_async(u32 to, const void* from, bool is_there) {
    machine::shared_at(to, 16, 16);
    machine::check(!is_there || reinterpret_cast<u64>(from) % 16 == 0, "16 bytes from an odd address");
    const machine::Copy copy = {to, from, 16, is_there ? 16u : 0u};
    if (machine::block->policy.early_copies) machine::perform(copy);
    machine::fiber->copies.push_back(copy);
}
inline void copy_async_commit() {
    machine::fiber->groups.push_back(std::move(machine::fiber->copies));
    machine::fiber->copies.clear();
}
template <int PENDING>
void copy_async_wait() {
    auto& groups = machine::fiber->groups;
    while (groups.size() > PENDING) {
        for (const machine::Copy& copy : groups.front()) {
            if (!machine::block->policy.early_copies) machine::perform(copy);
            machine::wrote(copy.to, copy.bytes);
        }
        groups.erase(groups.begin());
    }
}

// -------------------------------------------------------------------------- multiplying, warp by warp

// 9.7.14.5.15, figure 104: of each matrix, lane l gets the elements 2 * (l % 4) and the next of row l / 4.
inline void load_matrices(u32 (&v)[4], u32 address) {
    machine::shared_at(address, 16, 16);
    const std::pair<u32*, u32> mine = {v, address};
    machine::meet(machine::warp_place(), 32, "ldmatrix", &mine, [](const auto& given) {
        const auto lane_of = [&](int lane) { return static_cast<const std::pair<u32*, u32>*>(given[lane]); };
        for (int lane = 0; lane < 32; ++lane)
            for (int matrix = 0; matrix < 4; ++matrix) {
                const u32 row = lane_of(8 * matrix + lane / 4)->second;
                lane_of(lane)->first[matrix] = machine::loaded<u32>(row + lane % 4 * 4);
            }
    });
}

// 9.7.14.6.1 and 9.7.14.6.2.2: 2-bit indices of kept values, 16 rows by 32 columns.
struct Indices {
    int of[16][16];
    template <class Words>
    Indices(const Words& words, int selector) {
        for (int row = 0; row < 16; ++row)
            for (int kept = 0; kept < 16; ++kept) {
                const int chunk = kept / 2;
                const u32 word = words(4 * (row % 8) + 2 * selector + chunk / 4);
                of[row][kept] = word >> (16 * (row / 8) + 4 * (chunk % 4) + 2 * (kept % 2)) & 3;
            }
        for (int row = 0; row < 16; ++row)
            for (int kept = 0; kept < 16; kept += 2)
                machine::check(of[row][kept] < of[row][kept + 1], "indices of a chunk that do not rise");
    }
};

struct MmaOperands {
    float* d;
    const u32 *a, *b;
    u32 words;
};

template <class T>
float half_of(u32 pair, int which) {
    return T::widened(static_cast<u16>(pair >> 16 * which));
}

// 9.7.14.6.3, fragments as of 9.7.14.6.2.2 (A, B, metadata) and 9.7.14.5.8 (C, D).
template <class T>
void multiply_warp(const std::vector<const void*>& given, int selector) {
    const auto lane_of = [&](int lane) { return static_cast<const MmaOperands*>(given[lane]); };
    const Indices indices([&](int lane) { return lane_of(lane)->words; }, selector);
    float columns[8][32];
    for (int column = 0; column < 8; ++column)
        for (int k = 0; k < 32; ++k)
            columns[column][k] = half_of<T>(lane_of(4 * column + k % 8 / 2)->b[k / 8], k % 2);
    for (int row = 0; row < 16; ++row) {
        double sums[8] = {};
        for (int kept = 0; kept < 16; ++kept) {
            const u32 pair = lane_of(4 * (row % 8) + kept % 8 / 2)->a[kept / 8 * 2 + row / 8];
            const double value = half_of<T>(pair, kept % 2);
            const int k = kept / 2 * 4 + indices.of[row][kept];
            for (int column = 0; column < 8; ++column) sums[column] += value * columns[column][k];
        }
        for (int column = 0; column < 8; ++column) {
            float& d = lane_of(4 * (row % 8) + column / 2)->d[row / 8 * 2 + column % 2];
            d = static_cast<float>(d + sums[column]);
        }
    }
}

template <int SELECTOR, class T>
void mma_sp(T, float (&d)[4], const u32 (&a)[4], const u32 (&b)[4], u32 words) {
    static_assert(SELECTOR == 0 || SELECTOR == 1);
    const MmaOperands mine = {d, a, b, words};
    machine::meet(machine::warp_place(), 32, "mma.sp", &mine,
                  [](const auto& given) { multiply_warp<T>(given, SELECTOR); });
}

// ------------------------------------------------------------------------------ barriers with a count

// 9.7.13.15
inline void barrier_init(u32 barrier, int count) {
    machine::shared_at(barrier, 8, 8);
    machine::block->barriers[barrier] = {count, count, 0, 0};
}
inline void barrier_init_done() {}
inline void barrier_arrive(u32 barrier) {
    machine::Barrier& at = machine::barrier_at(barrier);
    --at.pending;
    machine::settle(at);
}
inline void barrier_expect(u32 barrier, u32 bytes) { machine::barrier_at(barrier).bytes += bytes; }
inline void barrier_wait(u32 barrier, u32 parity) {
    const machine::Barrier& at = machine::barrier_at(barrier);
    machine::check(parity < 2, "a parity is 0 or 1");
    while ((at.phase & 1) == parity) machine::wait_for_change(at.phase);
}

// 9.7.9.25.4.1
inline void copy_bulk(u32 to, const void* from, u32 bytes, u32 barrier) {
    machine::check(bytes % 16 == 0 && reinterpret_cast<u64>(from) % 16 == 0, "16 bytes at a time");
    machine::start_bulk({to, from, bytes, bytes}, barrier);
}
inline void copy_bulk_to_all(u32 to, const void* from, u32 bytes, u32 barrier, u16 blocks) {
    for (int rank = 0; rank < 16; ++rank)
        if (blocks >> rank & 1) machine::as_block(rank, [&] { copy_bulk(to, from, bytes, barrier); });
}

// 9.7.13.3 and 9.7.13.15
template <int PLACE>
void cluster_sync() {
    const int count = static_cast<int>(machine::cluster.size()) * machine::block->threads;
    machine::meet_at(machine::cluster_meeting, machine::cluster_meeting.arrived, count, "barrier.cluster",
                     nullptr, {});
}
inline void barrier_arrive_at(u32 barrier, int block) {
    machine::as_block(block, [&] { barrier_arrive(barrier); });
}

// 9.7.13.4: what this thread has written may be read by wgmma from now on.
inline void fence_async() {
    for (const machine::Copy& each : machine::fiber->written) machine::mark(each.to, each.bytes, 0);
    machine::fiber->written.clear();
}

// 9.7.19.5
template <int COUNT>
void take_registers() {
    static_assert(COUNT % 8 == 0 && COUNT >= 24 && COUNT <= 256);
}
template <int COUNT>
void give_registers() {
    static_assert(COUNT % 8 == 0 && COUNT >= 24 && COUNT <= 256);
}

// --------------------------------------------------------------------- multiplying, four warps at once

// 9.7.15.7
inline void multiply_fence() {
    machine::meet(machine::warps_place(), 128, "wgmma.fence", nullptr, {});
    machine::fiber->is_fenced = true;
}
inline void multiply_commit() {
    const int place = machine::warps_place();
    machine::meet(place, 128, "wgmma.commit_group", nullptr, [place](const auto&) {
        machine::block->committed[place].push_back(std::move(machine::block->products[place]));
        machine::block->products[place].clear();
    });
}
template <int PENDING>
void multiply_wait() {
    const int place = machine::warps_place();
    machine::meet(place, 128, "wgmma.wait_group", nullptr, [place](const auto&) {
        auto& groups = machine::block->committed[place];
        for (; groups.size() > PENDING; groups.erase(groups.begin()))
            for (const auto& product : groups.front()) product();
    });
    if (PENDING == 0) machine::fiber->is_fenced = false;
}
template <int COUNT>
void hold(float (&)[COUNT]) {}
