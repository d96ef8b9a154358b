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
/* Ends the program with the instance's message where a call has failed. */
TS_LOCAL void check(ts_status status, const ts_instance *instance);
/* Nanoseconds of a clock that only goes on. */
TS_LOCAL int64_t now(void);

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
  int32_t threads, instances;
  int64_t cache_bytes; /* 0: no cache of responses */
  double load; /* calls per second that arrive by chance; 0: one behind the other */
  int64_t max_trips;
  uint64_t seed;
  int random, json, quiet, info, timed, measure, parks;
} options;

TS_LOCAL void parse_options(options *out, int argc, char **argv, const ts_model *model);
/* Index of a name among `count` inputs or outputs, or -1. */
TS_LOCAL int32_t find_tensor(const ts_tensor_info *infos, int32_t count, const char *name,
                             size_t length);

/* ---- feed.c ---------------------------------------------------------------------------------- */

/* Inputs of the whole job, from files or random, in model order. */
TS_LOCAL void load_inputs(array *inputs, const ts_model *model, const options *chosen);

/* ---- samples.c ------------------------------------------------------------------------------- */

/* How an input is cut: `step` entries of axis 0 per run (0: whole every time); `drop`: an axis that
 * the model does not have. */
typedef struct {
  int64_t step, count;
  int drop;
} cut;

/* Runs that an input is cut into. */
TS_LOCAL int64_t runs_of(cut c);
/* Runs over all samples, `batch` of a model of open size at a time; inputs that hold a single run
 * are given to every one. */
TS_LOCAL int64_t plan_cuts(const ts_model *model, const array *inputs, int64_t batch, cut *cuts);
/* What a run gets of an input; `shape` has room for its sizes. */
TS_LOCAL DLTensor slice_of(const DLTensor *whole, cut c, int64_t run, int64_t *shape);

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
TS_LOCAL void print_json_string(const char *text);
/* The p-th percentile of sorted nanoseconds, in seconds, interpolated linearly. */
TS_LOCAL double percentile(const int64_t *sorted, int64_t count, double p);
TS_LOCAL void sort_times(int64_t *nanoseconds, int64_t count);
/* Share of samples (rows of the last axis) whose largest element is where the label says. */
TS_LOCAL double top1_accuracy(const DLTensor *scores, const DLTensor *labels);

/* ", "cache": {...}", or null without one. */
TS_LOCAL void print_cache_json(ts_cache *cache);

/* ---- probe.c --------------------------------------------------------------------------------- */

/* --measure: runs in several instances at once, or as calls arrive, and tells what that took. */
TS_LOCAL void probe(const ts_model *model, const options *chosen, const ts_options *settings,
                    const array *inputs);

/* ---- energy.c -------------------------------------------------------------------------------- */

/* Counters of all processor packages; `reason`: why there are none, "" where there are. */
typedef struct {
  int packages;
  uint64_t microjoules[16], range[16];
  char reason[320];
} energy;

TS_LOCAL void read_energy(energy *out);
/* Joules between two readings. A counter that is below its earlier value has wrapped around once. */
TS_LOCAL double joules_between(const energy *before, const energy *after);

#endif /* TENSMITH_PROGRAM_H_ */
