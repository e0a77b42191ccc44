// What both kernels share: the layer, whose turn it is, gathering of inputs, and all after the sums.
//
//     for part of a tile, longest first             [outputs]        BN
//         for block of pixels                       [pixels]         BM
//             for step of 64 columns                [columns]        runs of 8 gathered, 16 bytes each
//                 sums[BN][BM] += weights[BN][64] * inputs[BM][64]^T
//             outputs[BM][BN] = activation(sums^T + bias + residual)
#pragma once

constexpr int STEP = 64;         // columns of a step
constexpr int RUN = 8;           // columns that are gathered at once
constexpr int RUNS = STEP / RUN;
constexpr int ROW_BYTES = STEP * 2;
constexpr int NOWHERE = -32768;  // a row above every image

struct Part {
    int steps, block, run, wide;
};

struct Args {
    const u16* x;         // [batch, height, width, in]
    const u16* residual;  // [pixels, out], or null
    u16* out;             // [pixels, out]
    const u8* blocks;     // [blocks][BN * 72]: 64 bytes of values and 8 of words per output
    const int* runs;      // [runs][2]: elements from a pixel's first input on, rows << 16 | columns
    const Part* parts;    // [parts]
    const int* outputs;   // [parts][BN], -1 where there is none
    const float* bias;    // [parts][BN]
    int part_count, pixel_blocks, pixels;  // blocks of the pixels of a cluster
    int in_channels, out_channels;
    int height, width, out_height, out_width;
    int stride_y, stride_x, pad_y, pad_x;
};

// Type, outputs and pixels of a block, warps, stages, blocks per multiprocessor and per cluster; whether
// a pixel reads others than its own input; whether a residual is added; the function that comes last.
template <class T, int BN_, int BM_, int WARPS_, int STAGES_, int CTAS_, int CLUSTER_, bool SPATIAL_,
          bool RESIDUAL_, int ACTIVATION_>
struct Variant {
    using Type = T;
    static constexpr int BN = BN_, BM = BM_, WARPS = WARPS_, STAGES = STAGES_, CTAS = CTAS_;
    static constexpr int CLUSTER = CLUSTER_;
    static constexpr bool SPATIAL = SPATIAL_, RESIDUAL = RESIDUAL_;
    static constexpr int ACTIVATION = ACTIVATION_;
    static constexpr int THREADS = 32 * WARPS;
    static constexpr int INPUT_BYTES = BM * ROW_BYTES;
    static constexpr int VALUE_BYTES = BN * STEP;
    static constexpr int BLOCK_BYTES = VALUE_BYTES + BN * STEP / 8;
    static constexpr int STAGE_BYTES = (INPUT_BYTES + BLOCK_BYTES + 1023) / 1024 * 1024;
};

// ------------------------------------------------------------------------------------------- whose turn

// The items of one cluster, or of a block by itself: in every turn all take the next longest ones, forth
// and back, so that who had a long one gets a short one. Blocks of a cluster have pixels side by side.
template <class V>
struct Items {
    const Args& args;
    int turn = -1, part_index = 0, pixel = 0;
    Part part = {0, 0, 0, 0};

    DEVICE explicit Items(const Args& args_) : args(args_) {}

    DEVICE bool next() {
        ++turn;
        const int clusters = grid_size() / V::CLUSTER, cluster = block_index() / V::CLUSTER;
        const int item = turn * clusters + (turn % 2 ? clusters - 1 - cluster : cluster);
        if (item >= args.part_count * args.pixel_blocks) return false;
        part_index = item / args.pixel_blocks;
        pixel = (item % args.pixel_blocks * V::CLUSTER + block_index() % V::CLUSTER) * V::BM;
        part = args.parts[part_index];
        return true;
    }
};

// --------------------------------------------------------------------------------------------- gathering

