// Damages artifacts in every way that it can think of, and loads them: each must be refused with a message,
// or, where the hashes were made to fit again, be refused or run. Run it in a build with sanitizers.
//
//     artifact_fuzz FILE... [--rounds N]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "artifact/sha256.h"
#include "autosparse.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::size_t kLengthBytes = 8, kDigits = 64;
// Loading is what is tested; programs of more activations than this are not run.
constexpr std::int64_t kMostArena = std::int64_t{64} << 20;

int failures = 0;

void fail(const std::string &what) {
    ++failures;
    std::printf("FAILED %s\n", what.c_str());
}

std::uint64_t header_length(const Bytes &file) {
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < kLengthBytes; ++i) length |= std::uint64_t{file[i]} << (8 * i);
    return length;
}

// Puts the right digits behind `key`, if the header still has that key.
void put_digits(Bytes &file, std::size_t header_end, const std::string &key, const std::string &digits) {
    const std::string field = "\"" + key + "\":\"";
    const auto end = file.begin() + static_cast<std::ptrdiff_t>(header_end);
    const auto found = std::search(file.begin() + kLengthBytes, end, field.begin(), field.end());
    if (static_cast<std::size_t>(end - found) < field.size() + kDigits) return;
    std::copy(digits.begin(), digits.end(), found + static_cast<std::ptrdiff_t>(field.size()));
}

// Makes the hashes fit what the file has become.
void seal(Bytes &file) {
    if (file.size() < kLengthBytes) return;
    const std::uint64_t length = header_length(file);
    if (length > file.size() - kLengthBytes) return;
    const std::size_t end = kLengthBytes + static_cast<std::size_t>(length);
    put_digits(file, end, "data_sha256", autosparse::sha256(file.data() + end, file.size() - end));
    put_digits(file, end, "header_sha256", std::string(kDigits, '0'));
    put_digits(file, end, "header_sha256",
               autosparse::sha256(file.data() + kLengthBytes, end - kLengthBytes));
}

std::int64_t elements(const std::int32_t (&shape)[4]) {
    std::int64_t count = 1;
    for (std::int32_t extent : shape) count *= extent;
    return count;
}

void run(as_program *program) {
    if (as_program_arena_bytes(program) > kMostArena) return;
    std::vector<std::vector<float>> inputs, outputs;
    std::int32_t shape[4];
    for (int i = 0; i < as_program_input_count(program); ++i) {
        as_program_input_shape(program, i, shape);
        inputs.emplace_back(static_cast<std::size_t>(elements(shape)), 1.0f);
    }
    for (int i = 0; i < as_program_output_count(program); ++i) {
        as_program_output_shape(program, i, shape);
        outputs.emplace_back(static_cast<std::size_t>(elements(shape)));
    }
    std::vector<const float *> from;
    std::vector<float *> to;
    for (const auto &input : inputs) from.push_back(input.data());
    for (auto &output : outputs) to.push_back(output.data());
    if (as_program_run(program, from.data(), to.data()) != AS_OK)
        fail(std::string("run: ") + as_last_error());
}

// Tells whether the file was taken. A copy of exactly its size lets the sanitizer see every byte too far.
bool load(const Bytes &file) {
    const Bytes exact(file);
    as_program *program = as_program_load_memory(exact.data(), exact.size(), 1, 0);
    if (!program) {
        if (as_last_status() >= 0 || !*as_last_error()) fail("a refusal without status or message");
        return false;
    }
    run(program);
    as_program_free(program);
    return true;
}

void must_refuse(const Bytes &file, const std::string &what) {
    if (load(file)) fail(what + " was taken");
}

class Fuzz {
public:
    Fuzz(const Bytes &file, std::uint32_t seed) : file_(file), random_(seed) {}

    void truncate() const {
        for (std::size_t size = 0; size < file_.size(); size += size < 4096 ? 1 : 64)
            must_refuse(Bytes(file_.begin(), file_.begin() + static_cast<std::ptrdiff_t>(size)),
                        "a file cut to " + std::to_string(size) + " bytes");
        Bytes longer(file_);
        longer.push_back(0);
        must_refuse(longer, "a file with a byte too many");
    }

    void flip(int rounds) {
        const std::size_t step = std::max<std::size_t>(1, file_.size() / static_cast<std::size_t>(rounds));
        for (std::size_t at = below(step); at < file_.size(); at += step) {
            Bytes changed(file_);
            changed[at] ^= static_cast<std::uint8_t>(1u << below(8));
            must_refuse(changed, "a file with byte " + std::to_string(at) + " changed");
        }
    }

