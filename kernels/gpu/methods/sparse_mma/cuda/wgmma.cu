// 2:4 inside of tiles by wgmma.sp, for Hopper: four warps copy, twice four multiply.
//
//     copying                                        multiplying
//     for item, forth and back                       for item, forth and back
//         for step of 64 columns                         for step of 64 columns
//             wait until the stage is free                   wait until the stage is full
//             weights, words: one bulk copy                  for 32 columns, one selector
//             inputs: gathered 16 bytes at a time                for 64 of the outputs
//             announce the stage LAG steps before                    wgmma m64nNk32, N pixels
//                                                            free the stage of the step before
//                                                        bias, residual, activation, out
//
// The blocks of a cluster compute the same outputs of pixels side by side. Each fetches a share of the
// weights for all of them, and frees a stage for all who copy to it.
//
// Values lie in swizzled rows of 64 bytes, inputs in swizzled rows of 128: 9.7.15.5.1.2 of the manual.
#include <primitives.cuh>  // the machine, or an emulator of it

#include <multiply.cuh>  // multiply_sparse: written by the program that compiles this (build.py)

#include <activations.cuh>
#include <layer.cuh>

template <class V>
struct Wgmma {
    static constexpr int COPIERS = 128, MULTIPLIERS = 2;  // threads, and warpgroups
    static constexpr int ACROSS = V::BN >= 128 ? 2 : 1;   // warpgroups along outputs; else along pixels
    static constexpr int PIXELS = V::BM * ACROSS / MULTIPLIERS;
    static constexpr int M = V::BN / ACROSS / 64;
    static_assert(V::WARPS == 12 && V::BN % 64 == 0 && PIXELS % 32 == 0 && PIXELS <= 256, "no such block");

    // Steps between a copy and its announcement: as many as are on their way at once. A stage is free
    // one step after it was multiplied, so that two of them are never among these.
    static constexpr int LAG = V::STAGES > 3 ? V::STAGES - 3 : 1;
    static_assert(V::STAGES >= 3, "stages are copied to, full, and being multiplied");

    using Out = Writer<V, 16, 2>;
    static constexpr u32 TABLE = V::STAGES * V::STAGE_BYTES;
    static constexpr u32 BARRIERS = TABLE + (V::SPATIAL ? V::BM * 8 : 0);
    static constexpr u32 BUFFERS = BARRIERS + V::STAGES * 16;
    static constexpr u32 SHARED_BYTES = BUFFERS + MULTIPLIERS * 4 * Out::BYTES;

    // Registers per thread: what a block was given, shared out anew.
    static constexpr int GIVEN = 65536 / (V::THREADS * V::CTAS) / 8 * 8;
    static constexpr int COPYING = V::SPATIAL ? 56 : 40;
    static constexpr int MULTIPLYING = (3 * GIVEN - COPYING) / 2 / 8 * 8;

    // Where a warp is in the ring of stages.
    struct Ring {
        u32 base;
        int stage = 0;
        u32 parity = 0;

        DEVICE explicit Ring(u32 base_) : base(base_) {}
        DEVICE u32 at() const { return base + stage * V::STAGE_BYTES; }
        DEVICE u32 full() const { return base + BARRIERS + stage * 16; }
        DEVICE u32 free() const { return full() + 8; }
        DEVICE u32 free_before() const { return stage ? free() - 16 : free() + (V::STAGES - 1) * 16; }
        DEVICE void next() {
            if (++stage < V::STAGES) return;
            stage = 0;
            parity ^= 1;
        }
    };

    static DEVICE void run(const Args& args) {
        const u32 base = shared_base();
        const int thread = thread_index();
        if (thread == 0) {
            Ring ring(base);
            for (int at = 0; at < V::STAGES; ++at, ring.next()) {
                barrier_init(ring.full(), COPIERS / 32);
                barrier_init(ring.free(), V::CLUSTER * MULTIPLIERS * 4);
            }
            barrier_init_done();
        }
        if constexpr (V::CLUSTER > 1) {
            cluster_sync<0>();
        } else {
            block_sync();
        }
        // No block of a cluster ends while others copy to it, or arrive there.
        const int group = thread / 128;
        if (group == MULTIPLIERS) {
            give_registers<COPYING>();
            copy(args, base, thread % 128);
            if constexpr (V::CLUSTER > 1) cluster_sync<1>();
        } else {
            take_registers<MULTIPLYING>();
            multiply(args, base, thread % 128, group);
            if constexpr (V::CLUSTER > 1) cluster_sync<2>();
        }
    }

    // ------------------------------------------------------------------------------------------ copying

    static DEVICE void copy(const Args& args, u32 base, int thread) {
        Gather<V, COPIERS> gather(args, base + TABLE, thread);
        Items<V> items(args);
        Ring ring(base), announced(base);
        int behind = 0;  // steps that were copied and not announced
        while (items.next()) {
            if (!items.part.steps) continue;
            if constexpr (V::SPATIAL) named_sync(1, COPIERS);
            gather.begin(items.pixel, items.part.run);
            if constexpr (V::SPATIAL) named_sync(1, COPIERS);
            const u8* from = args.blocks + static_cast<long long>(items.part.block) * V::BLOCK_BYTES;
            for (int step = 0; step < items.part.steps; ++step, from += V::BLOCK_BYTES) {
                barrier_wait(ring.free(), ring.parity ^ 1);
                if (thread == 0) copy_block(ring, from);
                gather.issue(ring.at(), step + 1 == items.part.steps);
                copy_async_commit();
                ring.next();
                if (behind < LAG) {
                    ++behind;
                } else {
                    copy_async_wait<LAG>();
                    announce(announced, thread);
                }
            }
        }
        copy_async_wait<0>();
        for (; behind; --behind) announce(announced, thread);
    }

