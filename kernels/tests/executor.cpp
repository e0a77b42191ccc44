// What no call of the public interface can bring about or see: work that throws on a worker thread, and the
// processors that runs are bound to.
//
//     executor
#include "executor/program.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "executor/processors.h"
#include "harness.h"

namespace {

using autosparse::allowed_processors;
using autosparse::CallerState;
using autosparse::Pool;
using autosparse::PoolLease;
using harness::expect;
using harness::in_situation;

constexpr int kThreads[] = {1, 2, 3, 7};

// What the text of the exception was, or "" if none came.
template <class Body>
std::string thrown_by(Body &&body) {
    try {
        body();
    } catch (const std::exception &error) {
        return error.what();
    }
    return "";
}

void job_throws(int threads, int thrower) {
    Pool pool(threads, allowed_processors(), {});
    for (int round = 0; round < 3; ++round) {
        const std::string text = thrown_by([&] {
            pool.run([&](int worker) {
                if (worker == thrower) throw std::runtime_error("worker " + std::to_string(worker));
            });
        });
        expect(text == "worker " + std::to_string(thrower), "the caller must get it, but got: " + text);
        std::atomic<int> ran{0};
        pool.run([&](int) { ran.fetch_add(1); });
        expect(ran.load() == threads, "the next job must run on every worker");
    }
}

void every_job_throws(int threads) {
    Pool pool(threads, allowed_processors(), {});
    const std::string text =
        thrown_by([&] { pool.run([](int) { throw std::runtime_error("every worker"); }); });
    expect(text == "every worker", "the caller must get one of them, but got: " + text);
}

void expect_run(autosparse::Program &program) {
    const std::vector<float> input = {1, 2, 3, 4};
    std::vector<float> output(4, 0.0f);
    const float *from = input.data();
    float *to = output.data();
    program.run(&from, &to, 1, nullptr, nullptr);
    for (std::size_t i = 0; i < input.size(); ++i)
        expect(output[i] == 2 * input[i], "a run after a failed one must be right");
}

// A step of the program throws in some of its tasks; steps before and behind it wait for all workers.
void step_throws(int threads) {
    autosparse::Program program(threads, false);
    const int input = program.add_tensor({1, 1, 2, 2}, AS_F32),
              sum = program.add_tensor({1, 1, 2, 2}, AS_F32);
    program.add_input(input);
    std::atomic<bool> fails{true};
    std::atomic<int> preparations{0};
    const auto touches_nothing = [](int, autosparse::LineMoves &) {};
    program.add_step(
        -1, std::vector<int64_t>(64, 1),
        [&](int task, int) {
            if (fails.load() && task % 5 == 0) throw std::bad_alloc();
        },
        touches_nothing);
    program.add_step(
               -1, std::vector<int64_t>(8, 1), [](int, int) {}, touches_nothing)
        .prepare = [&](int) { preparations.fetch_add(1); };
    program.add_op(harness::plain_op(AS_OP_ADD, {input, input}, sum));
    program.add_output(sum);
    program.finish();
    for (int round = 0; round < 3; ++round) {
        fails.store(true);
        preparations.store(0);
        bool is_thrown = false;
        try {
            expect_run(program);
        } catch (const std::bad_alloc &) {
            is_thrown = true;
        }
        expect(is_thrown, "the caller must get what a task threw");
        expect(preparations.load() == 0, "nothing must be done after a failure");
        fails.store(false);
        expect_run(program);
        expect(preparations.load() == threads, "every worker must take part in the next run");
    }
}

// The processors that this thread may run on just now.
std::set<int> bound_to() {
    const std::vector<int> allowed = allowed_processors();
    return {allowed.begin(), allowed.end()};
}

// Single threads: each its own processor until none are left, and then none; what is given back is used
// again.
void processors_are_shared_out() {
    const std::set<int> all = bound_to();
    std::vector<std::unique_ptr<PoolLease>> leases;
    std::set<int> taken;
    for (std::size_t i = 0; i < all.size(); ++i) {
        leases.push_back(std::make_unique<PoolLease>(1, true));
        expect(leases.back()->processors().size() == 1, "a run must be bound while processors are left");
        taken.insert(leases.back()->processors().front());
    }
    expect(taken == all, "no two runs must be bound to one processor");
    expect(PoolLease(1, true).processors().empty(), "where none is left, a run must be bound to none");
    expect(PoolLease(2, true).processors().empty(), "where too few are left, a run must be bound to none");
    const int free = leases.back()->processors().front();
    leases.pop_back();
    expect(PoolLease(1, true).processors() == std::vector<int>{free}, "a processor must be used again");
    expect(PoolLease(1, false).processors().empty(), "who does not ask must not be bound");
}

// Every worker stays where the lease says, and no longer than it lasts.
void workers_are_bound() {
    const std::set<int> all = bound_to();
    const int threads = static_cast<int>(all.size());
    for (int round = 0; round < 3; ++round) {
        PoolLease lease(threads, true);
        const std::vector<int> processors = lease.processors();
        expect(std::set<int>(processors.begin(), processors.end()) == all, "all processors must be used");
        const CallerState caller(lease);
        std::vector<std::set<int>> found(processors.size());
        lease->run([&](int worker) { found[static_cast<std::size_t>(worker)] = bound_to(); });
        for (std::size_t i = 0; i < found.size(); ++i)
            expect(found[i] == std::set<int>{processors[i]},
                   "worker " + std::to_string(i) + " is elsewhere");
    }
    expect(bound_to() == all, "the caller must get its processors back");
    PoolLease first(1, true), rest(threads, true);
    expect(rest.processors().empty(), "as one is taken, not all can be");
    std::vector<std::set<int>> found(static_cast<std::size_t>(threads));
    rest->run([&](int worker) { found[static_cast<std::size_t>(worker)] = bound_to(); });
    expect(std::all_of(found.begin(), found.end(), [&](const auto &each) { return each == all; }),
           "workers of a run that is bound to none must be free to move");
}

}  // namespace

int main() {
    autosparse::retain_pools();
    in_situation("leases of one thread", processors_are_shared_out);
    in_situation("leases of several threads", workers_are_bound);
    autosparse::release_pools();
    for (int threads : kThreads) {
        const std::string many = std::to_string(threads) + " threads";
        for (int thrower = 0; thrower < threads; ++thrower)
            in_situation(many + ", worker " + std::to_string(thrower) + " throws",
                         [&] { job_throws(threads, thrower); });
        in_situation(many + ", every worker throws", [&] { every_job_throws(threads); });
        in_situation(many + ", a step throws", [&] { step_throws(threads); });
    }
    std::printf("%d failures\n", harness::failures());
    return harness::failures() ? 1 : 0;
}
