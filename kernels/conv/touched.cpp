// What the tasks of convolutions read and write in the arena (executor/line_moves.h).
#include <algorithm>

#include "conv/convolution.h"
#include "conv/depthwise.h"
#include "conv/winograd.h"

namespace autosparse {

// The planes of an input channel that kernel positions read, and how far around a pixel.
std::vector<Convolution::Reach> Convolution::reaches(const Program &program) const {
    const bool by_phase = splits_phases();
    const std::vector<int32_t> direct =
        by_phase ? std::vector<int32_t>() : direct_taps(program.tensor(op_.inputs[0]));
    std::vector<Reach> reaches;
    for (std::size_t plane = 0; plane < (by_phase ? phases_.planes.size() : 1); ++plane) {
        Reach &reach = reaches.emplace_back();
        reach.plane = static_cast<ptrdiff_t>(plane) * phases_.plane;
        for (std::size_t t = 0; t < (by_phase ? phases_.tap_shift.size() : direct.size()); ++t) {
            if (by_phase && phases_.tap_plane[t] != static_cast<int32_t>(plane)) continue;
            const ptrdiff_t shift = by_phase ? phases_.tap_shift[t] : direct[t];
            reach.before = std::min(reach.before, shift);
            reach.behind = std::max(reach.behind, shift);
        }
    }
    return reaches;
}

void Convolution::touch_input(const Task &task, const Program &program, LineMoves &moves) const {
    const Tensor &input = program.tensor(op_.inputs[0]);
    const Strip &strip = layer_.strips[static_cast<std::size_t>(task.strip)];
    const int32_t *kept = layer_.channels.data() + strip.kept_begin;
    if (splitting_ == Splitting::channel) return moves.read(input, task.image, kept[0], 0, input.span());
    if (splitting_ == Splitting::task) {
        const Rows rows = split_rows_of(task);
        for (int32_t channel : split_)
            moves.read_rows(input, task.image, channel, rows.first * op_.stride_h,
                            rows.last * op_.stride_h);
        return;
    }
    const ptrdiff_t unit = row_.is_flat() ? row_.lanes : input_row(program);
    const ptrdiff_t begin = task.first * unit;
    const ptrdiff_t end = row_.is_flat()
                              ? task.last * unit
                              : (task.last - 1) * unit + (output_shape_.width - 1) * op_.stride_w + 1;
    if (copies_rows()) {
        const ptrdiff_t length = panel_.length - (task_units_ - (task.last - task.first)) * unit;
        for (const ptrdiff_t shift : panel_.planes)
            for (int k = 0; k < strip.kept; ++k) {
                const ptrdiff_t channel = task.image * input_image_ + kept[k] * input_channel_;
                const ptrdiff_t first = begin - panel_.reach_before + shift;
                moves.read(offset(input_base_, dtype_, channel), dtype_, first, first + length);
            }
        return;
    }
    for (const Reach &reach : reaches(program)) {
        // Panels are filled by whole runs of 32, from as far before as any plane is read.
        const ptrdiff_t first = begin + (takes_pairs() ? -panel_.reach_before : reach.before);
        const ptrdiff_t behind =
            takes_pairs() ? first + panel_.length - (task_units_ - (task.last - task.first)) * unit
                          : end + reach.behind;
        for (int k = 0; k < strip.kept; ++k)
            moves.read(offset(input_base_, dtype_,
                              task.image * input_image_ + kept[k] * input_channel_ + reach.plane),
                       dtype_, first, behind);
    }
}

void Convolution::touch_split(const Tensor &input, int n, int c, const Rows &rows, const void *planes,
                              LineMoves &moves) const {
    moves.read_rows(input, n, c, rows.first * op_.stride_h, rows.last * op_.stride_h);
    for (std::size_t p = 0; p < phases_.planes.size(); ++p) {
        const ptrdiff_t plane = static_cast<ptrdiff_t>(p) * phases_.plane, pitch = phases_.pitch;
        const ptrdiff_t pixels = plane + phases_.front;
        moves.write(planes, dtype_, rows.first ? pixels + rows.first * pitch : plane,
                    rows.last == phases_.rows ? plane + phases_.plane : pixels + rows.last * pitch);
    }
}

void Convolution::touch_task(const Task &task, const Program &program, LineMoves &moves) const {
    const Tensor &output = program.tensor(op_.output);
    const Strip &strip = layer_.strips[static_cast<std::size_t>(task.strip)];
    const ptrdiff_t unit = row_.is_flat() ? row_.lanes : output.pitch;
    const ptrdiff_t begin = task.first * unit, end = task.last * unit;
    touch_input(task, program, moves);
    for (int c = strip.first_out; c < strip.first_out + strip.rows; ++c) {
        if (op_.residual >= 0) moves.read(program.tensor(op_.residual), task.image, c, begin, end);
        moves.write_part(output, task.image, c, begin, end, task.first == 0, task.last == units(program));
    }
}

void DepthwiseConvolution::touch_rows(const Program &program, int image, int channel, const Rows &rows,
                                      LineMoves &moves) const {
    const int first = rows.first * op_.stride_h - op_.pad_top;
    moves.read_rows(program.tensor(op_.inputs[0]), image, channel, first,
                    first + (rows.last - rows.first - 1) * op_.stride_h + op_.kernel_h);
    moves.write_rows(program.tensor(op_.output), image, channel, rows.first, rows.last);
}

// Counts whole rows of tiles, of which a task may do a part, and whole blocks of inputs, which the worker
// may have transformed for an earlier task.
void WinogradConvolution::touch_task(const Task &task, const Program &program, LineMoves &moves) const {
    const Tensor &input = program.tensor(op_.inputs[0]), &output = program.tensor(op_.output);
    const Block &block = blocks_[static_cast<std::size_t>(task.block)];
    const int planes = splits_phases() ? static_cast<int>(phases_.planes.size()) : 1;
    const int stride = op_.stride_h;
    const int top = stride * (out_ * block.first + (splits_phases() ? phases_.first_row : -op_.pad_top));
    const int rows = splits_phases() ? phase_rows_of(block) : out_ * block.rows + filtering_.in - out_;
    for (int32_t channel : used_)
        moves.read_rows(input, task.image, channel / planes, top, top + stride * rows);
    const Strip &strip = layer_.strips[static_cast<std::size_t>(task.strip)];
    const int lanes = lanes_of(row_.isa);
    const int first = out_ * (block.first + task.first * lanes / tile_columns_);
    const int behind =
        out_ *
        (block.first + std::min(block.rows, (task.last * lanes + tile_columns_ - 1) / tile_columns_));
    const int last = std::min(behind, output_shape_.height);
    for (int c = strip.first_out; c < strip.first_out + strip.rows; ++c) {
        if (op_.residual >= 0) moves.read_rows(program.tensor(op_.residual), task.image, c, first, last);
        moves.write_rows(output, task.image, c, first, last);
    }
}

}  // namespace autosparse
