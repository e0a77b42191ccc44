#include "executor/tensor.h"

#include <algorithm>
#include <cstring>

#include "executor/memory.h"

namespace autosparse {

void prefetch_rows(const Tensor &tensor, int image, int channel, int first, int last) {
    const auto *plane = static_cast<const char *>(tensor.origin(image, channel));
    const ptrdiff_t row = tensor.pitch * bytes_of(tensor.dtype);
    const char *end = plane + std::min(last, tensor.shape.height) * row;
    for (const char *line = plane + std::max(first, 0) * row; line < end; line += kCacheLine)
        __builtin_prefetch(line);
}

void zero_elements(const Tensor &tensor, void *origin, ptrdiff_t begin, ptrdiff_t count) {
    if (count > 0)
        std::memset(offset(origin, tensor.dtype, begin), 0,
                    static_cast<std::size_t>(count * bytes_of(tensor.dtype)));
}

void zero_front(const Tensor &tensor, void *origin) {
    zero_elements(tensor, origin, -tensor.front, tensor.front);
}

void zero_tail(const Tensor &tensor, void *origin, ptrdiff_t end) {
    zero_elements(tensor, origin, end, tensor.plane - tensor.front - end);
}

void zero_padding_of_rows(const Tensor &tensor, void *origin, int first, int last) {
    if (first == 0) zero_front(tensor, origin);
    const ptrdiff_t gap = tensor.pitch - tensor.shape.width;
    for (int y = first; y < std::min(last, tensor.shape.height - 1); ++y)
        zero_elements(tensor, origin, static_cast<ptrdiff_t>(y) * tensor.pitch + tensor.shape.width, gap);
    if (last == tensor.shape.height) zero_tail(tensor, origin, tensor.span());
}

void zero_padding(const Tensor &tensor, void *origin) {
    zero_padding_of_rows(tensor, origin, 0, tensor.shape.height);
}

}  // namespace autosparse
