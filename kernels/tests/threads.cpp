// Programs from several threads at once: pools borrowed and returned, programs made and freed while others
// run, one program handed from thread to thread, and forks in the middle of it all.
//
//     threads [--rounds N] [--no-fork]
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "harness.h"

namespace {

using harness::expect;
using harness::Extents;
using harness::in_situation;
using harness::Program;

constexpr int kCallers = 4;
constexpr unsigned kChildSeconds = 30;

// Two convolutions, one of them strided and with an activation of its own, and a sum: several steps with
// more tasks than workers.
class Small {
public:
    explicit Small(int threads, bool pin = false) : program_(threads, pin), output_(kOutput.count()) {
        harness::Random random(7);
        const auto first = random.normal(24 * 8 * 9, 0.1f), second = random.normal(40 * 24 * 9, 0.1f);
        input_ = random.normal(kInput.count());
        const int x = program_.input(kInput), inner = program_.tensor({2, 24, 19, 17});
        const int y = program_.tensor(kOutput), sum = program_.tensor(kOutput);
        program_.op(convolution(x, inner, first, 1, AS_ACT_SILU));
        program_.op(convolution(inner, y, second, 2, AS_ACT_RELU));
        program_.op(harness::plain_op(AS_OP_ADD, {y, y}, sum));
        program_.output(sum);
        program_.finish();
    }

    const std::vector<float> &run() {
        std::fill(output_.begin(), output_.end(), -1.0f);
        program_.run({input_.data()}, {output_.data()});
        return output_;
    }
    // The status of a run into the caller's own array.
    int try_run(std::vector<float> &output) {
        output.assign(kOutput.count(), -1.0f);
        const float *from = input_.data();
        float *to = output.data();
        return as_program_run(program_.get(), &from, &to);
    }
    void time() {
        const float *input = input_.data();
        float *output = output_.data();
        int64_t run_ns[3], op_ns[9];
        expect(as_program_time(program_.get(), &input, &output, 3, run_ns, op_ns) == AS_OK,
               as_last_error());
    }
    static void time_in_turn(Small &a, Small &b) {
        as_program *programs[2] = {a.program_.get(), b.program_.get()};
        const float *input = a.input_.data();
        float *output = a.output_.data();
        int64_t run_ns[4];
        expect(as_programs_time(programs, 2, &input, &output, 4, run_ns) == AS_OK, as_last_error());
    }

private:
    static constexpr Extents kInput{2, 8, 19, 17}, kOutput{2, 40, 10, 9};

    static as_op convolution(int from, int to, const std::vector<float> &weight, int stride,
                             int activation) {
        as_op op = harness::plain_op(AS_OP_CONV, {from}, to);
        op.kernel_h = op.kernel_w = 3;
        op.stride_h = op.stride_w = stride;
        op.pad_top = op.pad_left = op.pad_bottom = op.pad_right = 1;
        op.activation = activation;
        op.weight = weight.data();
        return op;
    }

