// The C interface: checks arguments, turns exceptions into a status and a message.
#include "autosparse.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <string>

#include "conv/table.h"
#include "cpu/isa.h"
#include "executor/handle.h"

using namespace autosparse;

namespace {

thread_local std::string last_error;
thread_local int last_status = AS_OK;

}  // namespace

namespace autosparse {

int fail(int status, const char *message) noexcept {
    try {
        last_status = status;
        last_error = message;
    } catch (...) {
    }
    return status;
}

void clear_error() noexcept {
    last_status = AS_OK;
    last_error.clear();
}

std::unique_ptr<as_program> new_program(int32_t threads, int32_t pin) {
    require(threads >= 1 && threads <= 1024,
            "threads must lie in 1..1024, but got " + std::to_string(threads));
    return std::make_unique<as_program>(threads, pin != 0);
}

Shape checked_shape(const int32_t *shape) {
    require(shape != nullptr, "shape must not be NULL");
    int64_t elements = 1;
    for (int i = 0; i < 4; ++i) {
        require(shape[i] >= 1,
                "every extent of a tensor must be at least 1, but got " + std::to_string(shape[i]));
        elements *= shape[i];
        require(elements < (int64_t{1} << 31), "a tensor must stay below 2^31 elements");
    }
    // What is added to extents and offsets further on must not leave 32 bits.
    require(elements / shape[0] < (int64_t{1} << 30),
            "one image of a tensor must stay below 2^30 elements");
    return {shape[0], shape[1], shape[2], shape[3]};
}

}  // namespace autosparse

namespace {

void check_tensor(int tensor, int count) {
    require(tensor >= 0 && tensor < count,
            "tensor must be an id that as_program_tensor gave, but got " + std::to_string(tensor));
}

void check_borders(const Program &program, const float *const *inputs, float *const *outputs) {
    require(program.is_finished(), "as_program_finish must come before a run");
    require(inputs != nullptr || program.input_count() == 0, "inputs must not be NULL");
    require(outputs != nullptr, "outputs must not be NULL");
    for (int i = 0; i < program.input_count(); ++i)
        require(inputs[i] != nullptr, "input " + std::to_string(i) + " must not be NULL");
    for (int i = 0; i < program.output_count(); ++i)
        require(outputs[i] != nullptr, "output " + std::to_string(i) + " must not be NULL");
}

int copy_shape(const std::vector<int> &border, const Program &program, int32_t index, int32_t *to) {
    require(index >= 0 && index < static_cast<int32_t>(border.size()),
            "there are " + std::to_string(border.size()) + ", but got index " + std::to_string(index));
    const Shape &shape = program.tensor(border[static_cast<std::size_t>(index)]).shape;
    to[0] = shape.batch, to[1] = shape.channels, to[2] = shape.height, to[3] = shape.width;
    return AS_OK;
}

const KernelRow &checked_row(int row) {
    const auto &rows = kernel_table();
    require(row >= 0 && row < static_cast<int>(rows.size()),
            "row must lie in 0.." + std::to_string(rows.size() - 1) + ", but got " + std::to_string(row));
    return rows[static_cast<std::size_t>(row)];
}

}  // namespace