// Brings the inputs of BM pixels for 64 columns into shared memory, rows of 128 bytes whose 16-byte
// chunks are swizzled. LOADERS threads share it: a thread has one run of columns, and every so many rows.
template <class V, int LOADERS>
struct Gather {
    static constexpr int ROWS_APART = LOADERS / RUNS;
    static constexpr int ROWS = V::BM / ROWS_APART;
    static_assert(ROWS_APART % 8 == 0 && V::BM % ROWS_APART == 0, "a thread's rows swizzle alike");

    const Args& args;
    u32 table;  // [BM][2]: of every pixel the element where its first input is, rows << 16 | columns
    int thread, pixel = 0;
    const int* runs = nullptr;
    int offset = 0, shift = 0;

    DEVICE Gather(const Args& args_, u32 table_, int thread_) : args(args_), table(table_), thread(thread_) {}

    // To be called while nobody reads the table; all meet before they issue.
    DEVICE void begin(int first_pixel, int first_run) {
        pixel = first_pixel;
        runs = args.runs + 2 * (first_run + thread % RUNS);
        look_up();
        if constexpr (V::SPATIAL) {
            for (int row = thread; row < V::BM; row += LOADERS) place(row);
        }
    }

    DEVICE void issue(u32 stage, bool is_last) {
        const int first = thread / RUNS;
        const u32 to = stage + first * ROW_BYTES + (((thread % RUNS) ^ (first % 8)) << 4);
        const int at = offset, by = shift;
        if (!is_last) look_up();  // the next step's, while this one's are on their way
#pragma unroll
        for (int turn = 0; turn < ROWS; ++turn) {
            bool is_there;
            int element;
            find(first + turn * ROWS_APART, at, by, element, is_there);
            copy_async(to + turn * ROWS_APART * ROW_BYTES, args.x + element, is_there);
        }
    }

private:
    DEVICE void look_up() {
        offset = runs[0];
        shift = runs[1];
        runs += 2 * RUNS;
    }

    DEVICE void find(int row, int at, int by, int& element, bool& is_there) const {
        if constexpr (V::SPATIAL) {
            int place[2];
            load_shared_x2(place, table + row * 8);
            const int y = (place[1] >> 16) + (by >> 16);
            const int x = static_cast<short>(place[1]) + (by & 0xffff);
            is_there = static_cast<u32>(y) < static_cast<u32>(args.height) &&
                       static_cast<u32>(x) < static_cast<u32>(args.width);
            element = place[0] + at;
        } else {
            is_there = pixel + row < args.pixels && by >= 0;
            element = (pixel + row) * args.in_channels + at;
        }
    }

    DEVICE void place(int row) {
        const int at = pixel + row;
        const int line = at / args.out_width, image = line / args.out_height;
        const int y = (line - image * args.out_height) * args.stride_y - args.pad_y;
        const int x = (at - line * args.out_width) * args.stride_x - args.pad_x;
        const int element = ((image * args.height + y) * args.width + x) * args.in_channels;
        const int above = at < args.pixels ? y : NOWHERE;
        store_shared_x2(table + row * 8, element, above << 16 | (x & 0xffff));
    }
};

// ----------------------------------------------------------------------------------------- after the sums

// Calls a function with constants from AT on: registers are told apart by constants alone, and compilers
// leave longer loops as they are.
template <int AT>
struct Constant {
    static constexpr int value = AT;
};
template <int AT, int END, class F>
DEVICE void unrolled(const F& function) {
    if constexpr (AT < END) {
        function(Constant<AT>());
        unrolled<AT + 1, END>(function);
    }
}

// Turns a warp's sums round: lanes hold pixels of one output, memory holds outputs of one pixel. 256
// sums at a time, OUTPUTS of them per pixel, PIECES times, go through shared memory of the warp's own.
template <class V, int OUTPUTS, int PIECES>
struct Writer {
    static constexpr int PIXELS = 256 / OUTPUTS;
    static constexpr int PITCH = OUTPUTS + 4;  // words; banks of a store and of a load all differ
    static constexpr int BYTES = PIECES * PIXELS * PITCH * 4;
    static constexpr int LANES_PER_PIXEL = OUTPUTS / 8;

