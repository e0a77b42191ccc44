// The kernels' own sources, compiled for the emulated machine: one entry per variant that tests ask for.
#include <primitives.cuh>

#include <finish.cu>
#include <mma.cu>
#include <wgmma.cu>

namespace sound {
using ::Args, ::Mma, ::Variant, ::Wgmma;
}
#include <more.inc>  // sources that differ, in namespaces of their own

namespace {

struct Entry {
    const char* name;
    machine::Kernel kernel;
    int threads;
    unsigned shared_bytes;
};

template <class Kernel, class Given>
constexpr Entry entry(const char* name, int threads) {
    return {name, [](const void* args) { Kernel::run(*static_cast<const Given*>(args)); }, threads,
            Kernel::SHARED_BYTES};
}

#define AS_ENTRY(SPACE, KERNEL, ...)                                                            \
    entry<SPACE::KERNEL<SPACE::Variant<__VA_ARGS__>>, SPACE::Args>(#SPACE " " #KERNEL " " #__VA_ARGS__, \
                                                                  SPACE::Variant<__VA_ARGS__>::THREADS),
#define AS_FINISH(...) \
    entry<Finish<__VA_ARGS__>, FinishArgs>("Finish " #__VA_ARGS__, Finish<__VA_ARGS__>::THREADS),
const Entry entries[] = {
#include "entries.inc"
};

const Entry* found(const char* name) {
    for (const Entry& each : entries)
        if (!std::strcmp(each.name, name)) return &each;
    return nullptr;
}

}  // namespace

extern "C" {

// Threads of a block and bytes of its shared memory; -1 for a variant that was not compiled.
int emulated_threads(const char* name) { return found(name) ? found(name)->threads : -1; }
int emulated_shared_bytes(const char* name) {
    return found(name) ? static_cast<int>(found(name)->shared_bytes) : -1;
}

int emulated_args_bytes() { return sizeof(Args); }
int emulated_finish_args_bytes() { return sizeof(FinishArgs); }

float emulated_activation(int which, float x) {
    static float (*const functions[])(float) = {activated<NONE>,       activated<RELU>,
                                                activated<RELU6>,      activated<SILU>,
                                                activated<HARD_SWISH>, activated<HARD_SIGMOID>,
                                                activated<SIGMOID>,    activated<GELU>};
    return functions[which](x);
}

unsigned emulated_pair(int is_f16, float low, float high) {
    return is_f16 ? F16::pair(low, high) : Bf16::pair(low, high);
}

float emulated_widened(int is_f16, unsigned short bits) {
    return is_f16 ? F16::widened(bits) : Bf16::widened(bits);
}

// What went wrong, or nothing.
const char* emulate(const char* name, const void* args, int grid, int cluster, machine::Policy policy) {
    static std::string fault;
    const Entry& entry = *found(name);
    fault = machine::run(entry.kernel, args, grid, cluster, entry.threads, entry.shared_bytes,
                         policy);
    return fault.c_str();
}
}
