// What libraries leave to be done: out = activation(product + bias + residual), in one pass.
//
//     for 8 outputs of a pixel, or for one               [pixels][channels]
//         product[pixel][columns[channel]], or zero without a column
#include <primitives.cuh>  // the machine, or an emulator of it

#include <activations.cuh>

struct FinishArgs {
    const u16* product;   // [pixels][pitch]; may be `out`
    const u16* residual;  // [pixels][channels], or null
    u16* out;             // [pixels][channels]
    const float* bias;    // [channels]
    const int* columns;   // [channels]: where each is in `product`, -1 for nowhere; or null
    int pixels, channels, pitch;
};

// Type; outputs per thread: 8 where 8 divides the channels, or 1; whether columns are named; residual.
template <class T, int WIDTH, bool IS_MAPPED, bool RESIDUAL, int ACTIVATION>
struct Finish {
    static constexpr int THREADS = 256;
    static constexpr u32 SHARED_BYTES = 16;

    static DEVICE void run(const FinishArgs& args) {
        const int per_pixel = args.channels / WIDTH, count = args.pixels * per_pixel;
        for (int at = block_index() * THREADS + thread_index(); at < count; at += grid_size() * THREADS) {
            const int pixel = at / per_pixel, channel = (at - pixel * per_pixel) * WIDTH;
            const long long to = static_cast<long long>(pixel) * args.channels + channel;
            u16 values[8], added[8];
            load(args, static_cast<long long>(pixel) * args.pitch, channel, values);
            if constexpr (RESIDUAL) copy(args.residual + to, added);
            u32 pairs[4];
#pragma unroll
            for (int low = 0; low < WIDTH; low += 2) {
                const float first = finished(args, values[low], added[low], channel + low);
                const float second = WIDTH == 1 ? 0.0f : finished(args, values[low + 1], added[low + 1], channel + low + 1);
                pairs[low / 2] = T::pair(first, second);
            }
            if constexpr (WIDTH == 8) {
                *reinterpret_cast<uint4*>(args.out + to) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
            } else {
                args.out[to] = static_cast<u16>(pairs[0]);
            }
        }
    }

private:
    static DEVICE void copy(const u16* from, u16 (&values)[8]) {
        if constexpr (WIDTH == 8) {
            const uint4 all = *reinterpret_cast<const uint4*>(from);
            const u32 pairs[4] = {all.x, all.y, all.z, all.w};
#pragma unroll
            for (int at = 0; at < 8; ++at) values[at] = static_cast<u16>(pairs[at / 2] >> at % 2 * 16);
        } else {
            values[0] = from[0];
        }
    }

    static DEVICE void load(const FinishArgs& args, long long row, int channel, u16 (&values)[8]) {
        if constexpr (IS_MAPPED) {
#pragma unroll
            for (int at = 0; at < WIDTH; ++at) {
                const int column = args.columns[channel + at];
                values[at] = column < 0 ? 0 : args.product[row + column];
            }
        } else {
            copy(args.product + row + channel, values);
        }
    }

    static DEVICE float finished(const FinishArgs& args, u16 value, u16 added, int channel) {
        float sum = T::widened(value) + args.bias[channel];
        if constexpr (RESIDUAL) sum += T::widened(added);
        return activated<ACTIVATION>(sum);
    }
};

#ifdef AS_VARIANT
using Chosen = Finish<AS_VARIANT>;

extern "C" __global__ void __launch_bounds__(Chosen::THREADS)
    finish(const __grid_constant__ FinishArgs args) {
    Chosen::run(args);
}
#endif
