// What stands behind an as_program, and the border that no exception crosses.
#pragma once

#include <unistd.h>

#include <atomic>
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
    std::atomic<pid_t> user{0};      // the process whose call builds or runs it now, or 0
};

namespace autosparse {

// Remembers an error of this thread; gives `status` back.
int fail(int status, const char *message) noexcept;
void clear_error() noexcept;

// An empty program. Throws AS_BAD_ARGUMENT for a number of threads that makes no sense.
std::unique_ptr<as_program> new_program(int32_t threads, int32_t pin);
// Four extents as a shape. Throws AS_BAD_ARGUMENT unless all are positive and their product fits.
Shape checked_shape(const int32_t *shape);

// Keeps a program for one call. Throws AS_BUSY where another one has it. A child that was forked in the
// middle of a call of its parent's has a copy that nobody uses: it takes it over.
class Exclusive {
public:
    explicit Exclusive(as_program &program) : program_(program) {
        const pid_t self = getpid();
        pid_t user = program.user.load(std::memory_order_relaxed);
        do {
            if (user == self)
                throw Error(
                    AS_BUSY,
                    "one call at a time must build or run a program, but another thread's is at work on "
                    "this one; make one program per thread, or hold a lock");
        } while (!program.user.compare_exchange_weak(user, self, std::memory_order_acquire,
                                                     std::memory_order_relaxed));
    }
    ~Exclusive() { program_.user.store(0, std::memory_order_release); }
    Exclusive(const Exclusive &) = delete;
    Exclusive &operator=(const Exclusive &) = delete;

private:
    as_program &program_;
};

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

// The same on a program that nobody else builds or runs.
template <class Body>
int guarded(as_program *program, Body &&body) noexcept {
    return guarded([&] {
        require(program != nullptr, "program must not be NULL");
        const Exclusive use(*program);
        return body(program->program);
    });
}

}  // namespace autosparse
