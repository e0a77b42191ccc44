/* autosparse: C interface of the CPU executor.
 *
 * A program is a static list of fused operators over tensors of fixed shape. It is built once, packs its
 * weights, plans one arena for all activations, owns a pool of threads, and is then run by one call.
 * The interface speaks of logical tensors (NCHW, contiguous at the borders, where they are float32 whatever
 * their type inside); how activations lie in the arena is the executor's own affair.
 *
 * Thread safety: different programs are independent. One program is built and run by one call at a time: a
 * call that finds another thread's at work on the same program does nothing and gives AS_BUSY. It does not
 * wait: who wants runs to queue holds a lock of their own, and who wants them side by side makes one program
 * per thread. What only asks a finished program may be called at any time; freeing one that runs may not.
 * Errors: functions that return int give 0 on success or a negative as_status; as_last_error() then tells
 * more (thread-local). Nothing here throws, aborts, or prints, on worker threads either.
 */
#ifndef AUTOSPARSE_H
#define AUTOSPARSE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AS_ABI_VERSION 6
#define AS_MAX_INPUTS 8

typedef struct as_program as_program;

typedef enum as_status {
    AS_OK = 0,
    AS_BAD_ARGUMENT = -1, /* a rule of this interface was broken */
    AS_UNSUPPORTED = -2,  /* this CPU, or this kernel for this shape */
    AS_NO_MEMORY = -3,
    AS_INTERNAL = -4,
    AS_BAD_FILE = -5, /* no artifact, or one that is damaged, truncated, changed or too new */
    AS_BUSY = -6      /* another call builds or runs this program */
} as_status;

/* Type of a tensor. Sums are always float32. */
typedef enum as_dtype { AS_F32 = 0, AS_BF16 = 1 } as_dtype;

typedef enum as_op_kind {
    AS_OP_CONV = 1,      /* conv2d or linear, dense or 1xN, groups == 1; linear: 1x1 over rows as pixels */
    AS_OP_CONV_GROUPED,  /* conv2d with groups > 1, depthwise included; always dense */
    AS_OP_MAX_POOL,
    AS_OP_AVG_POOL,
    AS_OP_GLOBAL_AVG_POOL, /* output height = width = 1 */
    AS_OP_ADD,             /* inputs[0] + inputs[1], same shape */
    AS_OP_MUL,             /* inputs[0] * inputs[1], same shape or inputs[1] of one pixel per channel */
    AS_OP_CONCAT,          /* along channels */
    AS_OP_AFFINE,          /* per channel: x * weight[c] + bias[c] (batch-norm that could not be folded) */
    AS_OP_ACTIVATION,
    AS_OP_SUBSAMPLE_PAD,   /* x[:, :, ::stride_h, ::stride_w] with channels_before zero channels in front */
    AS_OP_FLATTEN,         /* (b, c, h, w) -> (b, c*h*w, 1, 1) in NCHW order */
    AS_OP_SOFTMAX,         /* over channels */
    AS_OP_ADAPTIVE_AVG_POOL /* mean of rows y*H/h to (y+1)*H/h, rounded outward, and columns alike */
} as_op_kind;

typedef enum as_activation {
    AS_ACT_NONE = 0, AS_ACT_RELU, AS_ACT_RELU6, AS_ACT_SILU, AS_ACT_HARD_SWISH, AS_ACT_HARD_SIGMOID,
    AS_ACT_SIGMOID, AS_ACT_GELU
} as_activation;

/* Instead of a row of the kernel table, the executor's own choice: among all rows, or among those that keep
   the weights as they are given. The others transform them once, to 1.8 to 4 times as many. */
#define AS_KERNEL_ANY (-1)
#define AS_KERNEL_COMPACT (-2)
/* What runs an operator that has no rows. */
#define AS_KERNEL_BUILTIN (-3)

typedef struct as_op {
    int32_t kind;                     /* as_op_kind */
    int32_t input_count;
    int32_t inputs[AS_MAX_INPUTS];    /* tensor ids */
    int32_t output;                   /* tensor id */
    int32_t residual;                 /* AS_OP_CONV: tensor added before the activation, or -1 */
    int32_t activation;               /* as_activation, applied last */
    int32_t kernel;                   /* row of the kernel table, AS_KERNEL_ANY or AS_KERNEL_COMPACT */
    int32_t kernel_h, kernel_w, stride_h, stride_w;
    int32_t pad_top, pad_left, pad_bottom, pad_right;
    int32_t dilation_h, dilation_w;
    int32_t groups;
    int32_t channels_before;          /* AS_OP_SUBSAMPLE_PAD */
    int32_t count_include_pad;        /* AS_OP_AVG_POOL */
    const float *weight;              /* OIHW, contiguous; pruned weights are zero. Copied; rounded to bf16, to
                                       * nearest even, where the input is bf16. */
    const float *bias;                /* one per output channel, or NULL. Copied. */
    /* 1xN structure of AS_OP_CONV; block_n == 0 means dense and the two lists are NULL.
     * Group g holds outputs [g*block_n, min((g+1)*block_n, O)) and keeps the input channels
     * kept[group_start[g] .. group_start[g+1]), ascending. */
    int32_t block_n;
    const int32_t *group_start;       /* ceil(O / block_n) + 1 entries */
    const int32_t *kept;
} as_op;

