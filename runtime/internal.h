/* The runtime's own types. */
#ifndef TENSMITH_INTERNAL_H_
#define TENSMITH_INTERNAL_H_

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "plan_abi.h"
#include "tensmith.h"

/* ---- Model description: one constant table per model, written by the linker driver ----------- */

typedef struct {
  int64_t least, most;
} ts_bounds;

typedef struct { /* of an input; in the weights */
  int present;
  const int64_t *shape;
  uint64_t offset;
} ts_default;

typedef struct ts_device_services { /* of a device beside the host */
  /* fills instance->device, frees nothing on failure; options may be NULL */
  ts_status (*open)(ts_instance *instance, const ts_options *options);
  void (*close)(ts_instance *instance); /* of an instance that was opened, or not wholly */
  ts_status (*set_stream)(ts_instance *instance, void *stream);
  /* Look at a tensor of the caller before a run; those on the host are no matter of the device. */
  ts_status (*bind_input)(ts_instance *instance, int32_t index, const DLTensor *tensor);
  ts_status (*bind_output)(ts_instance *instance, int32_t index, const DLTensor *tensor);
  ts_status (*begin)(ts_instance *instance);
  void (*end)(ts_instance *instance); /* of a run that began, on the same thread */
} ts_device_services;

struct ts_model {
  uint32_t abi_version;
  int32_t input_count;
  int32_t output_count;
  int32_t symbol_count;
  int32_t feature_count;
  const char *name;
  const char *manifest;
  const ts_tensor_info *inputs;
  const ts_tensor_info *outputs;
  const int32_t *const *input_symbols; /* [input][dimension]: index of the symbol, -1 if fixed */
  const ts_bounds *symbol_bounds;      /* [symbol] */
  const ts_default *input_defaults;    /* [input] */
  const char *const *features;         /* CPU features that the code needs */
  ts_plan plan;
  const uint8_t *weights;     /* NULL: in a side file */
  const char *weights_file;   /* name of the side file; "": behind the binary; NULL: linked in */
  uint64_t weights_bytes;
  const uint8_t *weights_tag; /* digest of the side file's data, WEIGHTS_TAG_BYTES long */
  int32_t stages;       /* of a cascade; 0: it is none */
  int32_t stage_output; /* that says which stage has answered a row */
  const ts_device_services *device; /* NULL: the model runs on the host alone */
  const struct ts_device_code *device_code;
};

enum { IDLE, RUNNING, CANCELLED };
enum { WEIGHTS_TAG_BYTES = 32, ALIGNMENT = 64, MESSAGE_BYTES = 1024, MAX_THREADS = 1024 };

/* ---- Instance -------------------------------------------------------------------------------- */

typedef struct ts_pool ts_pool;

typedef struct {
  void *data;
  size_t capacity;
} ts_block;

typedef struct {
  ts_block copy;    /* contiguous copy of an input, or an output that the instance owns */
  DLTensor *tensor; /* outputs: the caller's descriptor during a run */
  int64_t *shape;   /* outputs: room for ndim sizes and ndim strides */
  int done;         /* outputs: written in this run */
} ts_slot;

struct ts_instance {
  const ts_model *model; /* NULL: creation failed */
  ts_pool *pool;         /* NULL: one thread */
  int32_t threads;
  const uint8_t *weights;
  void *device; /* of the services' own */
  void *mapping; /* side file of weights */
  size_t mapping_bytes;
  ts_block arena;
  ts_block *blocks; /* of ts_rt_alloc, kept for the next run */
  size_t block_count, blocks_used;
  ts_slot *inputs, *outputs;
  const void **input_data;
  int64_t *symbols;
  int64_t max_trips; /* INT64_MAX: no limit */
  int32_t idle;
  ts_cache *cache; /* NULL: none */
  atomic_int state; /* of the run: IDLE, RUNNING or CANCELLED */
  atomic_int failed;
  _Atomic int64_t calls, rows, answered[TS_MOST_STAGES]; /* see ts_counters */
  ts_status status;
  char message[MESSAGE_BYTES];
};

