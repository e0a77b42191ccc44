// The methods by which kernels compute a convolution, and what sets them apart outside their loops.
#pragma once

#include <cstddef>

namespace autosparse {

enum class Method { px, oc, wg, wf, mx, wp };

// What the two numbers of a row of variants.inc count.
enum class Unit { one, vector, matrix };

// Winograd's filtering: inputs and outputs per side of a tile, kernel positions along an axis.
struct Filtering {
    int in, out, taps;
};

struct MethodFacts {
    const char *name;
    Unit outputs, pixels;  // of a register tile
    Filtering filtering;   // all zero for methods that multiply directly
    int window, stride;    // of the convolutions that it runs, without dilation; 0 for all
};

// By Method.
constexpr MethodFacts kMethods[] = {
    {"px", Unit::one, Unit::vector, {0, 0, 0}, 0, 0},    {"oc", Unit::vector, Unit::one, {0, 0, 0}, 0, 0},
    {"wg", Unit::one, Unit::vector, {4, 2, 3}, 3, 1},    {"wf", Unit::one, Unit::vector, {6, 4, 3}, 3, 1},
    {"mx", Unit::matrix, Unit::matrix, {0, 0, 0}, 0, 0}, {"wp", Unit::one, Unit::vector, {7, 4, 4}, 7, 2}};

constexpr std::size_t kMethodCount = sizeof kMethods / sizeof *kMethods;
constexpr const MethodFacts &facts_of(Method method) { return kMethods[static_cast<int>(method)]; }
constexpr const Filtering &filtering_of(Method method) { return facts_of(method).filtering; }

// Pixels of a row, and outputs, of a matrix tile.
constexpr int kMatrixSide = 16;

// How many of one element a tile of `count` units has.
constexpr int elements_of(Unit unit, int count, int lanes) {
    return count * (unit == Unit::vector ? lanes : unit == Unit::matrix ? kMatrixSide : 1);
}

}  // namespace autosparse
