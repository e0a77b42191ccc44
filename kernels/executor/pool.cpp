#include "executor/pool.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "executor/processors.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace autosparse {
namespace {

constexpr int kIdleSpins = 4000;     // some tens of microseconds before a waiting worker goes to sleep
constexpr int kBarrierSpins = 4000;  // before a worker at a barrier lets others run

void pause_briefly() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// Flushes denormals to zero on this thread; returns the former mode.
uint64_t flush_denormals() {
#if defined(__x86_64__)
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040u);  // FTZ and DAZ
    return mode;
#elif defined(__aarch64__)
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" : : "r"(mode | (uint64_t{1} << 24)));
    return mode;
#else
    return 0;
#endif
}

void restore_float_mode(uint64_t mode) {
#if defined(__x86_64__)
    _mm_setcsr(static_cast<unsigned>(mode));
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
#else
    (void)mode;
#endif
}

struct PoolShelf {
    std::mutex mutex;
    std::vector<std::unique_ptr<Pool>> idle;
    BoundProcessors bound;
    int programs = 0;
    pid_t process = getpid();
};

PoolShelf &shelf();

// Never destroyed: threads may outlive static destructors. A child that is forked while another thread
// holds the lock would find it locked for ever, so forks hold it themselves.
PoolShelf &make_shelf() {
    PoolShelf &made = *new PoolShelf;
    const auto unlock = [] { shelf().mutex.unlock(); };
    pthread_atfork([] { shelf().mutex.lock(); }, unlock, unlock);
    return made;
}

PoolShelf &shelf() {
    static PoolShelf &instance = make_shelf();
    return instance;
}

// A forked child has this process's pools but not their threads: forget them. Call with the lock held.
void forget_foreign_pools(PoolShelf &s) {
    if (s.process == getpid()) return;
    for (auto &pool : s.idle) pool.release();
    s.idle.clear();
    s.bound.clear();
    s.process = getpid();
}

// Takes an idle pool that `suits` off the shelf, if there is one, the last used first. Call with the lock
// held.
template <class Suits>
std::unique_ptr<Pool> take_idle(PoolShelf &s, Suits &&suits) {
    const auto found =
        std::find_if(s.idle.rbegin(), s.idle.rend(), [&](const auto &pool) { return suits(*pool); });
    if (found == s.idle.rend()) return nullptr;
    std::unique_ptr<Pool> pool = std::move(*found);
    s.idle.erase(std::next(found).base());
    return pool;
}

}  // namespace

int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

void Barrier::wait(int64_t *arrival_ns) {
    const uint32_t phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == count_ - 1) {
        arrived_.store(0, std::memory_order_relaxed);
        if (arrival_ns) *arrival_ns = now_ns();
        phase_.store(phase + 1, std::memory_order_release);
        return;
    }
    for (int spin = 0; phase_.load(std::memory_order_acquire) == phase; ++spin) {
        if (spin < kBarrierSpins)
            pause_briefly();
        else
            sched_yield();
    }
}

Pool::Pool(int threads, std::vector<int> allowed, std::vector<int> processors)
    : threads_(threads),
      allowed_(std::move(allowed)),
      processors_(std::move(processors)),
      barrier_(threads) {
    workers_.reserve(static_cast<std::size_t>(threads - 1));
    try {
        for (int worker = 1; worker < threads; ++worker)
            workers_.emplace_back([this, worker] { work(worker); });
    } catch (const std::system_error &error) {
        end_workers();
        throw std::runtime_error("the system must start " + std::to_string(threads - 1) +
                                 " worker threads, but started " + std::to_string(workers_.size()) + ": " +
                                 error.what());
    }
}

Pool::~Pool() { end_workers(); }

void Pool::end_workers() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stop_.store(true);
    }
    wake_.notify_all();
    for (auto &thread : workers_) thread.join();
}

void Pool::work(int worker) {
    if (is_bound()) bind_to(processors_[static_cast<std::size_t>(worker)]);
    flush_denormals();
    uint32_t seen = 0;
    for (;;) {
        for (int spin = 0; spin < kIdleSpins && epoch_.load() == seen && !stop_.load(); ++spin)
            pause_briefly();
        if (epoch_.load() == seen) {
            std::unique_lock<std::mutex> lock(mutex_);
            sleepers_.fetch_add(1);
            wake_.wait(lock, [&] { return epoch_.load() != seen || stop_.load(); });
            sleepers_.fetch_sub(1);
        }
        if (stop_.load()) return;
        seen = epoch_.load();
        do_share(*job_, worker);
    }
}

void Pool::do_share(const std::function<void(int)> &job, int worker) noexcept {
    try {
        job(worker);
    } catch (...) {
        failure_.keep();
    }
    if (threads_ > 1) barrier_.wait();
}

