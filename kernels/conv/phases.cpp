#include "conv/phases.h"

#include <algorithm>
#include <cstring>

#include "operators/planes.h"

namespace autosparse {

Axis split_axis(int kernel, int stride, int dilation, int padding) {
    Axis axis;
    for (int k = 0; k < kernel; ++k) {
        const int reach = k * dilation - padding;
        const int shift = reach >= 0 ? reach / stride : -((-reach + stride - 1) / stride);
        axis.shift.push_back(shift);
        axis.phase.push_back(reach - shift * stride);
    }
    axis.min_shift = std::min(0, *std::min_element(axis.shift.begin(), axis.shift.end()));
    axis.max_shift = std::max(0, *std::max_element(axis.shift.begin(), axis.shift.end()));
    return axis;
}

int phase_columns(int width, int phase, int stride, int max_shift, int out_width) {
    const int have = width > phase ? (width - phase + stride - 1) / stride : 0;
    return std::min(have, out_width + max_shift);
}

int phase_pitch(const as_op &op, const Shape &input, const Shape &output) {
    const Axis x = split_axis(op.kernel_w, op.stride_w, op.dilation_w, op.pad_left);
    int columns = 0;
    for (int phase : x.phase)
        columns =
            std::max(columns, phase_columns(input.width, phase, op.stride_w, x.max_shift, output.width));
    return std::max(columns - x.min_shift, output.width + x.max_shift);
}

PhasePlanes phase_planes(const as_op &op, const Shape &output, int pitch) {
    const Axis y = split_axis(op.kernel_h, op.stride_h, op.dilation_h, op.pad_top);
    const Axis x = split_axis(op.kernel_w, op.stride_w, op.dilation_w, op.pad_left);
    PhasePlanes out;
    out.pitch = pitch;
    out.min_shift_x = x.min_shift;
    out.max_shift_x = x.max_shift;
    out.first_row = y.min_shift;
    out.rows = output.height + y.max_shift - y.min_shift;
    // Whole cache lines of either type.
    out.front = (static_cast<ptrdiff_t>(-y.min_shift) * pitch - x.min_shift + 31) / 32 * 32;
    // One row more: the last row's windows read to its right, and whole vectors are loaded.
    const ptrdiff_t behind = static_cast<ptrdiff_t>(output.height + y.max_shift + 1) * pitch + 16;
    out.plane = (((out.front + behind + 31) / 32) | 1) * 32;
    for (int ky = 0; ky < op.kernel_h; ++ky)
        for (int kx = 0; kx < op.kernel_w; ++kx) {
            const PhasePlanes::Plane want{y.phase[static_cast<std::size_t>(ky)],
                                          x.phase[static_cast<std::size_t>(kx)]};
            auto at = std::find_if(out.planes.begin(), out.planes.end(), [&](const PhasePlanes::Plane &p) {
                return p.phase_y == want.phase_y && p.phase_x == want.phase_x;
            });
            if (at == out.planes.end()) at = out.planes.insert(out.planes.end(), want);
            const ptrdiff_t shift = static_cast<ptrdiff_t>(y.shift[static_cast<std::size_t>(ky)]) * pitch +
                                    x.shift[static_cast<std::size_t>(kx)];
            out.tap_plane.push_back(static_cast<int32_t>(at - out.planes.begin()));
            out.tap_shift.push_back(static_cast<int32_t>(shift));
            out.taps.push_back(static_cast<int32_t>(out.tap_plane.back() * out.plane + shift));
        }
    out.channel = static_cast<ptrdiff_t>(out.planes.size()) * out.plane;
    return out;
}

namespace {

// Elements of the widest vector.
constexpr int kMostLanes = 16;

// Rows of a phase plane that hold pixels.
int phase_rows(const PhasePlanes &phases, const PhasePlanes::Plane &p, int height, int stride) {
    const int below = height - p.phase_y;
    return std::min(below > 0 ? (below + stride - 1) / stride : 0, phases.first_row + phases.rows);
}

}  // namespace

// As many rows as the vector written beyond a row reaches into, and that vector.
ptrdiff_t spare_floats(const PhasePlanes &phases) { return phases.pitch + 2 * kMostLanes; }

void split_phases(const PhasePlanes &phases, const as_op &op, const Tensor &input, int out_width, int isa,
                  bool widens, int image, int channel, const PhaseBand &band, void *to) {
    const PlaneKernels &planes = plane_kernels(isa, input.dtype);
    const int dtype = widens ? static_cast<int>(AS_F32) : input.dtype;
    const bool is_last = band.last >= phases.rows;
    for (const PhasePlanes::Plane &p : phases.planes) {
        const int have = phase_rows(phases, p, input.shape.height, op.stride_h);
        const int first = std::min(band.first, have), last = is_last ? have : std::min(band.last, have);
        const int columns =
            phase_columns(input.shape.width, p.phase_x, op.stride_w, phases.max_shift_x, out_width);
        const ptrdiff_t step = static_cast<ptrdiff_t>(input.pitch) * op.stride_h;
        const auto at = [&](int row) {
            return offset(to, dtype, phases.front + static_cast<ptrdiff_t>(row) * phases.pitch);
        };
        const auto zero = [&](void *begin, void *end) {
            const ptrdiff_t bytes = static_cast<char *>(end) - static_cast<char *>(begin);
            std::memset(begin, 0, static_cast<std::size_t>(bytes));
        };
        const auto split = [&](int row, int rows, void *out) {
            const ptrdiff_t top = static_cast<ptrdiff_t>(p.phase_y) * input.pitch + row * step;
            const void *from = offset(input.origin(image, channel), input.dtype, top + p.phase_x);
            if (widens)
                planes.split_rows_wide(from, step, static_cast<float *>(out), phases.pitch, rows, columns,
                                       op.stride_w);
            else
                planes.split_rows(from, step, out, phases.pitch, rows, columns, op.stride_w);
        };
        // What is written beyond the last row would meet another band's first.
        const int apart = is_last ? 0 : std::min(last - first, (kMostLanes - 1) / phases.pitch + 1);
        split(first, last - first - apart, at(first));
        if (apart) {
            split(last - apart, apart, band.spare);
            std::memcpy(at(last - apart), band.spare,
                        static_cast<std::size_t>(apart * phases.pitch * bytes_of(dtype)));
        }
        void *next = offset(to, dtype, phases.plane);
        if (band.first == 0) zero(to, at(0));
        zero(at(std::max(last, band.first)), is_last ? next : at(band.last));
        to = next;
    }
}

ptrdiff_t front_of_rows(const PhasePlanes &phases) { return (-phases.min_shift_x + 15) / 16 * 16; }

// Whole vectors are written behind the last row.
ptrdiff_t plane_of_rows(const PhasePlanes &phases, int rows) {
    return front_of_rows(phases) + (static_cast<ptrdiff_t>(rows) * phases.pitch + 31) / 16 * 16;
}

void split_phase_rows(const PhasePlanes &phases, const as_op &op, const Tensor &input, int out_width,
                      int isa, int image, int channel, int first, int rows, ptrdiff_t plane, float *to) {
    const ptrdiff_t front = front_of_rows(phases), written = plane_of_rows(phases, rows);
    for (const PhasePlanes::Plane &p : phases.planes) {
        const int have = phase_rows(phases, p, input.shape.height, op.stride_h);
        const int columns =
            phase_columns(input.shape.width, p.phase_x, op.stride_w, phases.max_shift_x, out_width);
        const int begin = std::min(std::max(first, 0), first + rows);
        const int end = std::max(begin, std::min(first + rows, have));
        const ptrdiff_t step = static_cast<ptrdiff_t>(input.pitch) * op.stride_h;
        const void *from =
            offset(input.origin(image, channel), input.dtype,
                   p.phase_y * static_cast<ptrdiff_t>(input.pitch) + p.phase_x + begin * step);
        float *top = to + front + static_cast<ptrdiff_t>(begin - first) * phases.pitch;
        float *below = to + front + static_cast<ptrdiff_t>(end - first) * phases.pitch;
        std::fill(to, top, 0.0f);
        if (end > begin)
            plane_kernels(isa, input.dtype)
                .split_rows(from, step, top, phases.pitch, end - begin, columns, op.stride_w);
        std::fill(below, to + written, 0.0f);
        to += plane;
    }
}

}  // namespace autosparse
