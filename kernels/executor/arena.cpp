// Places all tensors and workspaces in one arena: two things may share memory when no operator needs both.
#include <algorithm>
#include <vector>

#include "executor/program.h"

namespace autosparse {
namespace {

// Whole vectors are loaded a little before the first and beyond the last plane.
constexpr std::size_t kGuard = 1024;
// Neighbours in the arena start on different pages of the cache's index.
constexpr std::size_t kSkew = 17 * kCacheLine;

struct Block {
    std::size_t bytes;
    int first_op, last_op;
    std::size_t *offset;
};

bool overlaps_in_time(const Block &a, const Block &b) {
    return a.first_op <= b.last_op && b.first_op <= a.last_op;
}

// Where a block of the same size lies at another time, if that is free, else the lowest gap between the
// placed blocks that live at the same time. Tensors of one shape then have their bands on the same lines,
// which stay with their workers.
std::size_t find_gap(const Block &block, const std::vector<Block> &placed) {
    std::vector<const Block *> living;
    for (const Block &other : placed)
        if (overlaps_in_time(block, other)) living.push_back(&other);
    const auto is_free = [&](std::size_t offset) {
        return std::none_of(living.begin(), living.end(), [&](const Block *other) {
            return *other->offset < offset + block.bytes && offset < *other->offset + other->bytes;
        });
    };
    for (const Block &other : placed)
        if (other.bytes == block.bytes && is_free(*other.offset)) return *other.offset;
    std::sort(living.begin(), living.end(),
              [](const Block *a, const Block *b) { return *a->offset < *b->offset; });
    std::size_t offset = kGuard;
    for (const Block *other : living) {
        if (offset + block.bytes <= *other->offset) break;
        offset = std::max(offset, *other->offset + other->bytes);
    }
    return offset;
}

}  // namespace

void Program::plan_arena() {
    std::vector<std::size_t> tensor_offset(tensors_.size(), kGuard);
    workspace_offset_.assign(operators_.size(), kGuard);
    std::vector<Block> blocks;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
        const Tensor &t = tensors_[i];
        if (t.is_written)
            blocks.push_back(
                {static_cast<std::size_t>(t.bytes()) + kSkew, t.first_op, t.last_op, &tensor_offset[i]});
    }
    for (int op = 0; op < op_count(); ++op) {
        const std::size_t bytes = operators_[static_cast<std::size_t>(op)]->workspace(*this);
        if (bytes)
            blocks.push_back({(bytes + kCacheLine - 1) / kCacheLine * kCacheLine + kSkew, op, op,
                              &workspace_offset_[static_cast<std::size_t>(op)]});
    }
    std::stable_sort(blocks.begin(), blocks.end(),
                     [](const Block &a, const Block &b) { return a.bytes > b.bytes; });
    std::vector<Block> placed;
    std::size_t end = kGuard;
    for (const Block &block : blocks) {
        *block.offset = find_gap(block, placed);
        end = std::max(end, *block.offset + block.bytes);
        placed.push_back(block);
    }
    arena_ = Buffer(end + kGuard);
    for (std::size_t i = 0; i < tensors_.size(); ++i) tensors_[i].data = arena_.data() + tensor_offset[i];
}

}  // namespace autosparse
