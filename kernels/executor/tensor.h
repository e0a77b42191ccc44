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

#include "autosparse.h"

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

inline ptrdiff_t bytes_of(int dtype) { return dtype == AS_BF16 ? 2 : 4; }
inline const char *name_of_dtype(int dtype) { return dtype == AS_BF16 ? "bf16" : "f32"; }

inline int64_t image_bytes(const Shape &shape, int dtype) {
    return static_cast<int64_t>(shape.channels) * shape.height * shape.width * bytes_of(dtype);
}

// Steps through elements of either type.
inline void *offset(void *data, int dtype, ptrdiff_t elements) {
    return static_cast<char *>(data) + elements * bytes_of(dtype);
}
inline const void *offset(const void *data, int dtype, ptrdiff_t elements) {
    return static_cast<const char *>(data) + elements * bytes_of(dtype);
}

// All extents and offsets are in elements.
struct Tensor {
    Shape shape;
    int32_t dtype = AS_F32;
    Padding padding;            // the most that any consumer reads
    int32_t min_pitch = 0;      // asked for by a producer
    int32_t pitch_parent = -1;  // tensors of one class share their pitch (union-find)
    int32_t first_op = 0;       // operator that writes it; -1 for inputs
    int32_t next_op = -1;       // first operator that reads it; -1 if none does
    int32_t last_op = 0;        // last operator that reads it
    bool is_in_bands =
        false;  // whether each worker wrote the same part of every plane, or planes of its own
    bool is_written = false, is_input = false, is_output = false;

    // Settled by Layout:
    int32_t pitch = 0;
    ptrdiff_t front = 0;  // before the origin, whole cache lines
    ptrdiff_t plane = 0;  // from one channel to the next, an odd number of cache lines
    ptrdiff_t image = 0;  // from one image to the next
    void *data = nullptr;
    const int32_t *valid =
        nullptr;  // per flattened pixel and a vector beyond: all ones inside the image, else 0

    void *origin(int n, int c) const { return offset(data, dtype, n * image + c * plane + front); }
    // Flattened pixels from the origin to the last pixel of the image.
    ptrdiff_t span() const { return static_cast<ptrdiff_t>(shape.height - 1) * pitch + shape.width; }
    ptrdiff_t rounded_span() const { return (span() + 15) / 16 * 16; }
    ptrdiff_t bytes() const { return shape.batch * image * bytes_of(dtype); }
};

// Asks for rows [first, last) of a plane, which another processor may have written.
void prefetch_rows(const Tensor &tensor, int image, int channel, int first, int last);

// Zeroes `count` elements from `begin` on, counted from the origin.
void zero_elements(const Tensor &tensor, void *origin, ptrdiff_t begin, ptrdiff_t count);
// Zeroes a plane's elements before the origin, and those from `end` on.
void zero_front(const Tensor &tensor, void *origin);
void zero_tail(const Tensor &tensor, void *origin, ptrdiff_t end);
// Zeroes everything but the pixels of the image.
void zero_padding(const Tensor &tensor, void *origin);
// The part of this that lies between, above the first and below the last of rows [first, last).
void zero_padding_of_rows(const Tensor &tensor, void *origin, int first, int last);

}  // namespace autosparse
