// Called only where the CPU has AMX and the operating system grants it.
#include "cpu/matrix.h"
#include "cpu/probe.h"

namespace autosparse {

double amx_dot(int64_t rounds, float *sink) {
    alignas(64) float ones[256];
    for (float &each : ones) each = 0.0f;
    AS_ISA_NS::MatrixTiles tiles({4, 2, 2}, 16);
    tiles.zero<0>();
    tiles.zero<1>();
    tiles.zero<2>();
    tiles.zero<3>();
    tiles.load<4>(ones, 64);
    tiles.load<5>(ones, 64);
    tiles.load<6>(ones, 64);
    tiles.load<7>(ones, 64);
    for (int64_t round = 0; round < rounds; ++round) {
        tiles.multiply<0, 4, 6>();
        tiles.multiply<1, 4, 7>();
        tiles.multiply<2, 5, 6>();
        tiles.multiply<3, 5, 7>();
    }
    tiles.store<0>(ones);
    sink[2] = ones[0];
    return 2.0 * 4 * 16 * 16 * 32 * static_cast<double>(rounds);
}

}  // namespace autosparse