void Pool::run(const std::function<void(int)> &job) {
    if (threads_ > 1) {
        job_ = &job;
        epoch_.fetch_add(1);
        if (sleepers_.load() > 0) {
            std::lock_guard<std::mutex> lock(mutex_);
            wake_.notify_all();
        }
    }
    do_share(job, 0);
    failure_.rethrow();
}

PoolLease::PoolLease(int threads, bool pin) {
    PoolShelf &s = shelf();
    const std::vector<int> allowed = allowed_processors();
    std::unique_ptr<Pool> ended;  // when the lock is free again
    {
        std::lock_guard<std::mutex> lock(s.mutex);
        forget_foreign_pools(s);
        // Threads of a bound pool are where its processors are. One thread is the caller alone, and can be
        // anywhere.
        if (pin && threads > 1) {
            pool_ = take_idle(s, [&](const Pool &pool) {
                return pool.suits(threads, true, allowed) && s.bound.are_free(pool.processors());
            });
            if (pool_) processors_ = pool_->processors();
        }
        if (pin && !pool_) {
            processors_ = s.bound.choose(allowed, threads);
            // Those that wait for processors which others have now shall not become ever more.
            if (threads > 1 && !processors_.empty())
                ended = take_idle(s, [&](const Pool &pool) { return pool.suits(threads, true, allowed); });
        }
        s.bound.take(processors_);
        if (!pool_ && (threads == 1 || processors_.empty()))
            pool_ = take_idle(s, [&](const Pool &pool) { return pool.suits(threads, false, allowed); });
    }
    if (pool_) return;
    try {
        pool_ = std::make_unique<Pool>(threads, allowed, threads == 1 ? std::vector<int>() : processors_);
    } catch (...) {
        std::lock_guard<std::mutex> lock(s.mutex);
        s.bound.give_back(processors_);
        throw;
    }
}

PoolLease::~PoolLease() {
    PoolShelf &s = shelf();
    std::lock_guard<std::mutex> lock(s.mutex);
    s.bound.give_back(processors_);
    try {
        if (s.programs > 0) s.idle.push_back(std::move(pool_));
    } catch (const std::bad_alloc &) {  // then it ends here
    }
}

void retain_pools() {
    PoolShelf &s = shelf();
    std::lock_guard<std::mutex> lock(s.mutex);
    ++s.programs;
}

void release_pools() {
    PoolShelf &s = shelf();
    std::vector<std::unique_ptr<Pool>> ending;
    std::lock_guard<std::mutex> lock(s.mutex);
    forget_foreign_pools(s);
    if (--s.programs == 0) ending.swap(s.idle);
}

CallerState::CallerState(const PoolLease &lease) : float_mode_(flush_denormals()) {
    if (lease.processors().empty() || sched_getaffinity(0, sizeof affinity_, &affinity_) != 0) return;
    pinned_ = bind_to(lease.processors().front());
}

CallerState::~CallerState() {
    if (pinned_) sched_setaffinity(0, sizeof affinity_, &affinity_);
    restore_float_mode(float_mode_);
}

TaskQueue::TaskQueue(const std::vector<int64_t> &costs, int threads)
    : count_(static_cast<int>(costs.size())),
      threads_(threads),
      runs_(new Run[static_cast<std::size_t>(threads)]) {
    int64_t total = 0;
    for (int64_t cost : costs) total += cost;
    int64_t before = 0;
    int task = 0;
    for (int worker = 0; worker < threads; ++worker) {
        Run &run = runs_[static_cast<std::size_t>(worker)];
        run.begin = task;
        const int64_t goal = total * (worker + 1) / threads;
        // A task belongs to the worker in whose share its middle lies.
        while (task < count_ &&
               (worker == threads - 1 || before + costs[static_cast<std::size_t>(task)] / 2 < goal))
            before += costs[static_cast<std::size_t>(task++)];
        run.end = task;
        run.next.store(run.begin);
    }
}

int TaskQueue::next(int worker) {
    for (int i = 0; i < threads_; ++i) {
        Run &run = runs_[static_cast<std::size_t>((worker + i) % threads_)];
        const int least = i == 0 ? 1 : least_waiting_;
        if (run.end - run.next.load(std::memory_order_relaxed) < least) continue;
        const int task = run.next.fetch_add(1, std::memory_order_relaxed);
        if (task < run.end) return task;
    }
    return -1;
}

void TaskQueue::rewind(int worker) {
    Run &run = runs_[static_cast<std::size_t>(worker)];
    run.next.store(run.begin, std::memory_order_relaxed);
}

}  // namespace autosparse