    Program program_;
    std::vector<float> input_, output_;
};

// What every Small gives, whatever its threads.
const std::vector<float> &wanted() {
    static const std::vector<float> values = Small(1).run();
    return values;
}

void expect_right(Small &small) { expect(small.run() == wanted(), "a run beside others gave other bits"); }

// Calls body(caller, round) on every caller, all at once.
void at_once(int rounds, const std::function<void(int caller, int round)> &body) {
    std::vector<std::thread> callers;
    for (int caller = 0; caller < kCallers; ++caller)
        callers.emplace_back([&, caller] {
            in_situation("caller " + std::to_string(caller), [&] {
                for (int round = 0; round < rounds; ++round) body(caller, round);
            });
        });
    for (std::thread &caller : callers) caller.join();
}

void run_side_by_side(int rounds) {
    std::vector<std::unique_ptr<Small>> programs;
    for (int caller = 0; caller < kCallers; ++caller)
        programs.push_back(std::make_unique<Small>(1 + caller % 3, caller % 2 == 1));
    at_once(rounds, [&](int caller, int) { expect_right(*programs[static_cast<std::size_t>(caller)]); });
}

// Now and then no program is left, and the pools end with the last one.
void make_and_free(int rounds) {
    at_once(rounds, [](int caller, int round) {
        Small small(1 + (caller + round) % 3);
        expect_right(small);
    });
}

void hand_over(int rounds) {
    Small small(3);
    std::mutex turn;
    at_once(rounds, [&](int, int) {
        std::lock_guard<std::mutex> lock(turn);
        expect_right(small);
    });
}

// Without a lock of the callers' own, all but one are turned away, and nobody gets a wrong value.
void contend(int rounds) {
    Small small(2);
    std::atomic<int> served{0};
    at_once(rounds, [&](int, int) {
        std::vector<float> output;
        const int status = small.try_run(output);
        expect(status == AS_OK || status == AS_BUSY, as_last_error());
        if (status == AS_BUSY) {
            expect(as_last_status() == AS_BUSY && *as_last_error() != '\0', "a refusal must say why");
            expect(output == std::vector<float>(output.size(), -1.0f), "a refused run must write nothing");
            return;
        }
        served.fetch_add(1);
        expect(output == wanted(), "a run beside refused ones gave other bits");
    });
    expect(served.load() > 0, "somebody must be served");
    expect_right(small);
}

void time_while_others_run(int rounds) {
    at_once(rounds, [](int caller, int) {
        Small small(2), other(2);
        if (caller == 0) small.time();
        if (caller == 1) Small::time_in_turn(small, other);
        expect_right(other);
    });
}

void limit_levels_while_others_run(int rounds) {
    const int widest = as_detect_isa();
    at_once(rounds, [&](int caller, int round) {
        if (caller == 0) {
            expect(as_limit_isa(round % (widest + 1)) == AS_OK, as_last_error());
            return;
        }
        // Levels round differently; both runs of one program are of one level.
        Small small(2);
        const std::vector<float> first = small.run();
        expect(small.run() == first, "a program changed its level");
    });
    expect(as_limit_isa(widest) == AS_OK, as_last_error());
}

// Ends this process: 0 if an inherited and a new program run here.
[[noreturn]] void be_child(Small &inherited) {
    alarm(kChildSeconds);
    int code = 3;
    in_situation("a forked child", [&] {
        expect_right(inherited);
        Small own(2);
        expect_right(own);
        code = 0;
    });
    _exit(code);
}

void fork_while_others_run(int rounds) {
    Small inherited(3);
    expect_right(inherited);
    std::atomic<bool> is_over{false};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < kCallers; ++caller)
        callers.emplace_back([&, caller] {
            in_situation("caller beside forks", [&] {
                Small small(1 + caller % 3);
                while (!is_over.load()) expect_right(small);
            });
        });
    for (int round = 0; round < rounds; ++round)
        in_situation("fork " + std::to_string(round), [&] {
            const pid_t child = fork();
            expect(child >= 0, "the test needs fork");
            if (child == 0) be_child(inherited);
            int status = 0;
            expect(waitpid(child, &status, 0) == child, "the test needs waitpid");
            expect(!WIFSIGNALED(status),
                   "the child hung, or died of signal " + std::to_string(WTERMSIG(status)));
            expect(WEXITSTATUS(status) == 0, "the child's programs gave other values");
        });
    is_over.store(true);
    for (std::thread &caller : callers) caller.join();
}

}  // namespace

int main(int count, char **arguments) {
    int rounds = 100;
    bool forks = true;
    for (int i = 1; i < count; ++i) {
        if (std::strcmp(arguments[i], "--no-fork") == 0) {
            forks = false;
        } else if (std::strcmp(arguments[i], "--rounds") == 0 && i + 1 < count) {
            rounds = std::atoi(arguments[++i]);
        } else {
            std::fprintf(stderr, "threads: no such flag: %s\nusage: threads [--rounds N] [--no-fork]\n",
                         arguments[i]);
            return 2;
        }
    }
    const std::pair<const char *, void (*)(int)> parts[] = {
        {"side by side", run_side_by_side}, {"made and freed", make_and_free},
        {"handed over", hand_over},         {"contended for", contend},
        {"timed", time_while_others_run},   {"levels limited", limit_levels_while_others_run},
        {"forked", fork_while_others_run}};
    for (const auto &[name, part] : parts) {
        if (part == fork_while_others_run && !forks) continue;
        in_situation(name, [&, run = part] { run(rounds); });
    }
    std::printf("%d rounds: %d failures\n", rounds, harness::failures());
    return harness::failures() ? 1 : 0;
}
