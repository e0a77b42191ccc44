#include "executor/program.h"

#include <algorithm>
#include <cstring>

#include "conv/structure.h"
#include "cpu/isa.h"
#include "operators/planes.h"

namespace autosparse {
namespace {

bool is_equal(const PackedWeights &a, const PackedWeights &b) {
    return &a == &b || (a.weights == b.weights && a.bias == b.bias);
}

}  // namespace

void require(bool condition, const std::string &rule) {
    if (!condition) throw Error(AS_BAD_ARGUMENT, rule);
}

Program::Program(int threads, bool pin) : threads_(threads), pin_(pin), isa_(usable_isa()) {
    retain_pools();
}

Program::~Program() { release_pools(); }

int Program::add_tensor(const Shape &shape, int dtype) {
    require(!finished_, "a finished program takes no more tensors");
    Tensor tensor;
    tensor.shape = shape;
    tensor.dtype = dtype;
    tensor.pitch_parent = static_cast<int>(tensors_.size());
    tensors_.push_back(tensor);
    return tensor.pitch_parent;
}

void Program::add_input(int id) {
    require(!finished_, "a finished program takes no more inputs");
    require(!tensor(id).is_written,
            "an input tensor must not be written by an operator or named an input twice");
    tensor(id).is_input = tensor(id).is_written = true;
    tensor(id).first_op = -1;
    tensor(id).last_op = std::max(tensor(id).last_op, 0);
    inputs_.push_back(id);
}

void Program::add_output(int id) {
    require(!finished_, "a finished program takes no more outputs");
    tensor(id).is_output = true;
    outputs_.push_back(id);
}

int Program::add_op(const as_op &op) {
    require(!finished_, "a finished program takes no more operators");
    check_op(op);
    return keep(op, make_operator(*this, op));
}

int Program::add_op_again(int earlier, int input, int residual, int output) {
    require(!finished_, "a finished program takes no more operators");
    require(earlier >= 0 && earlier < op_count(), "earlier must be the index of an operator");
    const as_op &known = described_[static_cast<std::size_t>(earlier)];
    as_op op = known;
    op.inputs[0] = input;
    op.residual = residual;
    op.output = output;
    check_op(op);
    require((residual < 0) == (known.residual < 0),
            "an operator added again must have a residual if the first has");
    require(is_alike(input, known.inputs[0]) && is_alike(output, known.output) &&
                (residual < 0 || is_alike(residual, known.residual)),
            "an operator added again must have tensors of the same shapes and types");
    auto made = operators_[static_cast<std::size_t>(earlier)]->again(op);
    require(made != nullptr, "only convolutions, depthwise ones left out, can be added again");
    return keep(op, std::move(made));
}

bool Program::is_alike(int a, int b) const {
    const Shape &one = tensor(a).shape, &other = tensor(b).shape;
    return one.batch == other.batch && one.channels == other.channels && one.height == other.height &&
           one.width == other.width && tensor(a).dtype == tensor(b).dtype;
}

int Program::keep(const as_op &op, std::unique_ptr<Operator> made) {
    const int index = op_count();
    operators_.push_back(std::move(made));
    as_op &described = described_.emplace_back(op);
    described.weight = described.bias = nullptr;
    described.group_start = described.kept = nullptr;
    const auto read = [&](int id) {
        Tensor &in = tensor(id);
        in.last_op = std::max(in.last_op, index);
        if (in.next_op < 0) in.next_op = index;
    };
    for (int i = 0; i < op.input_count; ++i) read(op.inputs[i]);
    if (op.residual >= 0) read(op.residual);
    Tensor &out = tensor(op.output);
    out.is_written = true;
    out.first_op = out.last_op = index;
    return index;
}

void Program::check_op(const as_op &op) const {
    const int count = static_cast<int>(tensors_.size());
    require(op.input_count >= 1 && op.input_count <= AS_MAX_INPUTS, "input_count must lie in 1..8");
    for (int i = 0; i < op.input_count; ++i) {
        require(op.inputs[i] >= 0 && op.inputs[i] < count, "inputs must be tensor ids");
        require(tensor(op.inputs[i]).is_written,
                "an operator may only read inputs and outputs of earlier operators");
    }
    require(op.output >= 0 && op.output < count, "output must be a tensor id");
    require(!tensor(op.output).is_written, "a tensor can be written only once");
    require(op.residual >= -1 && op.residual < count, "residual must be a tensor id or -1");
    require(op.residual < 0 || op.kind == AS_OP_CONV, "residual belongs to convolutions without groups");
    require(op.residual < 0 || tensor(op.residual).is_written,
            "the residual must be written by an earlier operator");
    require(op.activation >= AS_ACT_NONE && op.activation <= AS_ACT_GELU,
            "activation must be an as_activation");
}

int Program::pitch_root(int id) {
    while (tensor(id).pitch_parent != id) {
        tensor(id).pitch_parent = tensor(tensor(id).pitch_parent).pitch_parent;
        id = tensor(id).pitch_parent;
    }
    return id;
}

void Program::share_pitch(int a, int b) { tensor(pitch_root(a)).pitch_parent = pitch_root(b); }

void Program::pad(int id, const Padding &p) {
    Padding &have = tensor(id).padding;
    have.top = std::max(have.top, p.top);
    have.left = std::max(have.left, p.left);
    have.bottom = std::max(have.bottom, p.bottom);
    have.right = std::max(have.right, p.right);
}

void Program::widen(int id, int pitch) { tensor(id).min_pitch = std::max(tensor(id).min_pitch, pitch); }

void Program::lay_out() {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
        Tensor &t = tensors_[i];
        const int own = std::max(t.shape.width + std::max(t.padding.left, t.padding.right), t.min_pitch);
        Tensor &root = tensor(pitch_root(static_cast<int>(i)));
        root.pitch = std::max(root.pitch, own);
    }
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
        Tensor &t = tensors_[i];
        t.pitch = tensor(pitch_root(static_cast<int>(i))).pitch;
        const ptrdiff_t line = static_cast<ptrdiff_t>(kCacheLine) / bytes_of(t.dtype);
        const auto lines = [line](ptrdiff_t elements) { return (elements + line - 1) / line; };
        t.front = lines(static_cast<ptrdiff_t>(t.padding.top) * t.pitch + t.padding.left) * line;
        const ptrdiff_t rows = t.shape.height - 1 + t.padding.bottom;
        const ptrdiff_t behind =
            std::max(t.rounded_span(), rows * t.pitch + t.shape.width + t.padding.right);
        // An odd number of cache lines spreads the planes over all sets of the caches.
        t.plane = (lines(t.front + behind) | 1) * line;
        t.image = t.plane * t.shape.channels;
        require(t.image < INT32_MAX / 2, "one image of a tensor must stay below 2^30 elements");
        t.valid = valid_mask(t);
    }
}

