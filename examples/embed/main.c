/* Runs an artifact without Python: autosparse export RUN -o model.autosparse, then
 *
 *     ./embed model.autosparse [input.f32 ...]
 *
 * Inputs are raw float32 files, one per input of the model; without them a ramp from 0 to 1 is used. Prints
 * every output, one number per line, with digits enough to read back the same float.
 */
#include <stdio.h>
#include <stdlib.h>

#include "autosparse.h"

#define THREADS 1

typedef int shape_of(const as_program *, int32_t, int32_t[4]);

static void die(const char *what, const char *why) {
    fprintf(stderr, "embed: %s: %s\n", what, why);
    exit(1);
}

static size_t elements(const int32_t shape[4]) {
    return (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2] * (size_t)shape[3];
}

static size_t size_of_border(const as_program *program, shape_of *ask, int32_t index) {
    int32_t shape[4];
    if (ask(program, index, shape) != AS_OK) die("shape", as_last_error());
    return elements(shape);
}

static float *new_floats(size_t count) {
    float *made = malloc(count * sizeof *made);
    if (!made) die("memory", "there is not enough");
    return made;
}

static void read_floats(const char *path, float *to, size_t count) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path, "cannot be opened");
    if (fread(to, sizeof *to, count, file) != count) die(path, "is too short for this input");
    fclose(file);
}

static void ramp(float *to, size_t count) {
    for (size_t i = 0; i < count; ++i) to[i] = (float)i / (float)count;
}

int main(int argc, char **argv) {
    if (argc < 2) die("usage", "embed MODEL [INPUT...]");
    as_program *program = as_program_load(argv[1], THREADS, 0);
    if (!program) die("load", as_last_error());

    const int inputs = as_program_input_count(program), outputs = as_program_output_count(program);
    float **in = malloc((size_t)inputs * sizeof *in), **out = malloc((size_t)outputs * sizeof *out);
    if (!in || !out) die("memory", "there is not enough");
    for (int32_t i = 0; i < inputs; ++i) {
        const size_t count = size_of_border(program, as_program_input_shape, i);
        in[i] = new_floats(count);
        if (argc > 2 + i)
            read_floats(argv[2 + i], in[i], count);
        else
            ramp(in[i], count);
    }
    for (int32_t i = 0; i < outputs; ++i)
        out[i] = new_floats(size_of_border(program, as_program_output_shape, i));

    if (as_program_run(program, (const float *const *)in, out) != AS_OK) die("run", as_last_error());

    for (int32_t i = 0; i < outputs; ++i) {
        const size_t count = size_of_border(program, as_program_output_shape, i);
        for (size_t j = 0; j < count; ++j) printf("%.9g\n", (double)out[i][j]);
        free(out[i]);
    }
    for (int32_t i = 0; i < inputs; ++i) free(in[i]);
    free(in);
    free(out);
    as_program_free(program);
    return 0;
}
