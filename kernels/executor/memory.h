// Aligned memory that asks for huge pages: planes of a tensor lie far apart, so that small pages cost
// address-translation misses in every kernel.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

namespace autosparse {

constexpr std::size_t kCacheLine = 64;

class Buffer {
public:
    Buffer() = default;
    explicit Buffer(std::size_t bytes) : bytes_(bytes) {
        constexpr std::size_t kHugePage = std::size_t{2} << 20;
        const std::size_t alignment = bytes >= kHugePage ? kHugePage : kCacheLine;
        void *memory = nullptr;
        if (posix_memalign(&memory, alignment, bytes ? bytes : 1) != 0) throw std::bad_alloc();
        data_ = static_cast<char *>(memory);
#ifdef MADV_HUGEPAGE
        if (bytes >= kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    }
    Buffer(Buffer &&other) noexcept { *this = std::move(other); }
    Buffer &operator=(Buffer &&other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    ~Buffer() { std::free(data_); }

    char *data() const { return data_; }
    std::size_t bytes() const { return bytes_; }

private:
    char *data_ = nullptr;
    std::size_t bytes_ = 0;
};

}  // namespace autosparse
