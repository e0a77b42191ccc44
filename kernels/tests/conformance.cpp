// Runs everything that the library promises against definitions in float64, through the public interface.
//
//     conformance [--only TEXT] [--every N] [--no-operators]
//
// --only takes the kernels with TEXT in their name, --every each N-th row of the kernel table.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "conformance.h"
#include "harness.h"

namespace {

struct Options {
    harness::Selection selection;
    bool runs_operators = true;
};

[[noreturn]] void explain(const char *reason, const char *argument) {
    std::fprintf(stderr,
                 "conformance: %s %s\nusage: conformance [--only TEXT] [--every N] [--no-operators]\n",
                 reason, argument);
    std::exit(2);
}

Options parse(int count, char **arguments) {
    Options options;
    for (int i = 1; i < count; ++i) {
        const char *name = arguments[i];
        if (std::strcmp(name, "--no-operators") == 0) {
            options.runs_operators = false;
            continue;
        }
        if (i + 1 == count) explain("no such flag, or no value for it:", name);
        const char *value = arguments[++i];
        if (std::strcmp(name, "--only") == 0)
            options.selection.text = value;
        else if (std::strcmp(name, "--every") == 0)
            options.selection.every = std::atoi(value);
        else
            explain("no such flag:", name);
    }
    if (options.selection.every < 1) explain("--every must be at least", "1");
    return options;
}

}  // namespace

int main(int count, char **arguments) {
    const Options options = parse(count, arguments);
    const int rows = harness::check_kernel_table(options.selection);
    const int levels = options.runs_operators ? harness::check_operators() : 0;
    if (options.runs_operators) harness::check_refusals();
    std::printf("%d kernels, operators at %d instruction sets: %d failures\n", rows, levels,
                harness::failures());
    if (rows == 0)
        explain("no kernel that this machine can run has in its name:", options.selection.text.c_str());
    return harness::failures() ? 1 : 0;
}
