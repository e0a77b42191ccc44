// A file as memory, for reading. Whoever writes artifacts puts them in place by renaming: a file that is
// cut short while it is mapped would end the process.
#pragma once

#include <cstddef>
#include <string>

namespace autosparse {

class MappedFile {
public:
    // Throws AS_BAD_FILE where the file cannot be read.
    explicit MappedFile(const std::string &path);
    ~MappedFile();
    MappedFile(const MappedFile &) = delete;
    MappedFile &operator=(const MappedFile &) = delete;

    const void *data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    void *data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace autosparse
