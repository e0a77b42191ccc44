// What kernels ask of the machine, an instruction each; sections are those of NVIDIA's PTX ISA 9.1.
//
// Shared memory is addressed by its 32-bit addresses alone. The tests implement the same names on the
// host, each by its section of the manual, and so run the kernels' own source without a GPU.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE __device__ __forceinline__

DEVICE int thread_index() { return threadIdx.x; }
DEVICE int block_index() { return blockIdx.x; }
DEVICE int grid_size() { return gridDim.x; }

// ------------------------------------------------------------------------------------- types of data

struct Bf16 {
    static DEVICE float widened(u16 bits) { return __uint_as_float(static_cast<u32>(bits) << 16); }
    static DEVICE u32 pair(float low, float high) {
        u32 bits;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
        return bits;
    }
};

struct F16 {
    static DEVICE float widened(u16 bits) {
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
        return value;
    }
    static DEVICE u32 pair(float low, float high) {
        u32 bits;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
        return bits;
    }
};

// ------------------------------------------------------------------------------------- shared memory

extern __shared__ __align__(1024) u8 dynamic_shared[];

DEVICE u32 shared_base() { return static_cast<u32>(__cvta_generic_to_shared(dynamic_shared)); }

DEVICE u32 load_shared(u32 address) {
    u32 value;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address));
    return value;
}
DEVICE void load_shared_x2(int (&v)[2], u32 address) {
    asm volatile("ld.shared.v2.s32 {%0, %1}, [%2];" : "=r"(v[0]), "=r"(v[1]) : "r"(address));
}
DEVICE void load_shared_x4(u32 (&v)[4], u32 address) {
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(address));
}
DEVICE void store_shared(u32 address, float value) {
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
}
DEVICE void store_shared_x2(u32 address, int first, int second) {
    asm volatile("st.shared.v2.s32 [%0], {%1, %2};" ::"r"(address), "r"(first), "r"(second) : "memory");
}

// 9.7.13.1: all threads of a block, or of a number of warps that meet at barrier `name`.
DEVICE void block_sync() { __syncthreads(); }
DEVICE void named_sync(int name, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}
DEVICE void warp_sync() { __syncwarp(); }

// 9.7.9.25.3: 16 bytes on their way to shared memory; zeros where there is nothing to read.
DEVICE void copy_async(u32 to, const void* from, bool is_there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(is_there ? 16 : 0)
                 : "memory");
}
DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING>
DEVICE void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// -------------------------------------------------------------------------- multiplying, warp by warp

// 9.7.14.5.15: four matrices of 8 rows by 16 bytes; lane l names row l % 8 of matrix l / 8.
DEVICE void load_matrices(u32 (&v)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(address));
}

// 9.7.14.6.3: D = A * B + D, m16n8k32, words of the lanes that the selector names.
#define AS_MMA_SP(TYPE, NAME)                                                                         \
    template <int SELECTOR>                                                                           \
    DEVICE void mma_sp(TYPE, float (&d)[4], const u32 (&a)[4], const u32 (&b)[4], u32 words) {        \
        asm volatile("mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32." NAME "." NAME      \
                     ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9, %10, %11}, {%0, %1, %2, %3}," \
                     " %12, %13;"                                                                     \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                 \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]),   \
                       "r"(b[3]), "r"(words), "n"(SELECTOR));                                         \
    }
AS_MMA_SP(Bf16, "bf16")
AS_MMA_SP(F16, "f16")

#if __CUDA_ARCH__ >= 900
// ------------------------------------------------------------------------------ barriers with a count

// 9.7.13.15: a phase ends after `count` arrivals and once all bytes that were announced are there.
DEVICE void barrier_init(u32 barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
DEVICE void barrier_init_done() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
DEVICE void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}
// Returns once the phase of that parity has ended: the current one, or the one before. Other blocks of
// the cluster may be among those who arrive.
DEVICE void barrier_wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n"
        ".reg .pred ended;\n"
        "again:\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 ended, [%0], %1;\n"
        "@!ended bra again;\n"
        "}" ::"r"(barrier), "r"(parity)
        : "memory");
}
// 9.7.9.25.4.1: by one thread; a multiple of 16 bytes, which the barrier counts.
DEVICE void copy_bulk(u32 to, const void* from, u32 bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(to), "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}
// The same to all blocks of a cluster whose bits are set, at the same places, for barriers at the same.
DEVICE void copy_bulk_to_all(u32 to, const void* from, u32 bytes, u32 barrier, u16 blocks) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
        " [%0], [%1], %2, [%3], %4;" ::"r"(to), "l"(from), "r"(bytes), "r"(barrier), "h"(blocks)
        : "memory");
}

// 9.7.13.3: all threads of all blocks of a cluster. Places keep the compiler from sharing code between
// warps that have different numbers of registers.
template <int PLACE>
DEVICE void cluster_sync() {
    asm volatile(
        "// place %0\n"
        "barrier.cluster.arrive.release.aligned;\n"
        "barrier.cluster.wait.acquire.aligned;" ::"n"(PLACE)
        : "memory");
}
// 9.7.13.15: at the same barrier of another block of the cluster, or of this one.
DEVICE void barrier_arrive_at(u32 barrier, int block) {
    asm volatile(
        "{\n"
        ".reg .b32 there;\n"
        "mapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n"
        "}" ::"r"(barrier), "r"(block)
        : "memory");
}
// 9.7.13.4: what this thread has seen written reaches the asynchronous proxy, by which wgmma reads.
DEVICE void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// 9.7.19.5: registers of a warp, taken from the block's or given back.
template <int COUNT>
DEVICE void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT>
DEVICE void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// --------------------------------------------------------------------- multiplying, four warps at once

// 9.7.15.7. `multiply_sparse` itself, which names as many registers as its shape has, is written by
// the program that compiles this (build.py).
DEVICE void multiply_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void multiply_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING>
DEVICE void multiply_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// Sums are not read before this point, nor kept elsewhere after it.
template <int COUNT>
DEVICE void hold(float (&sums)[COUNT]) {
#pragma unroll
    for (int at = 0; at < COUNT; ++at) asm volatile("" : "+f"(sums[at])::"memory");
}
#endif