    const Args& args;
    u32 buffer;
    int lane, wide;
    int output;         // wide: the first of this lane's eight; else the lane's own
    const float* bias;  // of that output

    DEVICE Writer(const Args& args_, u32 buffer_, int lane_, const Part& part, int first)
        : args(args_), buffer(buffer_), lane(lane_), wide(part.wide) {
        const int mine = first + (wide ? lane % LANES_PER_PIXEL * 8 : lane % OUTPUTS);
        output = args.outputs[mine];
        bias = args.bias + mine;
    }

    // The four sums that a lane has of 16 outputs by 8 pixels (9.7.14.5.8, C and D).
    DEVICE void stage(const float* sums, int first_output, int first_pixel) const {
        const int row = lane / 4, column = lane % 4 * 2;
#pragma unroll
        for (int at = 0; at < 4; ++at) {
            const int to = (first_pixel + column + at % 2) * PITCH + first_output + row + at / 2 * 8;
            store_shared(buffer + to * 4, sums[at]);
        }
    }

    DEVICE void write(int pixel) const {
        warp_sync();
#pragma unroll 1
        for (int piece = 0; piece < PIECES; ++piece) {
            const u32 from = buffer + piece * PIXELS * PITCH * 4;
            if (wide) {
                write_wide(pixel + piece * PIXELS, from);
            } else {
                write_each(pixel + piece * PIXELS, from);
            }
        }
        warp_sync();
    }

private:
    DEVICE void write_wide(int pixel, u32 from) const {
        const int row = lane / LANES_PER_PIXEL;
        if (output < 0 || pixel + row >= args.pixels) return;
        const long long to = static_cast<long long>(pixel + row) * args.out_channels + output;
        const uint4* biases = reinterpret_cast<const uint4*>(bias);
        uint4 residual = make_uint4(0, 0, 0, 0);
        if constexpr (V::RESIDUAL) residual = *reinterpret_cast<const uint4*>(args.residual + to);
        from += (row * PITCH + lane % LANES_PER_PIXEL * 8) * 4;
        u32 pairs[4];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint4 b = biases[half];
            u32 sums[4];
            load_shared_x4(sums, from + half * 16);
            const u32 first = half ? residual.z : residual.x, second = half ? residual.w : residual.y;
            pairs[2 * half] = pair(sums[0], sums[1], b.x, b.y, first);
            pairs[2 * half + 1] = pair(sums[2], sums[3], b.z, b.w, second);
        }
        *reinterpret_cast<uint4*>(args.out + to) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }

    static DEVICE u32 pair(u32 first, u32 second, u32 first_bias, u32 second_bias, u32 residual) {
        return V::Type::pair(
            finished(__uint_as_float(first), __uint_as_float(first_bias), residual),
            finished(__uint_as_float(second), __uint_as_float(second_bias), residual >> 16));
    }

    // Lanes side by side have outputs side by side, so that those in one sector of 32 bytes leave together.
    DEVICE void write_each(int pixel, u32 from) const {
        if (output < 0) return;
        const float own = *bias;
#pragma unroll 1
        for (int turn = 0; turn < 8; ++turn) {
            const int row = lane / OUTPUTS + turn * (32 / OUTPUTS);
            if (pixel + row >= args.pixels) return;
            const long long to = static_cast<long long>(pixel + row) * args.out_channels + output;
            const float sum = __uint_as_float(load_shared(from + (row * PITCH + lane % OUTPUTS) * 4));
            u32 added = 0;
            if constexpr (V::RESIDUAL) added = args.residual[to];
            args.out[to] = static_cast<u16>(V::Type::pair(finished(sum, own, added), 0.0f));
        }
    }

    static DEVICE float finished(float sum, float bias, u32 residual) {
        sum += bias;
        if constexpr (V::RESIDUAL) sum += V::Type::widened(static_cast<u16>(residual));
        return activated<V::ACTIVATION>(sum);
    }
};
