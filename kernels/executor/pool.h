// Worker threads, and how the tasks of one step are shared among them.
#pragma once

#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
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

// Threads that wait for jobs: spinning for a moment (the next inference often follows at once), then
// asleep.
class Pool {
public:
    Pool(int threads, bool pin);
    ~Pool();
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;

    int threads() const { return threads_; }
    // Whether this pool is what a caller that may run on `processors` wants.
    bool suits(int threads, bool pin, const std::vector<int> &processors) const {
        return threads == threads_ && pin == pin_ && processors == processors_;
    }
    // Runs job(worker) on every worker; the caller is worker 0. Returns when all are done.
    void run(const std::function<void(int)> &job);
    Barrier &barrier() { return barrier_; }

private:
    void work(int worker);
    void end_workers();

    const int threads_;
    const bool pin_;
    Barrier barrier_;
    std::atomic<uint32_t> epoch_{0};
    std::atomic<int> sleepers_{0};
    std::atomic<bool> stop_{false};
    const std::function<void(int)> *job_ = nullptr;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
    std::vector<int> processors_;
};

// Borrows an idle pool of the process for one run, so that programs used in turn share hot threads and
// programs used at once each have their own.
class PoolLease {
public:
    PoolLease(int threads, bool pin);
    ~PoolLease();
    PoolLease(const PoolLease &) = delete;
    PoolLease &operator=(const PoolLease &) = delete;
    Pool &operator*() const { return *pool_; }
    Pool *operator->() const { return pool_.get(); }

private:
    std::unique_ptr<Pool> pool_;
};

// Programs alive: when the last one goes, idle pools end.
void retain_pools();
void release_pools();

// For as long as it lives: denormals are zero, and the thread is bound to the first processor it may use.
class CallerState {
public:
    explicit CallerState(bool pin);
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
