// The part of the C interface that loads artifacts.
#include <memory>

#include "artifact/loader.h"
#include "artifact/mapped_file.h"
#include "executor/handle.h"

using namespace autosparse;

namespace {

// Loads what `read` gives to load_artifact.
template <class Read>
as_program *loaded(int32_t threads, int32_t pin, Read &&read) noexcept {
    as_program *made = nullptr;
    guarded([&] {
        auto program = new_program(threads, pin);
        read(*program);
        made = program.release();
        return AS_OK;
    });
    return made;
}

}  // namespace

extern "C" {

AS_EXPORT as_program *as_program_load(const char *path, int32_t threads, int32_t pin) {
    return loaded(threads, pin, [&](as_program &into) {
        require(path != nullptr, "path must not be NULL");
        try {
            const MappedFile file(path);
            load_artifact(file.data(), file.size(), into);
        } catch (const Error &error) {
            throw Error(error.status, std::string(path) + ": " + error.what());
        }
    });
}

AS_EXPORT as_program *as_program_load_memory(const void *data, size_t size, int32_t threads, int32_t pin) {
    return loaded(threads, pin, [&](as_program &into) { load_artifact(data, size, into); });
}

AS_EXPORT const char *as_program_manifest(const as_program *program) {
    return program ? program->manifest.c_str() : "";
}

AS_EXPORT const char *as_program_op_note(const as_program *program, int32_t op) {
    if (!program || op < 0 || static_cast<std::size_t>(op) >= program->notes.size()) return "";
    return program->notes[static_cast<std::size_t>(op)].c_str();
}

}  // extern "C"
