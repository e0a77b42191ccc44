// A program: tensors, operators, and, once finished, the steps that one inference runs through.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "autosparse.h"
#include "executor/line_moves.h"
#include "executor/memory.h"
#include "executor/pool.h"
#include "executor/tensor.h"

namespace autosparse {

// What the C interface turns into a status and a message.
class Error : public std::runtime_error {
public:
    Error(as_status status, const std::string &message) : std::runtime_error(message), status(status) {}
    const as_status status;
};

// Throws AS_BAD_ARGUMENT unless `condition` holds.
void require(bool condition, const std::string &rule);

// One parallel stretch of work; all workers meet at its end.
struct Step {
    int op;  // operator it belongs to; -1 for the borders
    std::function<void(int task, int worker)> run;
    std::unique_ptr<TaskQueue> queue;
    std::function<void(int task, LineMoves &)> touch;  // states what `run` reads and writes in the arena
    std::function<void(int worker)> prepare;           // by each worker before its first task; may be empty
    int64_t end_ns = 0;                                // of the last timed run
};

class Program;
struct TiledLayer;

// Rows [first, last) of the images of a tensor.
struct Rows {
    int first, last;
};

// Lines of weights that are read in the time in which one that another processor wrote is fetched: weights
// follow each other, and nobody writes them. Where processors share no cache it is more.
constexpr int64_t kWeightsPerForeignLine = 4;

class Operator {
public:
    virtual ~Operator() = default;
    // The same operator with the same weights on other tensors, as `op` names them; before finish(). Null
    // for operators that are as soon made anew.
    virtual std::unique_ptr<Operator> again(const as_op &) const { return nullptr; }
    // States what it needs of its tensors' layout: padding, equal pitches.
    virtual void constrain(Program &) {}
    // Whether it would rather read inputs in bands than share its outputs out, however its neighbours do.
    virtual bool suits_bands(const Program &) const { return true; }
    // Decides how its tasks divide its output among the workers, given how its inputs are divided, and says
    // so in the output's is_in_bands; after layout, in the order of operators.
    virtual void divide(Program &) {}
    // After divide(): bytes of arena that it needs while it runs, and of scratch per worker.
    virtual std::size_t workspace(const Program &) { return 0; }
    virtual std::size_t scratch(const Program &) { return 0; }
    // Adds its steps; the arena exists.
    virtual void plan(Program &, int op, void *workspace) = 0;
    // 32-bit words that plan() will copy into the program's one weight buffer, and where they went.
    virtual std::size_t weight_words() const { return 0; }
    virtual void place_weights(float *) {}
    // What place_weights() will copy, weights and then biases; null where that is not known.
    virtual const TiledLayer *unplaced() const { return nullptr; }
    virtual int64_t index_bytes() const { return 0; }
    virtual int kernel() const { return AS_KERNEL_BUILTIN; }
};

class Program {
public:
    Program(int threads, bool pin);
    ~Program();
    Program(const Program &) = delete;
    Program &operator=(const Program &) = delete;

    int add_tensor(const Shape &shape, int dtype);
    void add_input(int tensor);
    void add_output(int tensor);
    int add_op(const as_op &op);
    // Adds an earlier convolution once more, on other tensors of the same shapes and types.
    int add_op_again(int earlier, int input, int residual, int output);
    // Refuses an operator whose tensors do not exist or come in the wrong order; add_op asks it too.
    void check_op(const as_op &op) const;
    // Lets operators with equal weights hold them once; before finish().
    void share_weights() { shares_weights_ = true; }
    void finish();
    void run(const float *const *inputs, float *const *outputs, int repeats, int64_t *run_ns,
             int64_t *op_ns);

