// Cache lines of the arena that move between processors, by what tasks are stated to read and write.
//
// Every worker is a processor with a cache of its own in which everything stays: a worker that reads or
// writes a line which another one wrote since it last had it fetches it, once. Writing takes the line from
// all others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "executor/tensor.h"

namespace autosparse {

class LineMoves {
public:
    LineMoves(const void *arena, std::size_t bytes, int workers);
    // Whose task states what follows.
    void set_worker(int worker) { worker_ = worker; }
    // Elements [begin, end) of a plane, counted from its origin.
    void read(const Tensor &tensor, int n, int c, ptrdiff_t begin, ptrdiff_t end) {
        read(tensor.origin(n, c), tensor.dtype, begin, end);
    }
    void write(const Tensor &tensor, int n, int c, ptrdiff_t begin, ptrdiff_t end) {
        write(tensor.origin(n, c), tensor.dtype, begin, end);
    }
    void read(const void *origin, int dtype, ptrdiff_t begin, ptrdiff_t end);
    void write(const void *origin, int dtype, ptrdiff_t begin, ptrdiff_t end);
    // Padding included.
    void write_plane(const Tensor &tensor, int n, int c) {
        write(tensor, n, c, -tensor.front, tensor.plane - tensor.front);
    }
    // Rows [first, last) of a plane, as many as there are, and what surrounds them: all that lies between,
    // and for writers above the first and below the last.
    void read_rows(const Tensor &tensor, int n, int c, int first, int last);
    void write_rows(const Tensor &tensor, int n, int c, int first, int last);
    // What an operator writes that does elements [begin, end), of whose plane the first or the last part:
    // it zeroes the padding beyond it too.
    void write_part(const Tensor &tensor, int n, int c, ptrdiff_t begin, ptrdiff_t end, bool is_first,
                    bool is_last) {
        write(tensor, n, c, is_first ? -tensor.front : begin, is_last ? tensor.plane - tensor.front : end);
    }
    // Lines moved since the last call: fetched to be read, and to be written.
    std::pair<int64_t, int64_t> take() { return std::exchange(moved_, {0, 0}); }

private:
    // Lines of the arena that elements touch, first and behind the last.
    std::pair<std::size_t, std::size_t> lines(const void *origin, int dtype, ptrdiff_t begin,
                                              ptrdiff_t end) const;
    void fetch(std::size_t line, int64_t &moved);

    const char *const arena_;
    const std::size_t count_;
    int worker_ = 0;
    std::pair<int64_t, int64_t> moved_{0, 0};
    std::vector<char> is_written_;             // by line
    std::vector<std::vector<char>> has_line_;  // by worker and line: as it was written last
};

}  // namespace autosparse
