// Arguments at the end of what 32 bits can hold: refused with a message, and never computed with.
#include <limits>
#include <string>
#include <vector>

#include "conformance.h"
#include "harness.h"

namespace harness {
namespace {

constexpr int kMost = std::numeric_limits<int>::max();

// Builds a program of one operator as far as the library lets it; nothing is run.
void build(const std::vector<Extents> &inputs, const Extents &output, as_op op) {
    Program program(1);
    op.input_count = 0;
    for (const Extents &extents : inputs) op.inputs[op.input_count++] = program.input(extents);
    op.output = program.tensor(output);
    program.op(op);
    program.output(op.output);
    program.finish();
}

void expect_refused(const std::string &what, const std::vector<Extents> &inputs, const Extents &output,
                    const as_op &op) {
    in_situation(what, [&] {
        try {
            build(inputs, output, op);
        } catch (const Refusal &refusal) {
            expect(std::string(as_last_error()) != "", "was refused without a message");
            return;
        }
        throw Failure("was accepted");
    });
}

}  // namespace

void check_refusals() {
    const float one = 1.0f;
    as_op op = plain_op(AS_OP_CONV, {0}, 1);
    op.weight = &one;
    op.pad_left = op.pad_right = 4096;
    expect_refused("a padded row of 2^31 - 1 pixels", {{1, 1, 1, kMost}}, {1, 1, 1, kMost}, op);
    expect_refused("a padded row just below 2^31 pixels", {{1, 1, 1, kMost - 8192}}, {1, 1, 1, kMost}, op);

    op = plain_op(AS_OP_CONV, {0}, 1);
    op.weight = &one;
    expect_refused("an image of 2^31 - 1 pixels", {{1, 1, 1, kMost}}, {1, 1, 1, kMost}, op);
    expect_refused("an image of 2^30 pixels", {{1, 1, 1 << 15, 1 << 15}}, {1, 1, 1 << 15, 1 << 15}, op);
    expect_refused("an image of 2^31 - 1 rows", {{1, 1, kMost, 1}}, {1, 1, kMost, 1}, op);

    op = plain_op(AS_OP_MAX_POOL, {0}, 1);
    op.kernel_h = op.kernel_w = 2;
    op.pad_top = 1;
    expect_refused("a pooled column of 2^31 - 1 pixels", {{1, 1, kMost, 1}}, {1, 1, kMost, 1}, op);

    op = plain_op(AS_OP_SUBSAMPLE_PAD, {0}, 1);
    op.channels_before = kMost;
    expect_refused("2^31 - 1 channels in front", {{1, 8, 4, 4}}, {1, 8, 4, 4}, op);
    op = plain_op(AS_OP_SUBSAMPLE_PAD, {0}, 1);
    op.stride_h = op.stride_w = kMost;
    expect_refused("a stride of 2^31 - 1", {{1, 8, 4, 4}}, {1, 8, 2, 2}, op);

    op = plain_op(AS_OP_CONCAT, {0}, 1);
    const Extents tall{1, (1 << 30) - 1, 1, 1};
    expect_refused("2^32 concatenated channels", {tall, tall, tall, tall, tall}, {1, (1 << 30) - 5, 1, 1},
                   op);
    expect_refused("2^31 concatenated channels", {tall, tall, tall}, {1, (1 << 30) - 3, 1, 1}, op);
}

}  // namespace harness
