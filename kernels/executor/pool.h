// Worker threads, and how the tasks of one step are shared among them.
#pragma once

#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace autosparse {

// All workers wait here until the last one has come. Spins, then yields: steps are short. The last one
// notes the time in `*arrival_ns` if asked to, before it lets the others go.
class Barrier {
public:
    explicit Barrier(int count) : count_(count) {}
    void wait(int64_t *arrival_ns = nullptr);

private:
    const int count_;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<uint32_t> phase_{0};
};

// The first exception of a job that several threads do: none may leave its thread, and all have to meet at
// the end before the caller hears of it.
class FirstFailure {
public:
    // Keeps the exception that is being handled.
    void keep() noexcept {
        if (!has_come_.exchange(true)) error_ = std::current_exception();
    }
    bool has_come() const { return has_come_.load(std::memory_order_relaxed); }
    // Throws what was kept, if anything; when all threads have met.
    void rethrow() {
        if (!has_come()) return;
        has_come_.store(false);
        std::rethrow_exception(std::exchange(error_, nullptr));
    }

private:
    std::atomic<bool> has_come_{false};
    std::exception_ptr error_;
};

// Threads that wait for jobs: spinning for a moment (the next inference often follows at once), then
// asleep.
class Pool {
public:
    // Workers may run on `allowed`, and are bound to one of `processors` each: worker 0, the caller, is to
    // the first by whoever calls. None are bound if there are none.
    Pool(int threads, std::vector<int> allowed, std::vector<int> processors);
    ~Pool();
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;

    int threads() const { return threads_; }
    bool is_bound() const { return !processors_.empty(); }
    const std::vector<int> &processors() const { return processors_; }
    // Whether this pool is what a caller that may run on `allowed` wants.
    bool suits(int threads, bool is_bound, const std::vector<int> &allowed) const {
        return threads == threads_ && is_bound == this->is_bound() && allowed == allowed_;
    }
    // Runs job(worker) on every worker; the caller is worker 0. Returns when all are done. Throws what the
    // job threw first on any of them; a job whose workers wait for each other must not throw between.
    void run(const std::function<void(int)> &job);
    Barrier &barrier() { return barrier_; }

private:
    void work(int worker);
    void do_share(const std::function<void(int)> &job, int worker) noexcept;
    void end_workers();

    const int threads_;
    const std::vector<int> allowed_, processors_;
    Barrier barrier_;
    std::atomic<uint32_t> epoch_{0};
    std::atomic<int> sleepers_{0};
    std::atomic<bool> stop_{false};
    const std::function<void(int)> *job_ = nullptr;
    FirstFailure failure_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
};

// Borrows an idle pool of the process for one run, so that programs used in turn share hot threads and
// programs used at once each have their own; and, to pin, as many processors as no other lease holds. Where
// fewer are left, the run is bound to none.
class PoolLease {
public:
    PoolLease(int threads, bool pin);
    ~PoolLease();
    PoolLease(const PoolLease &) = delete;
    PoolLease &operator=(const PoolLease &) = delete;
    Pool &operator*() const { return *pool_; }
    Pool *operator->() const { return pool_.get(); }
    // One per worker; empty where they are not bound.
    const std::vector<int> &processors() const { return processors_; }

private:
    std::vector<int> processors_;
    std::unique_ptr<Pool> pool_;
};

// Programs alive: when the last one goes, idle pools end.
void retain_pools();
void release_pools();

// For as long as it lives: denormals are zero, and the thread is bound to the first processor of a lease.
class CallerState {
public:
    explicit CallerState(const PoolLease &lease);
    ~CallerState();
    CallerState(const CallerState &) = delete;
    CallerState &operator=(const CallerState &) = delete;

private:
    bool pinned_ = false;
    cpu_set_t affinity_;
    uint64_t float_mode_;
};

// Steady clock, nanoseconds.
int64_t now_ns();

// Tasks of one step, cut into one run of neighbours per worker by cost; a worker that is done with its own
// run takes tasks from the others'. Which worker runs a task never changes its result.
//
// Neighbours share data: operators order tasks such that a worker's run is, where it can be, the same part
// of the image as its run of the step before, whose outputs lie in that worker's caches. Processors that
// share no cache take as long to fetch a line from each other as to compute on it.
class TaskQueue {
public:
    TaskQueue(const std::vector<int64_t> &costs, int threads);
    // Workers take others' tasks only where at least this many wait: for tasks that prepare something
    // which the next task of the same worker uses again.
    void take_only_from(int waiting) { least_waiting_ = waiting; }
    // The next task for this worker, or -1. Finished runs are rewound by their owner through rewind().
    int next(int worker);
    void rewind(int worker);
    int count() const { return count_; }
    // The tasks that are this worker's own: from the first to behind the last.
    std::pair<int, int> run_of(int worker) const {
        const Run &run = runs_[static_cast<std::size_t>(worker)];
        return {run.begin, run.end};
    }

private:
    struct alignas(64) Run {
        std::atomic<int> next{0};
        int begin = 0, end = 0;
    };
    int count_;
    int threads_;
    int least_waiting_ = 1;
    std::unique_ptr<Run[]> runs_;
};

}  // namespace autosparse
