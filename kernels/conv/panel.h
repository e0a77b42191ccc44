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
    std::vector<int32_t> taps;      // where kernel positions lie, in pairs
    ptrdiff_t reach_before = 0;     // elements that the first pixel reads before itself
    ptrdiff_t length = 0;           // pairs read per plane, at most, whole runs of 32
    ptrdiff_t plane = 0, pair = 0;  // from one plane and one pair of channels to the next, in pairs
    ptrdiff_t words(int pairs) const { return pairs * pair; }
};

// `tap_plane` and `tap_shift` locate every kernel position; `planes` are as in Panel. A task covers at most
// `span` elements from its first to behind its last pixel.
Panel lay_out_panel(std::vector<ptrdiff_t> planes, const std::vector<int32_t> &tap_plane,
                    const std::vector<int32_t> &tap_shift, ptrdiff_t span);

}  // namespace autosparse
