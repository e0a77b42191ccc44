// How a tensor lies in the arena.
//
// Planar: one plane per (image, channel). A plane is a run of rows of `pitch` elements; the elements behind
// the `width` pixels of a row are zero and serve as the right padding of that row and as the left padding
// of the next, so that a kernel position of a stride-1 convolution is a constant shift in flattened pixel
// space.
//
//     plane:  | front: zeros | row 0: w pixels, zeros | row 1 ... | zeros |
//                            ^ origin, 64-byte aligned
//
// Every operator writes whole planes, padding included: the arena is reused and never cleared.
#pragma once

#include <cstddef>
#include <cstdint>

namespace autosparse {

struct Shape {
    int32_t batch = 0, channels = 0, height = 0, width = 0;
    bool operator==(const Shape &o) const {
        return batch == o.batch && channels == o.channels && height == o.height && width == o.width;
    }
};

// Zeros that a consumer reads around the image.
struct Padding {
    int32_t top = 0, left = 0, bottom = 0, right = 0;
};

struct Tensor {
    Shape shape;
    Padding padding;            // the most that any consumer reads
    int32_t min_pitch = 0;      // asked for by a producer
    int32_t pitch_parent = -1;  // tensors of one class share their pitch (union-find)
    int32_t first_op = 0;       // operator that writes it; -1 for inputs
    int32_t last_op = 0;        // last operator that reads it
    bool is_written = false, is_input = false, is_output = false;

    // Settled by Layout:
    int32_t pitch = 0;
    ptrdiff_t front = 0;  // elements before the origin, a multiple of 16
    ptrdiff_t plane = 0;  // from one channel to the next, an odd number of cache lines
    ptrdiff_t image = 0;  // from one image to the next
    float *data = nullptr;
    const int32_t *valid =
        nullptr;  // per flattened pixel, rounded up to 16: all ones inside the image, else 0

    float *origin(int n, int c) const { return data + n * image + c * plane + front; }
    // Flattened pixels from the origin to the last pixel of the image.
    ptrdiff_t span() const { return static_cast<ptrdiff_t>(shape.height - 1) * pitch + shape.width; }
    ptrdiff_t rounded_span() const { return (span() + 15) / 16 * 16; }
    ptrdiff_t size() const { return shape.batch * image; }
};

// Zeroes a plane's elements before the origin, and those from `end` on.
void zero_front(const Tensor &tensor, float *origin);
void zero_tail(const Tensor &tensor, float *origin, ptrdiff_t end);
// Zeroes everything but the pixels of the image.
void zero_padding(const Tensor &tensor, float *origin);

}  // namespace autosparse