extern "C" {

AS_EXPORT int as_abi_version(void) { return AS_ABI_VERSION; }

AS_EXPORT const char *as_last_error(void) { return last_error.c_str(); }

AS_EXPORT int as_last_status(void) { return last_status; }

AS_EXPORT int as_isa_count(void) { return level_count; }

AS_EXPORT const char *as_isa_name(int isa) {
    return isa >= 0 && isa < level_count ? kLevels[isa].name : "";
}

AS_EXPORT int as_detect_isa(void) { return usable_isa(); }

AS_EXPORT int as_limit_isa(int isa) {
    return guarded([&] {
        require(isa >= AS_ISA_ANY && isa < level_count,
                "isa must lie in 0.." + std::to_string(level_count - 1) + " or be AS_ISA_ANY, but got " +
                    std::to_string(isa));
        set_isa_limit(isa);
        return AS_OK;
    });
}

AS_EXPORT int as_kernel_count(void) {
    return guarded([] { return static_cast<int>(kernel_table().size()); });
}

AS_EXPORT int as_kernel_get(int row, as_kernel_info *out) {
    return guarded([&] {
        require(out != nullptr, "out must not be NULL");
        const KernelRow &r = checked_row(row);
        std::memset(out, 0, sizeof *out);
        std::strncpy(out->name, r.name.c_str(), sizeof out->name - 1);
        std::strncpy(out->family, r.block_n ? "conv_onexn" : "conv_dense", sizeof out->family - 1);
        std::strncpy(out->method, facts_of(r.method).name, sizeof out->method - 1);
        out->isa = r.isa;
        out->block_n = r.block_n;
        out->tile_out = r.tile_out;
        out->tile_pixels = r.tile_pixels;
        std::strncpy(out->dtype, name_of_dtype(r.dtype), sizeof out->dtype - 1);
        out->lanes = lanes_of(r.isa);
        out->fuses = r.fuses;
        const Filtering &filtering = filtering_of(r.method);
        out->window_in = filtering.out ? filtering.in : 1;
        out->window_out = filtering.out ? filtering.out : 1;
        return AS_OK;
    });
}

AS_EXPORT const char *as_kernel_source_hash(int row) {
    const auto &rows = kernel_table();
    return row >= 0 && row < static_cast<int>(rows.size()) ? rows[static_cast<std::size_t>(row)].source_hash
                                                           : "";
}

AS_EXPORT int as_kernel_why_not(int row, const as_op *op, const int32_t in_shape[4], char *reasons,
                                size_t capacity) {
    return guarded([&] {
        const KernelRow &r = checked_row(row);
        require(op != nullptr, "op must not be NULL");
        require(reasons != nullptr || capacity == 0, "reasons must not be NULL");
        std::string text;
        for (const std::string &reason : why_not(r, *op, checked_shape(in_shape), usable_isa()))
            text += (text.empty() ? "" : "\n") + reason;
        if (capacity) {
            const std::size_t length = text.size() < capacity - 1 ? text.size() : capacity - 1;
            std::memcpy(reasons, text.data(), length);
            reasons[length] = '\0';
        }
        return static_cast<int>(text.size());
    });
}

AS_EXPORT int as_kernel_default(const as_op *op, int32_t dtype, const int32_t in_shape[4],
                                const int32_t out_shape[4], double kept, double *cycles) {
    return guarded([&] {
        require(op != nullptr, "op must not be NULL");
        require(cycles != nullptr, "cycles must not be NULL");
        require(kept >= 0, "kept must be at least 0, but got " + std::to_string(kept));
        const Choice choice = default_kernel(*op, dtype, checked_shape(in_shape), checked_shape(out_shape),
                                             kept, usable_isa());
        if (choice.row < 0)
            throw Error(AS_UNSUPPORTED,
                        "no kernel runs 1x" + std::to_string(op->block_n) + " patterns here");
        *cycles = choice.cycles;
        return choice.row;
    });
}

AS_EXPORT as_program *as_program_new(int32_t threads, int32_t pin) {
    as_program *made = nullptr;
    guarded([&] {
        made = new_program(threads, pin).release();
        return AS_OK;
    });
    return made;
}

AS_EXPORT void as_program_free(as_program *program) { delete program; }

AS_EXPORT int as_program_tensor(as_program *program, const int32_t shape[4], int32_t dtype) {
    return guarded(program, [&](Program &p) {
        require(dtype == AS_F32 || dtype == AS_BF16,
                "dtype must be an as_dtype, but got " + std::to_string(dtype));
        return p.add_tensor(checked_shape(shape), dtype);
    });
}

AS_EXPORT int as_program_input(as_program *program, int32_t tensor) {
    return guarded(program, [&](Program &p) {
        check_tensor(tensor, p.tensor_count());
        p.add_input(tensor);
        return AS_OK;
    });
}

AS_EXPORT int as_program_output(as_program *program, int32_t tensor) {
    return guarded(program, [&](Program &p) {
        check_tensor(tensor, p.tensor_count());
        p.add_output(tensor);
        return AS_OK;
    });
}

AS_EXPORT int as_program_op(as_program *program, const as_op *op) {
    return guarded(program, [&](Program &p) {
        require(op != nullptr, "op must not be NULL");
        return p.add_op(*op);
    });
}

AS_EXPORT int as_program_op_again(as_program *program, int32_t earlier, int32_t input, int32_t residual,
                                  int32_t output) {
    return guarded(program, [&](Program &p) { return p.add_op_again(earlier, input, residual, output); });
}

AS_EXPORT int as_program_share_weights(as_program *program) {
    return guarded(program, [](Program &p) {
        require(!p.is_finished(), "as_program_share_weights must come before as_program_finish");
        p.share_weights();
        return AS_OK;
    });
}

AS_EXPORT int as_program_finish(as_program *program) {
    return guarded(program, [](Program &p) {
        p.finish();
        return AS_OK;
    });
}

AS_EXPORT int as_program_run(as_program *program, const float *const *inputs, float *const *outputs) {
    return guarded(program, [&](Program &p) {
        check_borders(p, inputs, outputs);
        p.run(inputs, outputs, 1, nullptr, nullptr);
        return AS_OK;
    });
}

AS_EXPORT int as_program_time(as_program *program, const float *const *inputs, float *const *outputs,
                              int32_t repeats, int64_t *run_ns, int64_t *op_ns) {
    return guarded(program, [&](Program &p) {
        require(run_ns != nullptr, "run_ns must not be NULL");
        require(repeats >= 1, "repeats must be at least 1, but got " + std::to_string(repeats));
        check_borders(p, inputs, outputs);
        p.run(inputs, outputs, repeats, run_ns, op_ns);
        return AS_OK;
    });
}

AS_EXPORT int as_programs_time(as_program *const *programs, int32_t count, const float *const *inputs,
                               float *const *outputs, int32_t repeats, int64_t *run_ns) {
    return guarded([&] {
        require(programs != nullptr && run_ns != nullptr, "programs and run_ns must not be NULL");
        require(count >= 1 && repeats >= 1, "count and repeats must be at least 1");
        std::vector<Program *> list;
        std::deque<Exclusive> uses;
        for (int i = 0; i < count; ++i) {
            require(programs[i] != nullptr, "program " + std::to_string(i) + " must not be NULL");
            require(std::find(programs, programs + i, programs[i]) == programs + i,
                    "programs timed in turn must differ, but got one twice");
            uses.emplace_back(*programs[i]);
            list.push_back(&programs[i]->program);
            check_borders(*list.back(), inputs, outputs);
            require(list.back()->threads() == list.front()->threads() &&
                        list.back()->pin() == list.front()->pin(),
                    "programs timed in turn must agree in threads and pin");
            require(list.back()->has_same_borders(*list.front()),
                    "programs timed in turn must agree in inputs and outputs");
        }
        run_in_turn(list.data(), count, inputs, outputs, repeats, run_ns);
        return AS_OK;
    });
}

AS_EXPORT int as_program_input_count(const as_program *program) {
    return program ? program->program.input_count() : fail(AS_BAD_ARGUMENT, "program must not be NULL");
}

AS_EXPORT int as_program_output_count(const as_program *program) {
    return program ? program->program.output_count() : fail(AS_BAD_ARGUMENT, "program must not be NULL");
}

AS_EXPORT int as_program_input_shape(const as_program *program, int32_t input, int32_t shape[4]) {
    return guarded([&] {
        require(program != nullptr && shape != nullptr, "program and shape must not be NULL");
        return copy_shape(program->program.inputs(), program->program, input, shape);
    });
}

AS_EXPORT int as_program_output_shape(const as_program *program, int32_t output, int32_t shape[4]) {
    return guarded([&] {
        require(program != nullptr && shape != nullptr, "program and shape must not be NULL");
        return copy_shape(program->program.outputs(), program->program, output, shape);
    });
}

AS_EXPORT int64_t as_program_weight_bytes(const as_program *program) {
    return program ? program->program.weight_bytes() : fail(AS_BAD_ARGUMENT, "program must not be NULL");
}

AS_EXPORT int64_t as_program_arena_bytes(const as_program *program) {
    return program ? program->program.arena_bytes() : fail(AS_BAD_ARGUMENT, "program must not be NULL");
}

AS_EXPORT int as_program_op_count(const as_program *program) {
    return program ? program->program.op_count() : fail(AS_BAD_ARGUMENT, "program must not be NULL");
}

AS_EXPORT int as_program_moved_lines(as_program *program, int64_t *read, int64_t *written) {
    return guarded(program, [&](Program &p) {
        require(read != nullptr && written != nullptr, "read and written must not be NULL");
        require(p.is_finished(), "as_program_finish must come before as_program_moved_lines");
        p.moved_lines(read, written);
        return AS_OK;
    });
}

AS_EXPORT int as_program_op_kernel(const as_program *program, int32_t op, int32_t *row) {
    return guarded([&] {
        require(program != nullptr && row != nullptr, "program and row must not be NULL");
        require(op >= 0 && op < program->program.op_count(),
                "op must be an operator of the program, but got " + std::to_string(op));
        *row = program->program.op_kernel(op);
        return AS_OK;
    });
}

}  // extern "C"
