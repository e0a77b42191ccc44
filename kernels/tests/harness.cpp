#include "harness.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <numeric>

namespace harness {
namespace {

std::atomic<int> failure_count{0};

// Floats between the first page's end and an array that lies there: not aligned to any vector.
constexpr std::size_t kShift = 1;
constexpr unsigned char kPattern = 0xa5;

float rounded_to_bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value == value) bits += 0x7fffu + ((bits >> 16) & 1u);
    bits &= 0xffff0000u;
    std::memcpy(&value, &bits, sizeof bits);
    return value;
}

void must(int status) {
    if (status < 0) throw Refusal("status " + std::to_string(status) + ": " + as_last_error());
}

}  // namespace

void expect(bool condition, const std::string &rule) {
    if (!condition) throw Failure(rule);
}

void count_failure(const std::string &situation, const std::string &reason) {
    failure_count.fetch_add(1);
    std::printf("FAILED %s: %s\n", situation.c_str(), reason.c_str());
    std::fflush(stdout);
}

int failures() { return failure_count.load(); }

std::string Extents::text() const {
    return std::to_string(batch) + "x" + std::to_string(channels) + "x" + std::to_string(height) + "x" +
           std::to_string(width);
}

Type type_of(const as_kernel_info &row) {
    return std::string(row.dtype) == "bf16" ? Type::bf16 : Type::f32;
}

std::vector<float> as_type(std::vector<float> values, Type type) {
    if (type == Type::bf16)
        for (float &value : values) value = rounded_to_bf16(value);
    return values;
}

Program::Program(int threads, bool pin) : program_(as_program_new(threads, pin)) {
    if (!program_) throw Refusal(as_last_error());
}

Program::~Program() { as_program_free(program_); }

int Program::tensor(const Extents &extents, Type type) {
    const int32_t shape[4] = {extents.batch, extents.channels, extents.height, extents.width};
    const int id = as_program_tensor(program_, shape, type == Type::bf16 ? AS_BF16 : AS_F32);
    must(id);
    return id;
}

int Program::input(const Extents &extents, Type type) {
    const int id = tensor(extents, type);
    must(as_program_input(program_, id));
    return id;
}

void Program::output(int tensor) { must(as_program_output(program_, tensor)); }

void Program::op(const as_op &op) { must(as_program_op(program_, &op)); }

void Program::finish() { must(as_program_finish(program_)); }

void Program::run(const std::vector<const float *> &inputs, const std::vector<float *> &outputs) {
    must(as_program_run(program_, inputs.data(), outputs.data()));
}

as_op plain_op(int kind, const std::vector<int> &inputs, int output) {
    as_op op{};
    op.kind = kind;
    op.input_count = static_cast<int32_t>(inputs.size());
    std::copy(inputs.begin(), inputs.end(), op.inputs);
    op.output = output;
    op.residual = -1;
    op.kernel = AS_KERNEL_ANY;
    op.kernel_h = op.kernel_w = op.stride_h = op.stride_w = op.dilation_h = op.dilation_w = 1;
    op.groups = 1;
    return op;
}

Guarded::Guarded(std::size_t floats, Place place)
    : page_bytes_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))), floats_(floats) {
    const std::size_t bytes = (floats + kShift) * sizeof(float);
    inner_bytes_ = (bytes + page_bytes_ - 1) / page_bytes_ * page_bytes_;
    void *memory =
        mmap(nullptr, inner_bytes_ + 2 * page_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    expect(memory != MAP_FAILED, "the test needs memory");
    pages_ = static_cast<unsigned char *>(memory);
    unsigned char *inner = pages_ + page_bytes_;
    expect(mprotect(inner, inner_bytes_, PROT_READ | PROT_WRITE) == 0, "the test needs mprotect");
    std::memset(inner, kPattern, inner_bytes_);
    const std::size_t before =
        place == Place::at_end ? inner_bytes_ - floats * sizeof(float) : kShift * sizeof(float);
    data_ = reinterpret_cast<float *>(inner + before);
}

Guarded::~Guarded() { munmap(pages_, inner_bytes_ + 2 * page_bytes_); }

void Guarded::fill(float value) { std::fill_n(data_, floats_, value); }

void Guarded::copy(const std::vector<float> &values) {
    expect(values.size() == floats_, "the test must copy as many values as the array has");
    std::memcpy(data_, values.data(), floats_ * sizeof(float));
}

void Guarded::check_neighbours() const {
    const unsigned char *inner = pages_ + page_bytes_;
    const auto *begin = reinterpret_cast<const unsigned char *>(data_);
    const auto is_pattern = [](unsigned char byte) { return byte == kPattern; };
    expect(std::all_of(inner, begin, is_pattern) &&
               std::all_of(begin + floats_ * sizeof(float), inner + inner_bytes_, is_pattern),
           "bytes beside a caller's array changed");
}

std::vector<float> Random::normal(std::size_t count, float scale) {
    std::normal_distribution<float> draw(0.0f, scale);
    std::vector<float> values(count);
    for (float &value : values) value = draw(engine_);
    return values;
}

std::vector<int32_t> Random::some_of(int limit, int count) {
    std::vector<int32_t> all(static_cast<std::size_t>(limit));
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), engine_);
    all.resize(static_cast<std::size_t>(count));
    std::sort(all.begin(), all.end());
    return all;
}

}  // namespace harness