const int32_t *Program::valid_mask(const Tensor &t) {
    auto &mask = masks_[std::make_tuple(t.shape.height, t.shape.width, t.pitch)];
    if (mask.empty()) {
        // Activations begin at any row and read whole vectors of it.
        mask.assign(static_cast<std::size_t>(t.rounded_span() + 16), 0);
        for (int y = 0; y < t.shape.height; ++y)
            std::fill_n(mask.begin() + static_cast<ptrdiff_t>(y) * t.pitch, t.shape.width, -1);
    }
    return mask.data();
}

void Program::check_dataflow() {
    for (int id : outputs_)
        require(tensor(id).is_written, "every output must be written by an operator or be an input");
    require(!outputs_.empty(), "a program needs at least one output");
    for (Tensor &t : tensors_)
        if (t.is_output) t.last_op = op_count();
}

void Program::finish() {
    require(!finished_, "a program can be finished only once");
    check_dataflow();
    for (auto &op : operators_) op->constrain(*this);
    lay_out();
    divide();
    plan_arena();
    place_weights();
    for (const auto &op : operators_) scratch_bytes_ = std::max(scratch_bytes_, op->scratch(*this));
    scratch_bytes_ = (scratch_bytes_ + 2 * kCacheLine - 1) / kCacheLine * kCacheLine;
    scratch_ = Buffer(scratch_bytes_ * static_cast<std::size_t>(threads_));
    plan_inputs();
    for (int op = 0; op < op_count(); ++op)
        operators_[static_cast<std::size_t>(op)]->plan(
            *this, op, arena_.data() + workspace_offset_[static_cast<std::size_t>(op)]);
    plan_outputs();
    finished_ = true;
}

