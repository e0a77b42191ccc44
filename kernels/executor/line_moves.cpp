#include "executor/line_moves.h"

#include <algorithm>

#include "executor/memory.h"
#include "executor/program.h"

namespace autosparse {

LineMoves::LineMoves(const void *arena, std::size_t bytes, int workers)
    : arena_(static_cast<const char *>(arena)),
      count_((bytes + kCacheLine - 1) / kCacheLine),
      is_written_(count_, 0),
      has_line_(static_cast<std::size_t>(workers), std::vector<char>(count_, 0)) {}

std::pair<std::size_t, std::size_t> LineMoves::lines(const void *origin, int dtype, ptrdiff_t begin,
                                                     ptrdiff_t end) const {
    const auto line = static_cast<ptrdiff_t>(kCacheLine), last = static_cast<ptrdiff_t>(count_);
    const ptrdiff_t from = static_cast<const char *>(offset(origin, dtype, begin)) - arena_;
    const ptrdiff_t to = static_cast<const char *>(offset(origin, dtype, end)) - arena_;
    const ptrdiff_t first = std::clamp<ptrdiff_t>(from / line, 0, last);
    return {static_cast<std::size_t>(first),
            static_cast<std::size_t>(std::clamp<ptrdiff_t>((to + line - 1) / line, first, last))};
}

void LineMoves::fetch(std::size_t line, int64_t &moved) {
    char &has = has_line_[static_cast<std::size_t>(worker_)][line];
    if (!has && is_written_[line]) ++moved;
    has = 1;
}

void LineMoves::read(const void *origin, int dtype, ptrdiff_t begin, ptrdiff_t end) {
    const auto [first, behind] = lines(origin, dtype, begin, end);
    for (std::size_t line = first; line < behind; ++line) fetch(line, moved_.first);
}

void LineMoves::write(const void *origin, int dtype, ptrdiff_t begin, ptrdiff_t end) {
    const auto [first, behind] = lines(origin, dtype, begin, end);
    for (std::size_t line = first; line < behind; ++line) {
        fetch(line, moved_.second);
        is_written_[line] = 1;
        for (std::size_t other = 0; other < has_line_.size(); ++other)
            has_line_[other][line] = other == static_cast<std::size_t>(worker_);
    }
}

void LineMoves::read_rows(const Tensor &tensor, int n, int c, int first, int last) {
    const ptrdiff_t from = std::max(first, 0), to = std::min(last, tensor.shape.height);
    if (from < to) read(tensor, n, c, from * tensor.pitch, (to - 1) * tensor.pitch + tensor.shape.width);
}

void LineMoves::write_rows(const Tensor &tensor, int n, int c, int first, int last) {
    const ptrdiff_t from = first, to = last;
    write_part(tensor, n, c, from * tensor.pitch, to * tensor.pitch, first == 0,
               last == tensor.shape.height);
}

// The first of two inferences finds nothing written; the second stands for all later ones.
void Program::moved_lines(int64_t *read, int64_t *written) const {
    LineMoves moves(arena_.data(), arena_.bytes(), threads_);
    for (int inference = 0; inference < 2; ++inference) {
        std::fill_n(read, op_count() + 1, 0);
        std::fill_n(written, op_count() + 1, 0);
        for (const Step &step : steps_) {
            for (int worker = 0; worker < threads_; ++worker) {
                moves.set_worker(worker);
                const auto [first, last] = step.queue->run_of(worker);
                for (int task = first; task < last; ++task) step.touch(task, moves);
            }
            const auto [for_reading, for_writing] = moves.take();
            const int op = step.op < 0 ? op_count() : step.op;
            read[op] += for_reading;
            written[op] += for_writing;
        }
    }
}

}  // namespace autosparse
