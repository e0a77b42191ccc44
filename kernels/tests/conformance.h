// The parts of the conformance runner.
#pragma once

#include <string>

namespace harness {

// Which rows of the kernel table shall be checked.
struct Selection {
    std::string text;  // in the name; empty for all
    int every = 1;     // every n-th of those that this machine can run
    bool takes(const std::string &name) const { return name.find(text) != std::string::npos; }
};

// Checks the rows that this machine can run; returns how many those were.
int check_kernel_table(const Selection &selection);
// Checks all other operators at one instruction set after the other; returns how many sets those were.
int check_operators();
// Checks that broken arguments are refused.
void check_refusals();

}  // namespace harness
