// The header of a safetensors file: one flat JSON object, so that no general JSON reader is needed.
//
//     {"__metadata__": {"key": "text", ...}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0,
//     24]}, ...}
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace autosparse {

// One tensor of the file, as the header describes it; nothing is checked against the data.
struct HeaderEntry {
    std::string dtype;
    std::vector<std::int64_t> shape;
    std::int64_t begin = 0, end = 0;  // bytes in the data section
};

struct Text {
    std::string value;
    std::size_t place = 0;  // of its first character in the header
};

struct Header {
    std::map<std::string, HeaderEntry> entries;
    std::map<std::string, Text> metadata;
};

// Throws AS_BAD_FILE with the position of whatever is not as it must be.
Header parse_header(std::string_view json);

}  // namespace autosparse
