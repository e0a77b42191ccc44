// Which processors a run is bound to. The runs of a process share them out: no two are bound to the same
// one.
#pragma once

#include <sched.h>

#include <vector>

namespace autosparse {

// The processors that this thread may run on: one of each core, then the others; ascending in both parts.
std::vector<int> allowed_processors();

// Binds this thread to one processor; false where the system refuses.
bool bind_to(int processor);

// Who of this process is bound where. Not for several threads at once: its owner locks.
class BoundProcessors {
public:
    bool are_free(const std::vector<int> &processors) const;
    // `count` of the allowed that nobody is bound to, the one that this thread runs on first and whole
    // cores before halves; empty where fewer are left.
    std::vector<int> choose(const std::vector<int> &allowed, int count) const;
    void take(const std::vector<int> &processors);
    void give_back(const std::vector<int> &processors);
    void clear() { CPU_ZERO(&bound_); }

private:
    cpu_set_t bound_ = {};
};

}  // namespace autosparse