void Program::divide() {
    for (int id : inputs_) tensor(id).is_in_bands = bands(tensor(id).shape) > 1;
    for (const auto &op : operators_) op->divide(*this);
}

bool Program::next_suits_bands(const Tensor &tensor) const {
    return tensor.next_op >= 0 && operators_[static_cast<std::size_t>(tensor.next_op)]->suits_bands(*this);
}

// Where it was asked for, operators with equal weights, such as calls of one layer, read them in one place.
void Program::place_weights() {
    const auto rounded = [](std::size_t words) { return (words + 15) / 16 * 16; };
    std::map<std::size_t, std::vector<std::size_t>> by_size;  // operators that hold weights of their own
    std::vector<std::size_t> owner(operators_.size());
    for (std::size_t i = 0; i < operators_.size(); ++i) {
        owner[i] = i;
        const TiledLayer *mine = shares_weights_ ? operators_[i]->unplaced() : nullptr;
        auto &alike = by_size[operators_[i]->weight_words()];
        for (std::size_t other : mine ? alike : std::vector<std::size_t>())
            if (const TiledLayer *theirs = operators_[other]->unplaced();
                theirs && is_equal(*theirs->packed, *mine->packed)) {
                owner[i] = other;
                break;
            }
        if (owner[i] != i) continue;
        alike.push_back(i);
        weight_words_ += rounded(operators_[i]->weight_words());
    }
    // Kernels may prefetch and load whole vectors beyond the last weight.
    weights_ = Buffer((weight_words_ + 64) * sizeof(float));
    float *place = reinterpret_cast<float *>(weights_.data());
    std::fill_n(place + weight_words_, 64, 0.0f);
    std::vector<float *> places(operators_.size());
    for (std::size_t i = 0; i < operators_.size(); ++i) {
        places[i] = owner[i] == i ? place : places[owner[i]];
        operators_[i]->place_weights(places[i]);
        if (owner[i] == i) place += rounded(operators_[i]->weight_words());
    }
}

Step &Program::add_step(int op, const std::vector<int64_t> &costs, std::function<void(int, int)> run,
                        std::function<void(int, LineMoves &)> touch) {
    auto queue = std::make_unique<TaskQueue>(costs, threads_);
    steps_.push_back(Step{op, std::move(run), std::move(queue), std::move(touch), nullptr});
    return steps_.back();
}

void Program::plan_inputs() {
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
        const Tensor &t = tensor(inputs_[i]);
        const int count = bands(t.shape), channels = t.shape.channels;
        const int tasks = t.shape.batch * count * channels;
        add_step(
            -1, std::vector<int64_t>(static_cast<std::size_t>(tasks), 1),
            [this, i, count, channels, &t](int task, int) {
                const int n = task / channels / count, c = task % channels;
                const Rows rows = band(t.shape, task / channels % count, count);
                const ptrdiff_t above =
                    (static_cast<ptrdiff_t>(n) * channels + c) * t.shape.height + rows.first;
                void *origin = t.origin(n, c);
                plane_kernels(isa_, t.dtype)
                    .import_rows(run_inputs_[i] + above * t.shape.width, t.shape.width,
                                 offset(origin, t.dtype, static_cast<ptrdiff_t>(rows.first) * t.pitch),
                                 t.pitch, rows.last - rows.first, t.shape.width);
                zero_padding_of_rows(t, origin, rows.first, rows.last);
            },
            [count, channels, &t](int task, LineMoves &moves) {
                const Rows rows = band(t.shape, task / channels % count, count);
                moves.write_rows(t, task / channels / count, task % channels, rows.first, rows.last);
            });
    }
}