typedef struct as_kernel_info {
    char name[96];      /* f32_conv_onexn8__avx512_px8x48: contract __ method */
    char family[32];    /* conv_onexn, conv_dense */
    char method[32];    /* px: vectors along pixels; oc: vectors along output channels */
    int32_t isa;        /* its instruction set, as_isa_name() gives the name */
    int32_t block_n;    /* N that it serves; 0 for dense */
    int32_t tile_out;   /* output channels per register tile */
    int32_t tile_pixels;/* pixels per register tile */
    char dtype[8];      /* of inputs and weights: f32, bf16 */
    int32_t lanes;      /* floats per vector of its instruction set */
    int32_t fuses;      /* whether that multiplies and adds in one instruction; 0 where this build lacks it */
    int32_t window_in;  /* inputs and outputs per side of a tile of Winograd's filtering, which keeps */
    int32_t window_out; /* transformed weights, more than it is given; 1 and 1 for other methods */
} as_kernel_info;

int as_abi_version(void);
/* How this build lays out the structs above, for bindings that mirror them: a line for each, its name and size
 * and then every member as name:offset:size, in bytes. */
const char *as_abi_layout(void);
const char *as_last_error(void);
int as_last_status(void); /* as_status of this thread's last call; for calls that return a pointer */
/* Instruction sets that this version knows, whether or not this build has them: numbers from 0, the portable
 * baseline, each behind those that it holds. */
int as_isa_count(void);
const char *as_isa_name(int isa); /* generic, avx2, ...; "" for no such number */
/* The widest one that the CPU and the operating system grant, this build has, and as_limit_isa allows. */
int as_detect_isa(void);
/* Nothing but this one and what it holds is used from now on (new programs only), or AS_ISA_ANY; for tests. */
#define AS_ISA_ANY (-1)
int as_limit_isa(int isa);

int as_kernel_count(void);
int as_kernel_get(int row, as_kernel_info *out);
/* Hash over the sources and compiler flags that decide a row's speed; "" for no such row. */
const char *as_kernel_source_hash(int row);
/* Why a kernel cannot run this operator on this machine: reasons separated by newlines, empty if it can.
 * Returns the length needed, or a negative status. Tensor shapes are (batch, channels, height, width). */
int as_kernel_why_not(int row, const as_op *op, const int32_t in_shape[4], char *reasons, size_t capacity);
/* The row that the executor would choose here for a convolution on inputs of a type that keeps `kept` inputs per
 * group of outputs on average, of those that `op->kernel` leaves. `cycles` becomes what it expects of it, by a model
 * that tells which way to store a layer is faster, and no times. Weights are not read. Negative: a status. */
int as_kernel_default(const as_op *op, int32_t dtype, const int32_t in_shape[4], const int32_t out_shape[4],
                      double kept, double *cycles);

/* `threads` >= 1 workers, the caller included. `pin` != 0 binds each of them to a processor while the program
 * runs: to one that no other run of this process is bound to, a core of its own first. Where fewer than
 * `threads` are left, that run is bound to none. For a process that has its processors to itself: what another
 * process binds is unknown, and threads that are bound to one processor share it while others idle. */
as_program *as_program_new(int32_t threads, int32_t pin);
void as_program_free(as_program *program);
/* Adds a tensor of an as_dtype; returns its id (>= 0). A convolution of bf16 tensors writes bf16 or float32, as
 * its output says; its residual has the output's type. All other operators read and write one type. */
int as_program_tensor(as_program *program, const int32_t shape[4], int32_t dtype);
int as_program_input(as_program *program, int32_t tensor);  /* in the order that as_program_run takes them */
int as_program_output(as_program *program, int32_t tensor);
/* Adds an operator; operators run in the order added. Returns its index (>= 0). */
int as_program_op(as_program *program, const as_op *op);
/* Adds the convolution at index `earlier` once more, with a copy of its packed weights, on tensors of the same
 * shapes and types; residual -1 where it has none. Returns its index (>= 0). Depthwise ones cannot be. */
