// Where kernel positions lie in flattened pixel space.
//
// With stride s, position k of an axis reads input coordinate y * s + r with r = k * dilation - padding.
// With r = phase + s * shift it reads pixel y + shift of the plane of every s-th pixel that starts at
// `phase`: a strided convolution is a stride-1 convolution over such phase planes, again with constant
// shifts.
#pragma once

#include <cstdint>
#include <vector>

#include "autosparse.h"
#include "executor/tensor.h"

namespace autosparse {

// One axis: phase and shift of every kernel position.
struct Axis {
    std::vector<int> phase, shift;
    int min_shift = 0, max_shift = 0;
};

Axis split_axis(int kernel, int stride, int dilation, int padding);

// The phase planes of one channel, made before its inputs are multiplied.
struct PhasePlanes {
    struct Plane {
        int phase_y, phase_x;
    };
    std::vector<Plane> planes;
    int first_row = 0, rows = 0;  // rows kept of every plane, first_row <= 0
    int pitch = 0;
    int min_shift_x = 0, max_shift_x = 0;
    ptrdiff_t front = 0;    // elements before pixel (0, 0) of a plane
    ptrdiff_t plane = 0;    // from one plane to the next
    ptrdiff_t channel = 0;  // from one channel to the next
    // Offset of every kernel position from pixel (0, 0) of the channel's first plane, and its parts: the
    // plane, and the shift within it.
    std::vector<int32_t> taps, tap_plane, tap_shift;
};

// Least row pitch at which the phase planes' rows do not run into each other.
int phase_pitch(const as_op &op, const Shape &input, const Shape &output);
PhasePlanes phase_planes(const as_op &op, const Shape &output, int pitch);

// Rows [first, last) of phase planes, with what is above the first row of all and below the last. Where the
// others may be written at the same time, `spare` has room for spare_floats().
struct PhaseBand {
    int first, last;
    float *spare;
};
ptrdiff_t spare_floats(const PhasePlanes &phases);

// Copies every stride_h-th row and stride_w-th column of a channel into its phase planes, as floats if
// `widens`.
void split_phases(const PhasePlanes &phases, const as_op &op, const Tensor &input, int out_width, int isa,
                  bool widens, int image, int channel, const PhaseBand &band, void *to);

// Rows [first, first + rows) of a channel's phase planes, as split_phases makes them, with zeros outside
// the image. Row `first` of plane p begins at `to + p * plane + front_of_rows(phases)`, where `plane` is at
// least plane_of_rows(phases, rows).
void split_phase_rows(const PhasePlanes &phases, const as_op &op, const Tensor &input, int out_width,
                      int isa, int image, int channel, int first, int rows, ptrdiff_t plane, float *to);
ptrdiff_t front_of_rows(const PhasePlanes &phases);
ptrdiff_t plane_of_rows(const PhasePlanes &phases, int rows);

// Columns of a phase plane that hold pixels; the rest is zero.
int phase_columns(int width, int phase, int stride, int max_shift, int out_width);

}  // namespace autosparse