void Program::plan_outputs() {
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
        const Tensor &t = tensor(outputs_[i]);
        const int planes = t.shape.batch * t.shape.channels;
        // Planes of one pixel are copied in long runs.
        const int run = std::max(1, 256 / (t.shape.height * t.shape.width));
        const int tasks = (planes + run - 1) / run;
        add_step(
            -1, std::vector<int64_t>(static_cast<std::size_t>(tasks), 1),
            [this, i, run, planes, &t](int task, int) {
                const ptrdiff_t pixels = static_cast<ptrdiff_t>(t.shape.height) * t.shape.width;
                for (int plane = task * run; plane < std::min(planes, (task + 1) * run); ++plane)
                    plane_kernels(isa_, t.dtype)
                        .export_rows(t.origin(plane / t.shape.channels, plane % t.shape.channels), t.pitch,
                                     run_outputs_[i] + plane * pixels, t.shape.width, t.shape.height,
                                     t.shape.width);
            },
            [run, planes, &t](int task, LineMoves &moves) {
                for (int plane = task * run; plane < std::min(planes, (task + 1) * run); ++plane)
                    moves.read(t, plane / t.shape.channels, plane % t.shape.channels, 0, t.span());
            });
    }
}

// After a failure the workers still meet at the end of every step, but do nothing more.
void Program::run_tasks(Step &step, int worker) noexcept {
    if (failure_.has_come()) return;
    try {
        if (step.prepare) step.prepare(worker);
        for (int task = step.queue->next(worker); task >= 0; task = step.queue->next(worker))
            step.run(task, worker);
    } catch (...) {
        failure_.keep();
    }
}

// A step ends when its last worker arrives, whenever worker 0 comes to notice.
void Program::run_steps(int worker, bool timed) {
    for (Step &step : steps_) {
        run_tasks(step, worker);
        if (threads_ > 1)
            barrier_->wait(timed ? &step.end_ns : nullptr);
        else if (timed)
            step.end_ns = now_ns();
        step.queue->rewind(worker);
    }
}

void Program::run_once(Pool &pool, int64_t *op_ns) {
    barrier_ = &pool.barrier();
    int64_t begin = op_ns ? now_ns() : 0;
    pool.run([this, op_ns](int worker) { run_steps(worker, op_ns != nullptr); });
    failure_.rethrow();
    if (!op_ns) return;
    std::fill_n(op_ns, op_count(), 0);
    for (const Step &step : steps_) {
        if (step.op >= 0) op_ns[step.op] += step.end_ns - begin;
        begin = step.end_ns;
    }
}

void Program::run(const float *const *inputs, float *const *outputs, int repeats, int64_t *run_ns,
                  int64_t *op_ns) {
    run_inputs_ = inputs;
    run_outputs_ = outputs;
    PoolLease pool(threads_, pin_);
    const CallerState caller(pool);
    for (int i = 0; i < repeats; ++i) {
        const int64_t begin = run_ns ? now_ns() : 0;
        run_once(*pool, op_ns ? op_ns + static_cast<ptrdiff_t>(i) * op_count() : nullptr);
        if (run_ns) run_ns[i] = now_ns() - begin;
    }
}

void run_in_turn(Program *const *programs, int count, const float *const *inputs, float *const *outputs,
                 int repeats, int64_t *run_ns) {
    for (int i = 0; i < count; ++i) {
        programs[i]->run_inputs_ = inputs;
        programs[i]->run_outputs_ = outputs;
    }
    PoolLease pool(programs[0]->threads_, programs[0]->pin_);
    const CallerState caller(pool);
    for (int i = 0; i < repeats; ++i) {
        const int64_t begin = now_ns();
        programs[i % count]->run_once(*pool, nullptr);
        run_ns[i] = now_ns() - begin;
    }
}

bool Program::has_same_borders(const Program &other) const {
    const auto same = [&](const std::vector<int> &a, const std::vector<int> &b) {
        return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](int mine, int theirs) {
            return tensor(mine).shape == other.tensor(theirs).shape;
        });
    };
    return same(inputs_, other.inputs_) && same(outputs_, other.outputs_);
}

int Program::op_kernel(int op) const { return operators_[static_cast<std::size_t>(op)]->kernel(); }

int64_t Program::weight_bytes() const {
    auto bytes = static_cast<int64_t>(weight_words_ * sizeof(float));
    for (const auto &op : operators_) bytes += op->index_bytes();
    return bytes;
}

}  // namespace autosparse
