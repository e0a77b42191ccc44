// Where the kept inputs of a bf16 convolution lie while a task runs.
//
// A bf16 multiply-add takes two inputs at once, side by side in 32 bits, and which two inputs a group keeps
// is up to the pattern. So a task first copies its kept channels, two at a time, interleaved, into a panel:
//
//     for pair of kept channels, for plane read (one; with phases one per phase):
//         panel[pair][plane][x] = (first[start + x], second[start + x])      start <= x < start + length
//
// A kernel position stays a constant shift, so one panel serves all of them and all tiles of outputs, and
// the pattern stays exactly 1xN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace autosparse {

struct Panel {
    std::vector<ptrdiff_t> planes;  // offset of every plane that is read from a channel's first
    std::vector<int32_t> taps;      // where kernel positions lie, in pairs; matrix panels: kernel rows
    ptrdiff_t reach_before = 0;     // elements that the first pixel reads before itself
    ptrdiff_t length = 0;           // pairs read per plane, at most, whole runs of 32
    ptrdiff_t plane = 0, pair = 0;  // from one plane and one pair of channels to the next, in pairs
    int copies = 0;                 // matrix panels: of a kept pair, for one kernel row
    ptrdiff_t row_set = 0;          // from one set of kernel rows to the next
    ptrdiff_t words(int64_t pairs) const { return pairs * pair; }
};

// `tap_plane` and `tap_shift` locate every kernel position; `planes` are as in Panel. A task covers at most
// `span` elements from its first to behind its last pixel.
Panel lay_out_panel(std::vector<ptrdiff_t> planes, const std::vector<int32_t> &tap_plane,
                    const std::vector<int32_t> &tap_shift, ptrdiff_t span);

// The same for matrix tiles (conv/mx.h), whose rows should begin with a cache line: otherwise each of them
// crosses two, and loading a tile takes three times as long as multiplying two. So every pair is copied
// once per position of a kernel row, shifted by it, and kernel rows differ by whole cache lines:
//
//     for set of kernel rows that do, for position of the row, for pair of kept channels:
//         panel[set][position][pair][x] = (first[shift + x], second[shift + x])
//
// With pitches of whole cache lines all kernel rows of stride 1 are one set. The positions of a row are
// summed over together, so that few inputs, such as an image's three, fill tiles as well. `pairs`: the most
// of a row.
Panel lay_out_matrix_panel(const std::vector<ptrdiff_t> &planes, const std::vector<int32_t> &tap_plane,
                           const std::vector<int32_t> &tap_shift, int row_taps, int pairs, ptrdiff_t span);

}  // namespace autosparse
