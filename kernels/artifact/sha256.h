// SHA-256 (FIPS 180-4).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace autosparse {

class Sha256 {
public:
    void update(const void *data, std::size_t size);
    // 64 hexadecimal digits; nothing may be added afterwards.
    std::string finish();

private:
    void block(const std::uint8_t *bytes);

    std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                           0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::uint8_t, 64> rest_{};  // of the block that is not full yet
    std::size_t filled_ = 0;
    std::uint64_t bytes_ = 0;
};

std::string sha256(const void *data, std::size_t size);

}  // namespace autosparse
