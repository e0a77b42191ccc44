#include "artifact/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "executor/program.h"

namespace autosparse {
namespace {

struct Descriptor {
    // Without O_NONBLOCK a pipe that nobody writes into would be waited for.
    explicit Descriptor(const char *path) : number(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
    ~Descriptor() {
        if (number >= 0) close(number);
    }
    const int number;
};

[[noreturn]] void refuse(const std::string &reason) {
    throw Error(AS_BAD_FILE, "an artifact must be a readable file, but: " + reason);
}

}  // namespace

MappedFile::MappedFile(const std::string &path) {
    const Descriptor file(path.c_str());
    struct stat info{};
    if (file.number < 0 || fstat(file.number, &info) != 0) refuse(std::strerror(errno));
    if (!S_ISREG(info.st_mode)) refuse("it is no ordinary file");
    if (info.st_size == 0) refuse("it is empty");
    size_ = static_cast<std::size_t>(info.st_size);
    void *mapped = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.number, 0);
    if (mapped == MAP_FAILED) refuse(std::strerror(errno));
    data_ = mapped;
    madvise(data_, size_, MADV_SEQUENTIAL);
}

MappedFile::~MappedFile() { munmap(data_, size_); }

}  // namespace autosparse
