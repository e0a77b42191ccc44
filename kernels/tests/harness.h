// What the native tests share: programs that free themselves, arrays between guards, and failures that say
// in which situation they came about.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "autosparse.h"

namespace harness {

// A rule of the library that did not hold.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A call that the library refused, with its message.
struct Refusal : Failure {
    using Failure::Failure;
};

// Throws Failure unless `condition` holds.
void expect(bool condition, const std::string &rule);

// Runs `body`; where it fails, prints the situation with the reason and counts it.
template <class Body>
void in_situation(const std::string &situation, Body &&body);
void count_failure(const std::string &situation, const std::string &reason);
int failures();

template <class Body>
void in_situation(const std::string &situation, Body &&body) {
    try {
        body();
    } catch (const std::exception &error) {
        count_failure(situation, error.what());
    }
}

struct Extents {
    int batch = 1, channels = 1, height = 1, width = 1;
    std::size_t count() const {
        return static_cast<std::size_t>(batch) * static_cast<std::size_t>(channels) *
               static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
    }
    std::string text() const;
};

// Type of a tensor in the arena; the arrays at the borders are float32.
enum class Type { f32, bf16 };

// The type in which the kernel of a row computes.
Type type_of(const as_kernel_info &row);

// What a tensor of `type` holds where `values` were given; bf16 rounds to nearest even.
std::vector<float> as_type(std::vector<float> values, Type type);

// A program, freed with its owner. Calls that fail throw Refusal.
class Program {
public:
    explicit Program(int threads, bool pin = false);
    ~Program();
    Program(const Program &) = delete;
    Program &operator=(const Program &) = delete;

    int tensor(const Extents &extents, Type type = Type::f32);
    int input(const Extents &extents, Type type = Type::f32);
    void output(int tensor);
    void op(const as_op &op);
    void finish();
    void run(const std::vector<const float *> &inputs, const std::vector<float *> &outputs);
    as_program *get() const { return program_; }

private:
    as_program *program_;
};

// An operator with nothing set but what every operator needs.
as_op plain_op(int kind, const std::vector<int> &inputs, int output);

// A caller's array between two pages that must not be touched. It ends right at the second page, or begins
// a few elements behind the first; the rest of its own pages holds a pattern that nobody may change.
class Guarded {
public:
    enum class Place { at_end, after_start };
    Guarded(std::size_t floats, Place place);
    ~Guarded();
    Guarded(const Guarded &) = delete;
    Guarded &operator=(const Guarded &) = delete;

    float *data() const { return data_; }
    std::size_t size() const { return floats_; }
    void fill(float value);
    void copy(const std::vector<float> &values);
    // Throws Failure where a neighbour changed.
    void check_neighbours() const;

private:
    unsigned char *pages_;
    std::size_t page_bytes_, inner_bytes_;
    float *data_;
    std::size_t floats_;
};

// Deterministic draws.
class Random {
public:
    explicit Random(uint32_t seed) : engine_(seed) {}
    std::vector<float> normal(std::size_t count, float scale = 1.0f);
    int below(int limit) { return static_cast<int>(engine_() % static_cast<uint32_t>(limit)); }
    // `count` of 0 .. limit - 1, ascending.
    std::vector<int32_t> some_of(int limit, int count);

private:
    std::mt19937 engine_;
};

}  // namespace harness
