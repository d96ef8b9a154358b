/* Parts of the program that `--emit exe` links around a model. */
#ifndef TENSMITH_PROGRAM_H_
#define TENSMITH_PROGRAM_H_

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "internal.h"

enum { EXIT_RUN = 1, EXIT_USAGE = 2, EXIT_CPU = 3, MAX_DIMS = 64 };

/* Prints "error: ..." and ends the program. */
TS_LOCAL _Noreturn void die(int code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* calloc that ends the program instead of failing. */
TS_LOCAL void *allocate(size_t bytes);

/* ---- arrays ---------------------------------------------------------------------------------- */

/* A tensor that owns its sizes and its memory. */
typedef struct {
  DLTensor tensor;
  int64_t shape[MAX_DIMS], strides[MAX_DIMS];
  void *memory;
} array;

/* inflate.c. Decompresses raw DEFLATE data of a known size; 0, or -1 if it is malformed. */
TS_LOCAL int inflate_raw(const uint8_t *from, size_t from_bytes, uint8_t *to, size_t to_bytes);
/* CRC-32 of data behind other data whose CRC-32 is `before` (0: none). */
TS_LOCAL uint32_t crc32_of(uint32_t before, const uint8_t *data, size_t bytes);

/* npy.c. Reads the array of a .npy file, of member `member` of a .npz file, or of a raw file (its
 * type and shape are those of `info`, with `dims` for the sizes that are not fixed; a single
 * unknown size, -1, follows from the file). */
TS_LOCAL void read_array(array *out, const char *path, const char *member,
                         const ts_tensor_info *info, const int64_t *dims);
/* Whether a file is a .npz, and whether it has such a member. */
TS_LOCAL int is_npz(const char *path);
TS_LOCAL int npz_has(const char *path, const char *member);

/* save.c. Whether a name is that of a .npz. */
TS_LOCAL int names_npz(const char *path);
/* Writes compact tensors: one as .npy, or as bare bytes under any other name; any number as .npz.
 * "-" is standard output, as .npy. A file appears when it is complete. */
TS_LOCAL void write_arrays(const char *path, const char *const *names,
                           const DLTensor *const *tensors, int32_t count);

/* ---- options.c ------------------------------------------------------------------------------- */

typedef struct {
  const char *name; /* NULL: not said */
  const char *value;
} binding;

typedef struct {
  binding *inputs, *shapes, *outputs;
  int32_t input_count, shape_count, output_count;
  const char *labels, *weights;
  int64_t batch; /* 0: the files hold one run */
  int64_t warmup, iterations;
  double duration;
  int32_t threads;
  int64_t max_trips;
  uint64_t seed;
  int random, json, quiet, info, timed;
} options;

TS_LOCAL void parse_options(options *out, int argc, char **argv, const ts_model *model);
/* Index of a name among `count` inputs or outputs, or -1. */
TS_LOCAL int32_t find_tensor(const ts_tensor_info *infos, int32_t count, const char *name,
                             size_t length);

/* ---- feed.c ---------------------------------------------------------------------------------- */

/* Inputs of the whole job, from files or random, in model order. */
TS_LOCAL void load_inputs(array *inputs, const ts_model *model, const options *chosen);

/* ---- report.c -------------------------------------------------------------------------------- */

typedef struct {
  int64_t *nanoseconds; /* of each run */
  int64_t runs;
  int64_t samples; /* over all runs */
  double accuracy; /* < 0: there were no labels */
} measurement;

TS_LOCAL void print_info(const ts_model *model, int json);
TS_LOCAL void print_report(const ts_model *model, const options *chosen, int32_t threads,
                           measurement *measured, const DLTensor *outputs);
/* Share of samples (rows of the last axis) whose largest element is where the label says. */
TS_LOCAL double top1_accuracy(const DLTensor *scores, const DLTensor *labels);

#endif /* TENSMITH_PROGRAM_H_ */