int as_program_op_again(as_program *program, int32_t earlier, int32_t input, int32_t residual, int32_t output);
/* Lets operators whose packed weights are equal, such as calls of one layer, hold them once; before
 * as_program_finish. Loaded programs do. */
int as_program_share_weights(as_program *program);
/* Plans the arena and packs what is left; no more operators after this. */
int as_program_finish(as_program *program);
int as_program_run(as_program *program, const float *const *inputs, float *const *outputs);

/* Loads an artifact (a file that `autosparse export` wrote) as a finished program. The file is mapped, checked
 * against its hashes, packed for this machine, and let go. NULL on failure; see as_last_status. */
as_program *as_program_load(const char *path, int32_t threads, int32_t pin);
/* The same from `size` bytes at `data`, such as an artifact linked into a binary; not needed afterwards. */
as_program *as_program_load_memory(const void *data, size_t size, int32_t threads, int32_t pin);
/* What the artifact says of itself, as JSON: names and outside shapes of inputs and outputs, layers, accuracy,
 * latency, provenance. "" for a program that was not loaded. Lives as long as the program. */
const char *as_program_manifest(const as_program *program);
/* Why an operator of a loaded program does not run with the kernel that was the fastest where the artifact was
 * made, but with the executor's default; "" where it does. Lives as long as the program. */
const char *as_program_op_note(const as_program *program, int32_t op);

int as_program_input_count(const as_program *program);
int as_program_output_count(const as_program *program);
/* (batch, channels, height, width) of what as_program_run takes and gives; missing dimensions are 1. */
int as_program_input_shape(const as_program *program, int32_t input, int32_t shape[4]);
int as_program_output_shape(const as_program *program, int32_t output, int32_t shape[4]);

/* Runs the program `repeats` times and writes one wall time per run, nanoseconds, in `run_ns`; where `op_ns`
 * is not NULL also one time per operator and run ([repeats][ops]), at the cost of a clock read per operator. */
int as_program_time(as_program *program, const float *const *inputs, float *const *outputs,
                    int32_t repeats, int64_t *run_ns, int64_t *op_ns);
/* As as_program_time for a set of equal programs used in turn, so that each finds its weights as cold as
 * `count` programs' worth of other weights leave them. */
int as_programs_time(as_program *const *programs, int32_t count, const float *const *inputs,
                     float *const *outputs, int32_t repeats, int64_t *run_ns);

int64_t as_program_weight_bytes(const as_program *program); /* packed weights and index lists */
int64_t as_program_arena_bytes(const as_program *program);
int as_program_op_count(const as_program *program);
/* What the processors of a finished program's workers fetch from each other: writes per operator, and behind the
 * last one for copying inputs and outputs, so op_count + 1 numbers each, how many 64-byte lines of activations and
 * workspaces move between workers in one of many inferences, because a worker reads or writes them that another one
 * wrote since it last had them. As if every worker did its own run of tasks and its cache kept everything; weights,
 * which nobody writes, and the caller's arrays do not count. Computed, not measured, and rather too high than too
 * low: of Winograd's tiles it counts whole rows. Takes as long as some inferences. */
int as_program_moved_lines(as_program *program, int64_t *read, int64_t *written);
/* Writes the kernel row that runs an operator, or AS_KERNEL_BUILTIN for one outside the kernel table. */
int as_program_op_kernel(const as_program *program, int32_t op, int32_t *row);

/* Machine limits: measured by running, seconds >= 0.01 each. GFLOP/s of fused multiply-adds on `threads`
 * threads; bytes per second of reading a buffer of `bytes` over and over on one thread. */
double as_probe_f32_gflops(int32_t threads, double seconds);
double as_probe_bf16_gflops(int32_t threads, double seconds); /* negative where the CPU has no bf16 dot */
double as_probe_read_bytes_per_s(int64_t bytes, double seconds);
/* Nanoseconds that a cache line takes from one of `threads` pinned threads to the next, the last handing it to
   the first: the median over `slices` (9 or more) of some microseconds each. Takes a millisecond or so. */
double as_probe_handover_ns(int32_t threads, int32_t slices);
/* The rate of the slowest of `threads` pinned threads that work at once, the median over `slices` of some ten
   microseconds each: GFLOP/s of fused multiply-adds; integer instructions per second; bytes per second of reading
   `bytes` of its own (1 KiB to 16 MiB) over and over. */
double as_probe_slowest_gflops(int32_t threads, int32_t slices);
double as_probe_slowest_integers_per_s(int32_t threads, int32_t slices);
double as_probe_slowest_read_bytes_per_s(int32_t threads, int32_t slices, int64_t bytes);

#ifdef __cplusplus
}
#endif
#endif
