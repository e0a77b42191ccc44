// One block of a GPU at a time, or one cluster of blocks: their threads as fibers, their shared memory,
// and what is on its way.
//
// A thread runs until it has to wait for others. `Policy` says who runs first, and which of the things
// that nobody waits for yet are done at once, or as late as they may be: 16-byte copies, bulk copies,
// products of four warps. What is late shows a missing wait for it; what is early shows that it
// overwrites, or reads, too soon. All that the manual leaves undefined stops the run.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace machine {

constexpr unsigned BASE = 1024;  // of shared memory: what the driver keeps lies below
constexpr unsigned STACK_BYTES = 1 << 17;

struct Policy {
    bool early_copies, early_bulk, early_products, last_thread_first;
};

struct Copy {
    unsigned to;
    const void* from;
    unsigned bytes, filled;  // of which so many are read, the rest are zeros
};

struct Block;

struct Fiber {
    Block* block = nullptr;
    int thread = 0;
    ucontext_t start;
    jmp_buf at;
    std::unique_ptr<char[]> stack;
    bool is_started = false, is_done = false, is_fenced = false;
    const unsigned long long* watched = nullptr;  // it waits until this number is another
    unsigned long long seen = 0;
    std::vector<Copy> copies;               // not committed yet
    std::vector<std::vector<Copy>> groups;  // committed, oldest first
    std::vector<Copy> written;              // not fenced yet
};

// Threads that do one thing together: the last to come does it for all.
struct Meeting {
    int arrived = 0;
    unsigned long long turns = 0;
    std::vector<const void*> given;
    const char* what = "";
};

struct Barrier {
    int count = 0, pending = 0;
    long bytes = 0;
    unsigned long long phase = 0;
};

struct Block {
    int index = 0, grid = 0, threads = 0;
    Policy policy;
    std::vector<unsigned char> shared;
    std::vector<int> unfenced;  // thread + 1 that wrote a byte by the generic proxy since its last fence
    std::vector<Fiber> fibers;
    std::map<int, Meeting> meetings;
    std::map<unsigned, Barrier> barriers;
    std::vector<std::pair<Copy, unsigned>> bulk;  // on their way to it, and the barrier that counts them
    std::map<int, std::vector<std::function<void()>>> products;               // of four warps, not committed
    std::map<int, std::vector<std::vector<std::function<void()>>>> committed;  // oldest first
};

inline std::vector<std::unique_ptr<Block>> cluster;
inline Meeting cluster_meeting;
inline Block* block = nullptr;  // of the fiber that runs
inline Fiber* fiber = nullptr;
inline jmp_buf scheduler;
inline std::string fault;

[[noreturn]] inline void stop(const std::string& why) {
    if (fault.empty()) {
        fault = "block " + std::to_string(block->index);
        if (fiber) fault += ", thread " + std::to_string(fiber->thread);
        fault += ": " + why;
    }
    if (fiber) _longjmp(scheduler, 1);
    throw std::string(fault);
}

inline void check(bool holds, const char* rule) {
    if (!holds) stop(rule);
}

inline void wait_for_change(const unsigned long long& number) {
    fiber->watched = &number;
    fiber->seen = number;
    if (!_setjmp(fiber->at)) _longjmp(scheduler, 1);
}

// Places to meet: a warp's, that of four warps, the block's, and those with names.
inline int warp_place() { return fiber->thread / 32; }
inline int warps_place() { return 100 + fiber->thread / 128; }
constexpr int BLOCK_PLACE = 200, NAMED_PLACES = 300;

inline void meet_at(Meeting& meeting, int at, int count, const char* what, const void* given,
                    const std::function<void(const std::vector<const void*>&)>& act) {
    if (meeting.arrived == 0) meeting.what = what;
    if (std::strcmp(meeting.what, what)) stop(std::string(what) + " while others are at " + meeting.what);
    meeting.given.resize(count);
    meeting.given[at] = given;
    if (++meeting.arrived < count) return wait_for_change(meeting.turns);
    meeting.arrived = 0;
    ++meeting.turns;
    if (act) act(meeting.given);
}

inline void meet(int where, int count, const char* what, const void* given,
                 const std::function<void(const std::vector<const void*>&)>& act) {
    Meeting& meeting = block->meetings[where];
    meet_at(meeting, where < BLOCK_PLACE ? fiber->thread % count : meeting.arrived, count, what, given, act);
}

// ------------------------------------------------------------------------------------- shared memory

inline unsigned char* shared_at(unsigned address, unsigned bytes, unsigned aligned) {
    check(address % aligned == 0, "an address of shared memory that is not aligned");
    check(address >= BASE && address + bytes <= BASE + block->shared.size(), "outside of shared memory");
    return &block->shared[address - BASE];
}

template <class T>
T loaded(unsigned address) {
    T value;
    std::memcpy(&value, shared_at(address, sizeof(T), sizeof(T)), sizeof(T));
    return value;
}

inline void mark(unsigned address, unsigned bytes, int by) {
    std::fill_n(&block->unfenced[address - BASE], bytes, by);
}

inline void wrote(unsigned address, unsigned bytes) {
    fiber->written.push_back({address, nullptr, bytes, 0});
    mark(address, bytes, fiber->thread + 1);
}

template <class T>
void store(unsigned address, const T& value) {
    std::memcpy(shared_at(address, sizeof(T), sizeof(T)), &value, sizeof(T));
    wrote(address, sizeof(T));
}

