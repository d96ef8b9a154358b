/* An instance's part of a GPU, as the files of this folder know it. */
#ifndef TENSMITH_GPU_H_
#define TENSMITH_GPU_H_

#include <stddef.h>
#include <stdint.h>

#include "cuda.h"
#include "driver.h"

enum { NAME_BYTES = 128, USUAL_SHARED = 48 << 10 };

typedef struct {
  CUdeviceptr address;
  size_t capacity;
} gpu_memory;

/* What a caller has on the device; data is NULL where it is on the host. */
typedef struct {
  const void *data;
  size_t bytes;
} gpu_input;

enum { LAUNCH_WORDS = 2 }; /* of a launch, before its parameters */

/* Launches and copies, one behind the other, as words: see batch.c. */
typedef struct {
  int64_t *words;
  size_t count, capacity;
  uint64_t hash;
  int items;
} gpu_record;

/* A record that was seen, and from the second time on the graph that it was captured in. */
typedef struct {
  gpu_record record;
  CUgraphExec ready;
  uint64_t used; /* when it was seen last */
} gpu_graph;

enum { GRAPHS = 32 }; /* that an instance keeps; the one that was not used for longest goes */

typedef struct {
  CUdevice number;
  int ordinal;
  char name[NAME_BYTES];
  int driver_version; /* 12040: CUDA 12.4 */
  CUcontext context;
  CUstream own;     /* for captures, and for runs without a stream of the caller's */
  CUstream stream;  /* what runs work in */
  int of_caller;    /* the stream is the caller's: runs may end before their work does */
  CUevent done;     /* behind the last run's work */
  int pending;      /* that may not be done; the stream it is in may be gone by now */
  int follows;      /* the next run works in another stream than that */
  CUmodule *modules;     /* [function] */
  CUfunction *functions; /* [function] */
  const ts_image **images; /* [function]; NULL: another one computes that on this GPU */
  int untimed; /* parts have several alternatives still, of which a run takes the fastest */
  int settled; /* of how many parts that is known by now */
  gpu_memory weights, arena;
  gpu_memory *blocks;
  size_t block_count, blocks_used;
  gpu_input *inputs; /* [input] */
  gpu_record record;   /* what was not handed to the driver yet */
  gpu_graph graphs[GRAPHS];
  uint64_t clock;
  int entered;
  int waits; /* the host is to wait at the end of the run */
} gpu;

TS_LOCAL extern ts_driver ts_cuda_driver;

/* Records why the driver refused something; returns the status. */
TS_LOCAL ts_status ts_cuda_refused(ts_instance *instance, CUresult error, const char *what);
/* The same of a run, whose first error stays; returns 1. */
TS_LOCAL int32_t ts_cuda_failed(ts_frame *frame, CUresult error, const char *what);

/* tensors.c. What a run does with the caller's tensors and with the context. */
TS_LOCAL ts_status ts_cuda_bind_input(ts_instance *instance, int32_t index, const DLTensor *tensor);
TS_LOCAL ts_status ts_cuda_bind_output(ts_instance *instance, int32_t index, const DLTensor *tensor);
TS_LOCAL ts_status ts_cuda_begin(ts_instance *instance);
TS_LOCAL void ts_cuda_end(ts_instance *instance);

/* batch.c. Hands over what was recorded; other than 0 where the driver fails. */
TS_LOCAL int32_t ts_cuda_flush(ts_frame *frame);
TS_LOCAL void ts_cuda_drop_graph(gpu_graph *graph);
/* One launch of a record; edge: whether the one before may still be running while it starts. */
TS_LOCAL CUresult ts_cuda_launch(gpu *device, const struct ts_device_code *code, int64_t *words,
                                 int edge, CUstream stream);
TS_LOCAL size_t ts_cuda_launch_words(const struct ts_device_code *code, const int64_t *words);

/* alternatives.c. Leaves out the alternatives that ask for more bytes of shared memory than there are;
 * returns a function of a part of which none would be left, or -1. */
TS_LOCAL int32_t ts_cuda_fit(gpu *device, const struct ts_device_code *code, uint32_t shared);
/* Takes the alternatives that are known to be fast on this GPU, and notes whether
 * parts are left that were not timed. */
TS_LOCAL void ts_cuda_recall(gpu *device, const struct ts_device_code *code);
/* Where items begin with a call of such a part: times its alternatives but those that the driver does
 * not launch, has the fastest compute the part from now on, and the call done. used: words of the
 * call; 0: there is none, or another instance has found the fastest by now. */
TS_LOCAL CUresult ts_cuda_settle(gpu *device, const struct ts_device_code *code, int64_t *words,
                                 size_t count, CUstream stream, size_t *used);
/* Whether parts are left that were not timed. */
TS_LOCAL int ts_cuda_is_untimed(const gpu *device, const struct ts_device_code *code);

static inline gpu *gpu_of(const ts_frame *frame) { return frame->instance->device; }

#endif /* TENSMITH_GPU_H_ */