    // Headers of random length, of random bytes or of random pieces of JSON.
    void invent_headers(int rounds) {
        static const char *const pieces[] = {"{",
                                             "}",
                                             "[",
                                             "]",
                                             ":",
                                             ",",
                                             "\"",
                                             "\\u",
                                             "\\ud8",
                                             "\"F32\"",
                                             "12",
                                             "-1",
                                             "1e9",
                                             " ",
                                             "null",
                                             "\\",
                                             "\"a\"",
                                             "\"__metadata__\":{",
                                             "\"dtype\":",
                                             "\"shape\":[",
                                             "\"data_offsets\":[0,",
                                             "99999999999999999999"};
        for (int i = 0; i < rounds; ++i) {
            std::string header = "{";
            const std::size_t length = below(400);
            while (header.size() < length)
                if (i % 2)
                    header += static_cast<char>(below(256));
                else
                    header += pieces[below(std::size(pieces))];
            Bytes made(kLengthBytes);
            for (std::size_t b = 0; b < kLengthBytes; ++b)
                made[b] = static_cast<std::uint8_t>(std::uint64_t{header.size()} >> (8 * b));
            made.insert(made.end(), header.begin(), header.end());
            must_refuse(made, "an invented header");
        }
    }

    // Changes that the hashes do not tell: the loader's own checks must hold them.
    int reseal(int rounds) {
        int taken = 0;
        const std::size_t data = kLengthBytes + static_cast<std::size_t>(header_length(file_));
        for (int i = 0; i < rounds; ++i) {
            Bytes changed(file_);
            for (std::size_t n = 1 + below(3); n > 0; --n)
                if (i % 3 == 0)
                    change_header(changed, data);
                else
                    change_number(changed, data);
            seal(changed);
            taken += load(changed);
        }
        return taken;
    }

private:
    std::size_t below(std::size_t limit) { return static_cast<std::size_t>(random_()) % limit; }

    // A digit of the header, mostly: shapes and places.
    void change_header(Bytes &file, std::size_t end) {
        for (int tries = 0; tries < 1000; ++tries) {
            std::uint8_t &byte = file[kLengthBytes + below(end - kLengthBytes)];
            if (byte < '0' || byte > '9') continue;
            byte = static_cast<std::uint8_t>('0' + below(10));
            return;
        }
    }

    // An aligned int32 near the begin of the data, where the tables lie, becomes an interesting number.
    void change_number(Bytes &file, std::size_t data) {
        static const std::int32_t numbers[] = {
            0,       1,       2,         3,         4,    8,    16,   -1,    -2,           7, 255, 1 << 15,
            1 << 20, 1 << 30, INT32_MAX, INT32_MIN, 1024, 4096, 4097, 65536, INT32_MAX - 1};
        const std::size_t words = (file.size() - data) / 4, near = std::min<std::size_t>(words, 512);
        if (!words) return;
        const std::size_t at = data + 4 * below(below(4) ? near : words);
        std::int32_t value;
        std::memcpy(&value, &file[at], sizeof value);
        value = below(2)
                    ? numbers[below(std::size(numbers))]
                    : static_cast<std::int32_t>(static_cast<std::uint32_t>(value) + (below(2) ? 1u : ~0u));
        std::memcpy(&file[at], &value, sizeof value);
    }

    const Bytes &file_;
    std::mt19937 random_;
};

Bytes read(const char *path) {
    std::ifstream stream(path, std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
}

}  // namespace

int main(int count, char **arguments) {
    int rounds = 2000;
    std::vector<const char *> paths;
    for (int i = 1; i < count; ++i)
        if (std::strcmp(arguments[i], "--rounds") == 0 && i + 1 < count)
            rounds = std::max(1, std::atoi(arguments[++i]));
        else
            paths.push_back(arguments[i]);
    if (paths.empty()) {
        std::fprintf(stderr, "usage: artifact_fuzz FILE... [--rounds N]\n");
        return 2;
    }
    for (const char *path : paths) {
        const Bytes file = read(path);
        if (!load(file)) {
            fail(std::string(path) + ": " + as_last_error());
            continue;
        }
        Fuzz fuzz(file, 1);
        fuzz.truncate();
        fuzz.flip(rounds);
        fuzz.invent_headers(rounds);
        const int taken = fuzz.reseal(rounds);
        std::printf("%s: %d of %d resealed changes were taken and ran\n", path, taken, rounds);
    }
    std::printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
