// Matrix tiles of bf16: eight registers of up to 16 rows of 64 bytes. Tile C (16 x 16 floats) += tile A
// (16 rows of `depth` pairs) times tile B (`depth` rows of 16 pairs), a pair being two bf16.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cpu/vec.h"

namespace autosparse::AS_ISA_NS {

// Which tiles hold what: the first are C, then A, then B.
struct TileRoles {
    int c, a, b;
};

#if defined(AS_MATRIX_TILES)

// AMX's tile registers. They belong to the thread until release().
class MatrixTiles {
public:
    MatrixTiles(TileRoles roles, int depth) {
        alignas(64) Config config{};
        config.palette = 1;
        for (int i = 0; i < roles.c + roles.a + roles.b; ++i) {
            const bool is_b = i >= roles.c + roles.a, is_a = !is_b && i >= roles.c;
            config.rows[i] = static_cast<uint8_t>(is_b ? depth : 16);
            config.row_bytes[i] = static_cast<uint16_t>(is_a ? 4 * depth : 64);
        }
        __asm__ volatile("ldtilecfg %0" : : "m"(config));
    }
    ~MatrixTiles() { __asm__ volatile("tilerelease"); }
    template <int I>
    void zero() {
        __asm__ volatile("tilezero %%tmm%c0" : : "i"(I));
    }
    template <int I>
    void load(const float *rows, ptrdiff_t row_bytes) {
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(rows), "r"(row_bytes), "i"(I) : "memory");
    }
    // The same past the first-level cache, which then keeps what is read again sooner.
    template <int I>
    void stream(const float *rows, ptrdiff_t row_bytes) {
        __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm%c2"
                         :
                         : "r"(rows), "r"(row_bytes), "i"(I)
                         : "memory");
    }
    template <int C, int A, int B>
    void multiply() {
        __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
    }
    // 16 rows of 16 floats.
    template <int I>
    void store(float *rows) {
        __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                         :
                         : "r"(rows), "r"(static_cast<ptrdiff_t>(64)), "i"(I)
                         : "memory");
    }

private:
    struct Config {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    };
};

#else

// The same in memory, so that kernels on matrix tiles can be checked on any machine.
class MatrixTiles {
public:
    MatrixTiles(TileRoles roles, int depth) : roles_(roles), depth_(depth) {}
    template <int I>
    void zero() {
        memset(tiles_[I], 0, sizeof tiles_[I]);
    }
    template <int I>
    void load(const float *rows, ptrdiff_t row_bytes) {
        const bool is_b = I >= roles_.c + roles_.a;
        for (int r = 0; r < (is_b ? depth_ : 16); ++r)
            memcpy(tiles_[I][r], reinterpret_cast<const char *>(rows) + r * row_bytes,
                   static_cast<size_t>(is_b ? 16 : depth_) * sizeof(float));
    }
    template <int I>
    void stream(const float *rows, ptrdiff_t row_bytes) {
        load<I>(rows, row_bytes);
    }
    template <int C, int A, int B>
    void multiply() {
        for (int m = 0; m < 16; ++m)
            for (int k = 0; k < depth_; ++k)
                for (int n = 0; n < 16; n += kLanes)
                    autosparse::AS_ISA_NS::store(
                        tiles_[C][m] + n, dot_pairs(broadcast(tiles_[A][m][k]),
                                                    ::autosparse::AS_ISA_NS::load(tiles_[B][k] + n),
                                                    ::autosparse::AS_ISA_NS::load(tiles_[C][m] + n)));
    }
    template <int I>
    void store(float *rows) {
        memcpy(rows, tiles_[I], sizeof tiles_[I]);
    }

private:
    TileRoles roles_;
    int depth_;
    float tiles_[8][16][16];
};

#endif

}  // namespace autosparse::AS_ISA_NS
