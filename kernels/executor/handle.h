// What stands behind an as_program, and the border that no exception crosses.
#pragma once

#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "autosparse.h"
#include "executor/program.h"

#define AS_EXPORT __attribute__((visibility("default")))

struct as_program {
    as_program(int threads, bool pin) : program(threads, pin) {}

    autosparse::Program program;
    std::string manifest;            // of the artifact that it was loaded from
    std::vector<std::string> notes;  // per operator of an artifact: why it has another kernel than recorded
};

namespace autosparse {

// Remembers an error of this thread; gives `status` back.
int fail(int status, const char *message) noexcept;
void clear_error() noexcept;

// An empty program. Throws AS_BAD_ARGUMENT for a number of threads that makes no sense.
std::unique_ptr<as_program> new_program(int32_t threads, int32_t pin);
// Four extents as a shape. Throws AS_BAD_ARGUMENT unless all are positive and their product fits.
Shape checked_shape(const int32_t *shape);

// Runs `body`, which returns a non-negative result, behind the border.
template <class Body>
int guarded(Body &&body) noexcept {
    try {
        clear_error();
        return body();
    } catch (const Error &error) {
        return fail(error.status, error.what());
    } catch (const std::bad_alloc &) {
        return fail(AS_NO_MEMORY, "out of memory");
    } catch (const std::exception &error) {
        return fail(AS_INTERNAL, error.what());
    } catch (...) {
        return fail(AS_INTERNAL, "unknown error");
    }
}

}  // namespace autosparse
