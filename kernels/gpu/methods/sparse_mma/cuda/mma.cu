// 2:4 inside of tiles by mma.sp, from Ampere on: every warp copies, loads fragments and multiplies.
//
//     for item, forth and back                       steps go on over the ends of items:
//         for step of 64 columns                         copies of STAGES - 1 steps are on their way
//             for 32 columns, one selector
//                 for 8 pixels of the warp's PIXELS      four registers by ldmatrix
//                     for 16 outputs of its OUTPUTS      four registers as packed, mma.sp m16n8k32
#include <primitives.cuh>  // the machine, or an emulator of it

#include <activations.cuh>
#include <layer.cuh>

template <class V>
struct Mma {
    // A warp's part of the block: 64 outputs where there are so many, since each is read once per 8
    // pixels of a warp, and each pixel once per 64 outputs.
    static constexpr int OUTPUTS = V::BN < 64 ? V::BN : 64;
    static constexpr int ACROSS = V::BN / OUTPUTS;
    static constexpr int PIXELS = V::BM * ACROSS / V::WARPS;
    static constexpr int M = OUTPUTS / 16, N = PIXELS / 8;
    static_assert(V::WARPS % ACROSS == 0 && PIXELS % 8 == 0 && OUTPUTS % 32 == 0, "no part for a warp");

    using Out = Writer<V, 32, 1>;
    static constexpr u32 TABLE = V::STAGES * V::STAGE_BYTES;
    static constexpr u32 BUFFERS = TABLE + (V::SPATIAL ? V::BM * 8 : 0);
    static constexpr u32 SHARED_BYTES = BUFFERS + V::WARPS * Out::BYTES;

    // Copies, ahead of what is multiplied.
    struct Loader {
        const Args& args;
        Items<V> items;
        Gather<V, V::THREADS> gather;
        u32 base;
        int thread, step = 0, stage = 0;
        bool is_done = false;

        DEVICE Loader(const Args& args_, u32 base_, int thread_)
            : args(args_), items(args_), gather(args_, base_ + TABLE, thread_), base(base_), thread(thread_) {}

        DEVICE void next() {
            while (!is_done && step == items.part.steps) begin();
            if (!is_done) {
                const u32 to = base + stage * V::STAGE_BYTES;
                gather.issue(to, step + 1 == items.part.steps);
                copy_block(to + V::INPUT_BYTES);
                stage = stage + 1 == V::STAGES ? 0 : stage + 1;
                ++step;
            }
            copy_async_commit();
        }

    private:
        DEVICE void begin() {
            step = 0;
            is_done = !items.next();
            if (is_done || !items.part.steps) return;
            if constexpr (V::SPATIAL) block_sync();
            gather.begin(items.pixel, items.part.run);
            if constexpr (V::SPATIAL) block_sync();
        }

        DEVICE void copy_block(u32 to) {
            const u8* from = args.blocks + static_cast<long long>(items.part.block + step) * V::BLOCK_BYTES;
            constexpr int CHUNKS = V::BLOCK_BYTES / 16;
#pragma unroll
            for (int turn = 0; turn < (CHUNKS + V::THREADS - 1) / V::THREADS; ++turn) {
                const int chunk = thread + turn * V::THREADS;
                if (chunk < CHUNKS) copy_async(to + chunk * 16, from + chunk * 16, true);
            }
        }
    };

    template <int SELECTOR>
    static DEVICE void multiply(u32 inputs, u32 values, const u32 (&words)[M], float (&sums)[M][N][4], int lane) {
        u32 a[M][4];
#pragma unroll
        for (int m = 0; m < M; ++m) load_shared_x4(a[m], values + ((m * 2 + SELECTOR) * 32 + lane) * 16);
        const u32 from = inputs + lane % 8 * ROW_BYTES + (((SELECTOR * 4 + lane / 8) ^ (lane % 8)) << 4);
#pragma unroll
        for (int n = 0; n < N; ++n) {
            u32 b[4];
            load_matrices(b, from + n * 8 * ROW_BYTES);
#pragma unroll
            for (int m = 0; m < M; ++m)
                mma_sp<SELECTOR>(typename V::Type(), sums[m][n], a[m], b, words[m]);
        }
    }

    static DEVICE void run(const Args& args) {
        const u32 base = shared_base();
        const int thread = thread_index(), lane = thread % 32, warp = thread / 32;
        const int first_output = warp % ACROSS * OUTPUTS, first_pixel = warp / ACROSS * PIXELS;
        Loader loader(args, base, thread);
        for (int ahead = 0; ahead < V::STAGES - 1; ++ahead) loader.next();
        Items<V> items(args);
        int stage = 0;
        while (items.next()) {
            float sums[M][N][4] = {};
            for (int step = 0; step < items.part.steps; ++step) {
                copy_async_wait<V::STAGES - 2>();
                block_sync();  // and all are done with the stage that comes next
                loader.next();
                const u32 from = base + stage * V::STAGE_BYTES;
                const u32 inputs = from + first_pixel * ROW_BYTES;
                const u32 values = from + V::INPUT_BYTES + first_output * STEP;
                u32 words[M];
#pragma unroll
                for (int m = 0; m < M; ++m)
                    words[m] = load_shared(from + V::INPUT_BYTES + V::VALUE_BYTES +
                                           ((first_output / 16 + m) * 32 + lane) * 4);
                multiply<0>(inputs, values, words, sums, lane);
                multiply<1>(inputs, values, words, sums, lane);
                stage = stage + 1 == V::STAGES ? 0 : stage + 1;
            }
            write(args, items, base + BUFFERS + warp * Out::BYTES, lane, first_output, first_pixel, sums);
        }
    }

    static DEVICE void write(const Args& args, const Items<V>& items, u32 buffer, int lane, int first_output,
                             int first_pixel, const float (&sums)[M][N][4]) {
        unrolled<0, M / 2>([&](auto half) {
            constexpr int m = half.value * 2;
            const int output = items.part_index * V::BN + first_output + m * 16;
            const Out out(args, buffer, lane, items.part, output);
            unrolled<0, N>([&](auto column) {
                constexpr int n = column.value;
                out.stage(sums[m][n], 0, 0);
                out.stage(sums[m + 1][n], 16, 0);
                out.write(items.pixel + first_pixel + n * 8);
            });
        });
    }
};

#ifdef AS_VARIANT
using Chosen = Variant<AS_VARIANT>;

extern "C" __global__ void __launch_bounds__(Chosen::THREADS, Chosen::CTAS)
    sparse_layer(const __grid_constant__ Args args) {
    Mma<Chosen>::run(args);
}
#endif