/* Formats the instance's message; returns status. */
TS_LOCAL ts_status ts_error(ts_instance *instance, ts_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- Parts ----------------------------------------------------------------------------------- */

/* memory.c. Grows a block to at least `bytes` (old contents are lost); 0, or -1 without memory. */
TS_LOCAL int ts_block_reserve(ts_block *block, size_t bytes);
TS_LOCAL void ts_block_free(ts_block *block);

/* cpu.c. Name of the first feature that this CPU or operating system lacks, or NULL. */
TS_LOCAL const char *ts_cpu_missing(const char *const *features, int32_t count);
/* The features that are looked for; the name of one, or NULL where it is missing. */
TS_LOCAL int32_t ts_cpu_feature_count(void);
TS_LOCAL const char *ts_cpu_feature(int32_t index);
TS_LOCAL int32_t ts_cpu_count(void);
/* Flush subnormals to zero; returns what ts_fp_restore needs. */
TS_LOCAL uint64_t ts_fp_flush(void);
TS_LOCAL void ts_fp_restore(uint64_t state);

/* pool.c. NULL if threads could not be started. */
TS_LOCAL ts_pool *ts_pool_create(int32_t threads);
TS_LOCAL void ts_pool_destroy(ts_pool *pool);
/* Threads of the pool do not spin but between `ts_pool_begin` and `ts_pool_end` of a run. */
TS_LOCAL void ts_pool_park(ts_pool *pool);
TS_LOCAL void ts_pool_begin(ts_pool *pool);
TS_LOCAL void ts_pool_end(ts_pool *pool);
TS_LOCAL void ts_pool_run(ts_pool *pool, void (*fn)(void *, int64_t, int64_t, int64_t), void *args,
                          int64_t count);
/* Whether the pool was made by a process that this one was forked from: its threads are gone. */
TS_LOCAL int ts_pool_orphaned(const ts_pool *pool);

/* weights.c. Finds and maps the weights of the instance's model. */
TS_LOCAL ts_status ts_weights_open(ts_instance *instance, const char *path);
TS_LOCAL void ts_weights_close(ts_instance *instance);

/* tensor.c */
TS_LOCAL size_t ts_item_bytes(DLDataType dtype);
/* Bytes of a compact tensor, or -1 if a size is negative or the product overflows. */
TS_LOCAL int64_t ts_tensor_bytes(DLDataType dtype, int32_t ndim, const int64_t *shape);
TS_LOCAL int ts_is_compact(const DLTensor *tensor);
TS_LOCAL void ts_copy_compact(void *to, const DLTensor *from);
TS_LOCAL const char *ts_dtype_name(DLDataType dtype);
/* "[1, 3, N]" into `text`; dimension names where they are known. */
TS_LOCAL void ts_shape_text(char *text, size_t bytes, int32_t ndim, const int64_t *shape,
                            const char *const *names);

/* counters.c. Adds a run that has succeeded. */
TS_LOCAL void ts_count_run(ts_instance *instance);

/* cache.c. Of the inputs that are bound; whether a cache had the answer, whose outputs are then where
 * a run puts them; and what a run that has succeeded leaves there. */
TS_LOCAL uint64_t ts_cache_hash(const ts_instance *instance);
TS_LOCAL int ts_cache_answer(ts_cache *cache, ts_instance *instance, uint64_t hash);
TS_LOCAL void ts_cache_keep(ts_cache *cache, const ts_instance *instance, uint64_t hash);

/* check.c. Fill instance->input_data and instance->symbols; check the outputs that callers own. */
TS_LOCAL ts_status ts_bind_inputs(ts_instance *instance, const DLTensor *inputs, int32_t count);
TS_LOCAL ts_status ts_bind_outputs(ts_instance *instance, DLTensor *outputs);

#endif /* TENSMITH_INTERNAL_H_ */
