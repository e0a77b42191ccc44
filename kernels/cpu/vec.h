// Vectors of float for the instruction set that this file is compiled for: AS_VECTORS is their header. The
// same kernels are compiled once per instruction set; everything here lies in a namespace of that set's
// own, AS_ISA_NS, so that no inline function compiled with wider instructions can be picked by the linker
// for a narrower CPU.
//
// Every header gives: Vec, kLanes, kRegisters (architectural vector registers), load/store (unaligned),
// load_some/store_some (first `count` lanes; the rest reads as 0 and is not written), load_every_second,
// first_lanes_of (the rest zero), broadcast, fma (a*b+c), max/min (returning the second argument when
// either is NaN), max_or_nan (NaN when either is), and_mask, sum, transpose (kLanes x kLanes, in place),
// zip and unzip (of two vectors; by_four: of four), shift_in. Loads and stores take float or Bf16 in
// memory; a store to Bf16 rounds to nearest even.
//
// dot_pairs takes vectors whose 32-bit lanes are pairs of bf16 (first of the pair in the low half): acc +
// first products + second products in float. interleave makes such pairs from two runs of bf16.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu/bf16.h"

#include AS_VECTORS

namespace autosparse::AS_ISA_NS {

#ifndef AS_ZIPS_BY_FOUR
// unzip and zip with four vectors: d[c][t] = x[4 t + c].
AS_INLINE void unzip_by_four(const Vec (&x)[4], Vec (&d)[4]) {
    Vec even[2], odd[2];
    unzip(x[0], x[1], even[0], odd[0]);
    unzip(x[2], x[3], even[1], odd[1]);
    unzip(even[0], even[1], d[0], d[2]);
    unzip(odd[0], odd[1], d[1], d[3]);
}
AS_INLINE void zip_by_four(const Vec (&d)[4], Vec (&x)[4]) {
    Vec even[2], odd[2];
    zip(d[0], d[2], even[0], even[1]);
    zip(d[1], d[3], odd[0], odd[1]);
    zip(even[0], odd[0], x[0], x[1]);
    zip(even[1], odd[1], x[2], x[3]);
}
#endif

// Weights are read once per inference, in order, from beyond the second-level cache: asks that cache for
// `count` floats some way ahead. Measured on ResNet-18 (75 % sparse, Zen 5): 16 KB ahead brings the
// 512-channel layers from 365 to 292 us, as fast as with warm weights; 4 KB and the first-level cache a
// little less. Addresses beyond the buffer are harmless.
AS_INLINE void prefetch_weights(const float *weights, int count) {
    constexpr int kAhead = 4096, kSecondLevel = 2;
    for (int i = 0; i < count; i += 16) __builtin_prefetch(weights + kAhead + i, 0, kSecondLevel);
}

// Asks for the lines of [begin, end), which are about to be written: one that another processor wrote last
// takes long to come, and stores wait in order.
template <class T>
AS_INLINE void prefetch_written(T *begin, T *end) {
    constexpr int kWillWrite = 1, kLine = 64 / sizeof(T);
    for (T *line = begin; line < end; line += kLine) __builtin_prefetch(line, kWillWrite);
    __builtin_prefetch(end - 1, kWillWrite);
}

// Planes that are written row by row up to `end`: while one row is written, a later one is asked for.
template <class T>
struct RowsAhead {
    RowsAhead(ptrdiff_t pitch, T *end)
        : pitch_(pitch), ahead_((kAhead + pitch - 1) / pitch * pitch), end_(end) {}
    void ask(T *row) const {
        if (end_ - row > ahead_) prefetch_written(row + ahead_, row + ahead_ + pitch_);
    }

private:
    static constexpr int kAhead = 512 / sizeof(T);
    const ptrdiff_t pitch_, ahead_;
    T *const end_;
};

}  // namespace autosparse::AS_ISA_NS
