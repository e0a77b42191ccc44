#include "artifact/container.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "artifact/sha256.h"
#include "executor/program.h"

namespace autosparse {
namespace {

constexpr std::size_t kLengthBytes = 8, kAlignment = 64, kDigits = 64;

[[noreturn]] void refuse(const std::string &message) { throw Error(AS_BAD_FILE, message); }

void check(bool condition, const std::string &message) {
    if (!condition) refuse(message);
}

struct TypeName {
    const char *name;
    ElementType type;
    std::int64_t bytes;
};
constexpr TypeName kTypes[] = {{"F32", ElementType::f32, 4},
                               {"BF16", ElementType::bf16, 2},
                               {"I32", ElementType::i32, 4},
                               {"U8", ElementType::u8, 1}};

const TypeName &named(const std::string &name, const HeaderEntry &entry) {
    for (const TypeName &type : kTypes)
        if (entry.dtype == type.name) return type;
    refuse("arrays of an artifact must be F32, BF16, I32 or U8, but " + name + " is " + entry.dtype);
}

std::size_t header_bytes(const std::uint8_t *file, std::size_t size) {
    check(size > kLengthBytes, "an artifact must be whole, but this file has " + std::to_string(size) +
                                   " bytes; export or copy it again");
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < kLengthBytes; ++i) bytes |= std::uint64_t{file[i]} << (8 * i);
    check(file[kLengthBytes] == '{',
          "an artifact must be a file that autosparse exported, but this is of "
          "another kind; name an .autosparse file");
    check(bytes <= size - kLengthBytes, "an artifact must be whole, but this file ends after " +
                                            std::to_string(size) + " bytes, within its header of " +
                                            std::to_string(bytes) + "; export or copy it again");
    return static_cast<std::size_t>(bytes);
}

}  // namespace

std::int64_t Array::elements() const {
    std::int64_t count = 1;
    for (std::int64_t extent : shape) count *= extent;
    return count;
}

Container::Container(const void *file, std::size_t size) {
    check(file != nullptr, "an artifact must be given, but its address is NULL");
    const auto *bytes = static_cast<const std::uint8_t *>(file);
    const std::size_t length = header_bytes(bytes, size);
    const std::string_view json(reinterpret_cast<const char *>(bytes) + kLengthBytes, length);
    data_ = bytes + kLengthBytes + length;
    data_bytes_ = size - kLengthBytes - length;
    header_ = parse_header(json);
    check_format();
    check_header_hash(json);
    check_places();
    check(sha256(data_, data_bytes_) == text("data_sha256"),
          "the data of an artifact must match its SHA-256, but does not: the file is damaged or was "
          "changed; export or copy it again");
}

// Before the hashes: a newer format may hash otherwise.
void Container::check_format() const {
    const auto format = header_.metadata.find("format");
    check(format != header_.metadata.end() && format->second.value == "autosparse",
          "an artifact must be a file that autosparse exported, but this one's metadata does not say so; "
          "name an .autosparse file");
    const std::string &version = text("format_version");
    check(version == "1" || version == std::to_string(kArtifactVersion),
          "an artifact must have format version 1 to " + std::to_string(kArtifactVersion) +
              ", which this autosparse reads, but has " + version.substr(0, 16) +
              "; install a newer autosparse, or export again");
}

void Container::check_header_hash(std::string_view header) const {
    const auto found = header_.metadata.find("header_sha256");
    check(found != header_.metadata.end() && found->second.value.size() == kDigits,
          "an artifact must hold the SHA-256 of its header, but does not; the file is damaged");
    const std::size_t place = found->second.place;
    const std::string zeros(kDigits, '0');
    Sha256 hash;
    hash.update(header.data(), place);
    hash.update(zeros.data(), kDigits);
    hash.update(header.data() + place + kDigits, header.size() - place - kDigits);
    check(header.substr(place, kDigits) == hash.finish(),
          "the header of an artifact must match its SHA-256, but does not: the file is damaged or was "
          "changed; export or copy it again");
}

// Every array fits its shape, and all of them together fill the data section without holes or overlaps.
void Container::check_places() const {
    std::vector<std::pair<std::int64_t, std::int64_t>> places;
    for (const auto &[name, entry] : header_.entries) {
        std::int64_t bytes = named(name, entry).bytes;
        for (std::int64_t extent : entry.shape)
            check(!__builtin_mul_overflow(bytes, extent, &bytes),
                  "arrays of an artifact must fit into memory, but " + name + " has too many elements");
        check(entry.begin <= entry.end && entry.end - entry.begin == bytes,
              "arrays of an artifact must be as long as their shape says, but " + name + " takes " +
                  std::to_string(entry.end - entry.begin) + " bytes instead of " + std::to_string(bytes));
        check(entry.dtype == "U8" || entry.begin % static_cast<std::int64_t>(kAlignment) == 0,
              "arrays of an artifact must begin at a multiple of 64 bytes, but " + name + " begins at " +
                  std::to_string(entry.begin));
        places.emplace_back(entry.begin, entry.end);
    }
    std::sort(places.begin(), places.end());
    std::int64_t end = 0;
    for (const auto &[begin, after] : places) {
        check(begin == end, "arrays of an artifact must lie one behind the other, but one begins at byte " +
                                std::to_string(begin) + " and the one before ends at " +
                                std::to_string(end));
        end = after;
    }
    const auto have = static_cast<std::int64_t>(data_bytes_);
    check(end == have, "an artifact must be whole, but its arrays take " + std::to_string(end) +
                           " bytes and the file has " + std::to_string(have) +
                           " of data; export or copy it again");
}

ElementType Container::type(const std::string &name) const {
    const auto found = header_.entries.find(name);
    check(found != header_.entries.end(), "an artifact must hold " + name + ", but does not");
    return named(name, found->second).type;
}

Array Container::array(const std::string &name, ElementType wanted) const {
    check(type(name) == wanted, "an artifact's " + name + " is of the wrong type");
    const HeaderEntry &entry = header_.entries.at(name);
    return {wanted, entry.shape, data_ + entry.begin, static_cast<std::size_t>(entry.end - entry.begin)};
}

std::vector<std::int32_t> Container::integers(const std::string &name, std::size_t dimensions) const {
    const Array found = array(name, ElementType::i32);
    check(found.shape.size() == dimensions, "an artifact's " + name + " must have " +
                                                std::to_string(dimensions) + " dimensions, but has " +
                                                std::to_string(found.shape.size()));
    std::vector<std::int32_t> values(found.bytes / sizeof(std::int32_t));
    if (!values.empty()) std::memcpy(values.data(), found.data, found.bytes);
    return values;
}

const std::string &Container::text(const std::string &key) const {
    const auto found = header_.metadata.find(key);
    check(found != header_.metadata.end(), "an artifact's metadata must hold " + key + ", but does not");
    return found->second.value;
}

}  // namespace autosparse
