#include "executor/processors.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>

namespace autosparse {
namespace {

// Lowest processor of every processor's core; its own number where the system does not say.
const std::array<int, CPU_SETSIZE> &cores() {
    static const std::array<int, CPU_SETSIZE> found = [] {
        std::array<int, CPU_SETSIZE> first{};
        for (int i = 0; i < CPU_SETSIZE; ++i) {
            first[static_cast<std::size_t>(i)] = i;
            const std::string path =
                "/sys/devices/system/cpu/cpu" + std::to_string(i) + "/topology/thread_siblings_list";
            std::FILE *file = std::fopen(path.c_str(), "re");
            if (!file) continue;  // no such processor, or one that is off
            int lowest = i;
            if (std::fscanf(file, "%d", &lowest) == 1 && lowest >= 0 && lowest < CPU_SETSIZE)
                first[static_cast<std::size_t>(i)] = lowest;
            std::fclose(file);
        }
        return first;
    }();
    return found;
}

int core_of(int processor) { return cores()[static_cast<std::size_t>(processor)]; }

}  // namespace

std::vector<int> allowed_processors() {
    std::vector<int> first, others;
    cpu_set_t set, seen;
    CPU_ZERO(&seen);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return {};
    for (int i = 0; i < CPU_SETSIZE; ++i) {
        if (!CPU_ISSET(i, &set)) continue;
        (CPU_ISSET(core_of(i), &seen) ? others : first).push_back(i);
        CPU_SET(core_of(i), &seen);
    }
    first.insert(first.end(), others.begin(), others.end());
    return first;
}

bool bind_to(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0;
}

bool BoundProcessors::are_free(const std::vector<int> &processors) const {
    return std::none_of(processors.begin(), processors.end(), [&](int i) { return CPU_ISSET(i, &bound_); });
}

std::vector<int> BoundProcessors::choose(const std::vector<int> &allowed, int count) const {
    cpu_set_t busy;  // cores
    CPU_ZERO(&busy);
    for (int i : allowed)
        if (CPU_ISSET(i, &bound_)) CPU_SET(core_of(i), &busy);
    // From where this thread is: the system has spread threads over processors, those of other processes
    // too.
    const auto here = std::find(allowed.begin(), allowed.end(), sched_getcpu());
    const std::size_t start = here == allowed.end() ? 0 : static_cast<std::size_t>(here - allowed.begin());
    std::vector<int> chosen;
    for (const bool may_share_core : {false, true})
        for (std::size_t i = 0; i < allowed.size() && static_cast<int>(chosen.size()) < count; ++i) {
            const int processor = allowed[(start + i) % allowed.size()];
            const bool is_taken = CPU_ISSET(processor, &bound_) ||
                                  std::find(chosen.begin(), chosen.end(), processor) != chosen.end();
            if (is_taken || (!may_share_core && CPU_ISSET(core_of(processor), &busy))) continue;
            chosen.push_back(processor);
            CPU_SET(core_of(processor), &busy);
        }
    if (static_cast<int>(chosen.size()) < count) chosen.clear();
    return chosen;
}

void BoundProcessors::take(const std::vector<int> &processors) {
    for (int i : processors) CPU_SET(i, &bound_);
}

void BoundProcessors::give_back(const std::vector<int> &processors) {
    for (int i : processors) CPU_CLR(i, &bound_);
}

}  // namespace autosparse
