// An artifact as a set of named arrays: a safetensors file with hashes, checked before anything is used.
//
//     bytes 0..7      length of the header, little endian
//     header          flat JSON (header.h), padded with spaces to a multiple of 64 bytes from the file's
//     begin data section    the arrays one behind the other, each at a multiple of 64
//
// __metadata__ holds `format` ("autosparse"), `format_version`, `data_sha256` (of the data section),
// `header_sha256` (of the header, its own 64 digits read as zeros) and `manifest` (JSON, for people and
// other programs; nothing here depends on it).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "artifact/header.h"

namespace autosparse {

// Version 2 has operators that share weights (`program.shared`); files without are of version 1.
constexpr int kArtifactVersion = 2;

enum class ElementType { f32, bf16, i32, u8 };

// One array of the file; `data` may lie anywhere.
struct Array {
    ElementType type;
    std::vector<std::int64_t> shape;
    const std::uint8_t *data;
    std::size_t bytes;

    std::int64_t elements() const;
};

class Container {
public:
    // Checks `size` bytes at `file`, which must stay where they are. Throws AS_BAD_FILE.
    Container(const void *file, std::size_t size);

    bool has(const std::string &name) const { return header_.entries.count(name) != 0; }
    // The array of that name, which must be of that type.
    Array array(const std::string &name, ElementType type) const;
    ElementType type(const std::string &name) const;
    // The array of int32 of that name and number of dimensions, copied.
    std::vector<std::int32_t> integers(const std::string &name, std::size_t dimensions) const;
    const std::string &text(const std::string &key) const;

private:
    void check_format() const;
    void check_header_hash(std::string_view header) const;
    void check_places() const;

    Header header_;
    const std::uint8_t *data_ = nullptr;
    std::size_t data_bytes_ = 0;
};

}  // namespace autosparse