inline void perform(const Copy& copy) {
    unsigned char* to = shared_at(copy.to, copy.bytes, 16);
    std::memset(to, 0, copy.bytes);
    if (copy.filled) std::memcpy(to, copy.from, copy.filled);
}

// ------------------------------------------------------------------------------------------- barriers

inline Barrier& barrier_at(unsigned address) {
    check(block->barriers.count(address), "a barrier that nobody has made");
    return block->barriers[address];
}

inline void settle(Barrier& barrier) {
    check(barrier.pending >= 0, "more arrive at a barrier than it counts");
    if (barrier.pending || barrier.bytes) return;
    barrier.pending = barrier.count;
    ++barrier.phase;
}

inline bool has_ended(const Block& each) {
    for (const Fiber& thread : each.fibers)
        if (!thread.is_done) return false;
    return true;
}

// Does something as another block of the cluster would.
template <class Act>
void as_block(int rank, const Act& act) {
    check(rank < static_cast<int>(cluster.size()), "a cluster has no such block");
    Block* mine = block;
    block = cluster[rank].get();
    check(!has_ended(*block), "a block that has ended is written to");
    act();
    block = mine;
}

inline void perform_bulk(const Copy& copy, unsigned address) {
    perform(copy);
    mark(copy.to, copy.bytes, 0);
    Barrier& barrier = barrier_at(address);
    barrier.bytes -= copy.bytes;
    settle(barrier);
}

inline void start_bulk(const Copy& copy, unsigned barrier) {
    shared_at(copy.to, copy.bytes, 16);
    if (block->policy.early_bulk) {
        perform_bulk(copy, barrier);
    } else {
        block->bulk.push_back({copy, barrier});
    }
}

// ------------------------------------------------------------------------------------------ scheduling

inline bool can_run(const Fiber& each) {
    return !each.is_done && (!each.watched || *each.watched != each.seen);
}

inline Fiber* next_to_run() {
    const int blocks = static_cast<int>(cluster.size()), count = cluster[0]->threads;
    for (int at = 0; at < blocks * count; ++at) {
        const int number = cluster[0]->policy.last_thread_first ? blocks * count - 1 - at : at;
        Fiber& each = cluster[number / count]->fibers[number % count];
        if (can_run(each)) return &each;
    }
    return nullptr;
}

inline bool bulk_arrives() {
    for (int rank = 0; rank < static_cast<int>(cluster.size()); ++rank) {
        auto& bulk = cluster[rank]->bulk;
        if (bulk.empty()) continue;
        const auto [copy, barrier] = bulk.front();
        bulk.erase(bulk.begin());
        as_block(rank, [&, copy = copy, barrier = barrier] { perform_bulk(copy, barrier); });
        return true;
    }
    return false;
}

// False once nobody can go on and nothing is on its way.
inline bool advance() {
    fiber = next_to_run();
    if (!fiber) return bulk_arrives();
    block = fiber->block;
    fiber->watched = nullptr;
    if (!_setjmp(scheduler)) {
        if (fiber->is_started) _longjmp(fiber->at, 1);
        fiber->is_started = true;
        setcontext(&fiber->start);
    }
    return fault.empty();
}

using Kernel = void (*)(const void*);
inline Kernel kernel;
inline const void* arguments;

inline void begin() {
    kernel(arguments);
    for (const auto& group : fiber->groups) check(group.empty(), "a thread ends while copies are on their way");
    check(fiber->copies.empty(), "a thread ends with copies that it did not commit");
    fiber->is_done = true;
    _longjmp(scheduler, 1);
}

inline void make_block(int index, int grid, int threads, unsigned shared, Policy policy) {
    cluster.push_back(std::make_unique<Block>());
    block = cluster.back().get();
    block->index = index;
    block->grid = grid;
    block->threads = threads;
    block->policy = policy;
    block->shared.assign(shared, 0xff);  // NaN in every type
    block->unfenced.assign(shared, 0);
    block->fibers = std::vector<Fiber>(threads);
    for (int thread = 0; thread < threads; ++thread) {
        Fiber& each = block->fibers[thread];
        each.block = block;
        each.thread = thread;
        each.stack.reset(new char[STACK_BYTES]);
        getcontext(&each.start);
        each.start.uc_stack.ss_sp = each.stack.get();
        each.start.uc_stack.ss_size = STACK_BYTES;
        makecontext(&each.start, begin, 0);
    }
}

inline void check_ended() {
    fiber = nullptr;
    for (const auto& each : cluster) {
        block = each.get();
        for (const Fiber& thread : block->fibers)
            if (!thread.is_done) stop("thread " + std::to_string(thread.thread) + " waits for ever");
        for (const auto& [place, products] : block->products)
            check(products.empty() && block->committed[place].empty(), "products that nobody waits for");
    }
}

// Runs the clusters of a grid one after another. Gives what went wrong, or nothing.
inline std::string run(Kernel what, const void* with, int grid, int blocks, int threads, unsigned shared,
                       Policy policy) {
    kernel = what;
    arguments = with;
    fault.clear();
    for (int first = 0; first < grid && fault.empty(); first += blocks) {
        cluster.clear();
        cluster_meeting = {};
        for (int rank = 0; rank < blocks; ++rank) make_block(first + rank, grid, threads, shared, policy);
        try {
            while (advance()) continue;
            if (fault.empty()) check_ended();
        } catch (const std::string&) {
        }
    }
    return fault;
}

}  // namespace machine