    static DEVICE void copy_block(const Ring& ring, const u8* from) {
        const u32 to = ring.at() + V::INPUT_BYTES;
        barrier_expect(ring.full(), V::BLOCK_BYTES);
        if constexpr (V::CLUSTER > 1) {
            constexpr u32 SHARE = V::BLOCK_BYTES / V::CLUSTER;
            static_assert(SHARE % 16 == 0, "16 bytes at a time");
            const u32 first = block_index() % V::CLUSTER * SHARE;
            copy_bulk_to_all(to + first, from + first, SHARE, ring.full(), (1 << V::CLUSTER) - 1);
        } else {
            copy_bulk(to, from, V::BLOCK_BYTES, ring.full());
        }
    }

    // Gathered inputs were written as by these threads; wgmma reads by another way.
    static DEVICE void announce(Ring& ring, int thread) {
        fence_async();
        warp_sync();
        if (thread % 32 == 0) barrier_arrive(ring.full());
        ring.next();
    }

    // -------------------------------------------------------------------------------------- multiplying

    // 9.7.15.5.1.2.2: rows of 8, so many bytes apart; mode 1 swizzles rows of 128 bytes, 2 rows of 64.
    static DEVICE u64 descriptor(u32 address, u32 eight_rows, u64 mode) {
        return (address & 0x3ffff) >> 4 | 1ull << 16 | static_cast<u64>(eight_rows >> 4) << 32 | mode << 62;
    }

    template <int SELECTOR>
    static DEVICE void issue(u32 inputs, u32 values, const u32 (&words)[M], float (&sums)[M][PIXELS / 2]) {
        const u64 b = descriptor(inputs + SELECTOR * 64, 8 * ROW_BYTES, 1);
#pragma unroll
        for (int m = 0; m < M; ++m) {
            const u64 a = descriptor(values + m * 64 * STEP + SELECTOR * 32, 8 * STEP, 2);
            multiply_sparse<typename V::Type, PIXELS, SELECTOR>(sums[m], a, b, words[m]);
        }
    }

    static DEVICE void multiply(const Args& args, u32 base, int thread, int group) {
        const int lane = thread % 32, warp = thread / 32;
        const int first_output = group % ACROSS * M * 64, first_pixel = group / ACROSS * PIXELS;
        const u32 buffer = base + BUFFERS + (group * 4 + warp) * Out::BYTES;
        Items<V> items(args);
        Ring ring(base);
        while (items.next()) {
            float sums[M][PIXELS / 2] = {};
            for (int step = 0; step < items.part.steps; ++step) {
                barrier_wait(ring.full(), ring.parity);
                const u32 inputs = ring.at() + first_pixel * ROW_BYTES;
                const u32 values = ring.at() + V::INPUT_BYTES + first_output * STEP;
                u32 words[M];
#pragma unroll
                for (int m = 0; m < M; ++m)
                    words[m] = load_shared(ring.at() + V::INPUT_BYTES + V::VALUE_BYTES +
                                           ((first_output / 16 + m * 4 + warp) * 32 + lane) * 4);
                multiply_fence();
                issue<0>(inputs, values, words, sums);
                issue<1>(inputs, values, words, sums);
                multiply_commit();
                multiply_wait<1>();
                if (step) release(ring.free_before(), lane);
                ring.next();
            }
            multiply_wait<0>();
            if (items.part.steps) release(ring.free_before(), lane);
            unrolled<0, M>([&](auto at) {
                constexpr int m = at.value;
                hold(sums[m]);
                const int output = items.part_index * V::BN + first_output + m * 64 + warp * 16;
                write(Out(args, buffer, lane, items.part, output), items.pixel + first_pixel, sums[m]);
            });
        }
    }

    static DEVICE void release(u32 barrier, int lane) {
        warp_sync();
        if constexpr (V::CLUSTER > 1) {
            if (lane < V::CLUSTER) barrier_arrive_at(barrier, lane);
        } else {
            if (lane == 0) barrier_arrive(barrier);
        }
    }

    static DEVICE void write(const Out& out, int pixel, const float (&sums)[PIXELS / 2]) {
        unrolled<0, PIXELS / 32>([&](auto at) {
            constexpr int first = at.value * 32;
#pragma unroll
            for (int column = 0; column < 32; column += 8)
                out.stage(&sums[(first + column) / 2], 0, column);
            out.write(pixel + first);
        });
    }
};

#ifdef AS_VARIANT
using Chosen = Variant<AS_VARIANT>;

extern "C" __global__ void __cluster_dims__(Chosen::CLUSTER)
    __launch_bounds__(Chosen::THREADS, Chosen::CTAS) sparse_layer(const __grid_constant__ Args args) {
    Wgmma<Chosen>::run(args);
}
#endif
