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

static inline gpu *gpu_of(const ts_frame *frame) { return frame->instance->device; }

#endif /* TENSMITH_GPU_H_ */