    bool is_finished() const { return finished_; }
    int threads() const { return threads_; }
    bool pin() const { return pin_; }
    int isa() const { return isa_; }
    int op_count() const { return static_cast<int>(operators_.size()); }
    int tensor_count() const { return static_cast<int>(tensors_.size()); }
    int input_count() const { return static_cast<int>(inputs_.size()); }
    int output_count() const { return static_cast<int>(outputs_.size()); }
    const std::vector<int> &inputs() const { return inputs_; }
    const std::vector<int> &outputs() const { return outputs_; }
    bool has_same_borders(const Program &other) const;
    int op_kernel(int op) const;
    int64_t weight_bytes() const;
    // Per operator, and then for copying inputs and outputs: cache lines of the arena that move between
    // workers to be read and to be written, in one of many inferences, if each worker does its own run of
    // tasks.
    void moved_lines(int64_t *read, int64_t *written) const;
    int64_t arena_bytes() const { return static_cast<int64_t>(arena_.bytes()); }

    // For operators.
    Tensor &tensor(int id) { return tensors_[static_cast<std::size_t>(id)]; }
    const Tensor &tensor(int id) const { return tensors_[static_cast<std::size_t>(id)]; }
    void pad(int id, const Padding &padding);
    void widen(int id, int pitch);
    void share_pitch(int a, int b);
    // `costs`: one per task, any unit. `touch` states what a task reads and writes in the arena, the lines
    // of weights and of the worker's scratch aside; never less, and what it says too much stands there. The
    // reference holds until the next call.
    Step &add_step(int op, const std::vector<int64_t> &costs, std::function<void(int task, int worker)> run,
                   std::function<void(int task, LineMoves &)> touch);
    // Horizontal bands, one per worker where the image is high enough, for operators whose tasks are
    // planes: with tasks in the order of bands, a worker reads what it wrote.
    int bands(const Shape &shape) const {
        return std::max(1, std::min(threads_, shape.height / kRowsPerBand));
    }
    // Whether the first operator that reads a tensor would rather do so in bands.
    bool next_suits_bands(const Tensor &) const;
    // Which of `count` channels is done after `before` others in a band: where a line holds the end of one
    // band and the start of the next, two workers that went the same way would write it at the same time,
    // over and over.
    static int turn(int before, int count, int band) { return band % 2 ? count - 1 - before : before; }
    static Rows band(const Shape &shape, int index, int count) {
        return {shape.height * index / count, shape.height * (index + 1) / count};
    }
    float *scratch(int worker) const {
        return reinterpret_cast<float *>(scratch_.data() +
                                         static_cast<std::size_t>(worker) * scratch_bytes_);
    }

private:
    friend void run_in_turn(Program *const *, int, const float *const *, float *const *, int, int64_t *);
    // Fewer rows are mostly halo.
    static constexpr int kRowsPerBand = 3;

    int keep(const as_op &op, std::unique_ptr<Operator> made);
    bool is_alike(int a, int b) const;
    void lay_out();
    void divide();
    void place_weights();
    void check_dataflow();
    const int32_t *valid_mask(const Tensor &tensor);
    void plan_arena();
    void plan_inputs();
    void plan_outputs();
    void run_tasks(Step &step, int worker) noexcept;
    void run_steps(int worker, bool timed);
    void run_once(Pool &pool, int64_t *op_ns);
    int pitch_root(int id);

    const int threads_;
    const bool pin_;
    const int isa_;
    bool finished_ = false;
    std::vector<Tensor> tensors_;
    std::vector<int> inputs_, outputs_;
    std::vector<std::unique_ptr<Operator>> operators_;
    std::vector<as_op> described_;  // without the caller's arrays
    std::vector<std::size_t> workspace_offset_;
    std::vector<Step> steps_;
    Buffer arena_, scratch_, weights_;
    std::size_t scratch_bytes_ = 0, weight_words_ = 0;
    bool shares_weights_ = false;
    std::map<std::tuple<int, int, int>, std::vector<int32_t>> masks_;  // by height, width, pitch
    Barrier *barrier_ = nullptr;                                       // of the pool that runs now
    FirstFailure failure_;                                             // of the run under way
    const float *const *run_inputs_ = nullptr;
    float *const *run_outputs_ = nullptr;
};

// Runs equal programs one after another, `repeats` times in all.
void run_in_turn(Program *const *programs, int count, const float *const *inputs, float *const *outputs,
                 int repeats, int64_t *run_ns);

// Checks and builds one operator.
std::unique_ptr<Operator> make_operator(const Program &program, const as_op &op);

}  // namespace autosparse
