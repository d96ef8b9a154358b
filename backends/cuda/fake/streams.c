/* Streams, launches, and graphs of what was captured. */
#include "state.h"

#include <stdlib.h>

/* A launch, or a copy inside the device. */
typedef struct item {
  CUfunction function; /* NULL: a copy */
  unsigned programs;
  int64_t values[MAX_PARAMETERS];
  CUdeviceptr to, from;
  size_t bytes;
  struct item *next;
} item;
struct CUevent_st { int recorded, timing; double at; };
struct CUgraph_st { item *first, **last; };
struct CUgraphExec_st { item *first; };

EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
  BEGIN(1);
  if (flags > CU_STREAM_NON_BLOCKING) return INVALID_VALUE;
  *stream = calloc(1, sizeof **stream);
  (*stream)->context = &primary;
  object(1);
  return 0;
}
EXPORT CUresult cuStreamDestroy_v2(CUstream stream) {
  BEGIN(1);
  free(stream);
  object(-1);
  return 0;
}
EXPORT CUresult cuStreamSynchronize(CUstream stream) {
  BEGIN(1);
  if (stream && stream->capturing) return CAPTURING;
  if (fake.hanging) return BLOCKED;
  return stream ? 0 : INVALID_HANDLE;
}

EXPORT CUresult cuEventCreate(CUevent *event, unsigned flags) {
  BEGIN(1);
  if (flags && flags != CU_EVENT_DISABLE_TIMING) return INVALID_VALUE;
  *event = calloc(1, sizeof **event);
  (*event)->timing = !flags;
  object(1);
  return 0;
}
EXPORT CUresult cuEventRecord(CUevent event, CUstream stream) {
  BEGIN(1);
  if (!stream || stream->capturing) return INVALID_HANDLE;
  event->recorded = 1;
  event->at = fake.clock;
  return 0;
}
EXPORT CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
  BEGIN(1);
  const int timed = start->recorded && start->timing && end->recorded && end->timing;
  if (!timed) return INVALID_HANDLE;
  *milliseconds = (float)(end->at - start->at);
  return 0;
}
EXPORT CUresult cuEventSynchronize(CUevent event) {
  BEGIN(1);
  if (fake.hanging) return BLOCKED;
  return event->recorded ? 0 : INVALID_VALUE;
}
EXPORT CUresult cuEventQuery(CUevent event) {
  BEGIN(1);
  if (fake.hanging) return NOT_READY;
  return event->recorded ? 0 : INVALID_VALUE;
}
EXPORT CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
  BEGIN(1);
  return stream && event->recorded && !flags ? 0 : INVALID_VALUE;
}
EXPORT CUresult cuEventDestroy_v2(CUevent event) {
  BEGIN(1);
  free(event);
  object(-1);
  return 0;
}

static CUresult run_item(item *work) {
  if (!work->function) {
    if (!inside(work->from, work->bytes) || !inside(work->to, work->bytes)) return INVALID_VALUE;
    memmove((void *)(uintptr_t)work->to, (const void *)(uintptr_t)work->from, work->bytes);
    return 0;
  }
  if (!fake.launched) return LAUNCH_FAILED;
  void *parameters[MAX_PARAMETERS];
  for (int i = 0; i < work->function->count; ++i) parameters[i] = &work->values[i];
  if (fake.hanging) return 0;
  const int failed = fake.launched(work->function->file, work->function->name, work->programs,
                              work->function->count, parameters);
  fake.hanging = failed == HANGS;
  return failed && !fake.hanging ? LAUNCH_FAILED : 0;
}

/* Runs an item, or puts it into the graph that the stream captures. */
static CUresult work_in(CUstream stream, const item *work) {
  item *made = malloc(sizeof *made);
  *made = *work;
  made->next = NULL;
  if (stream->capturing) {
    *stream->capturing->last = made;
    stream->capturing->last = &made->next;
    return 0;
  }
  const CUresult error = run_item(made);
  free(made);
  return error;
}

EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  BEGIN(1);
  if (!stream) return INVALID_HANDLE;
  if (!inside(from, bytes) || !inside(to, bytes)) return INVALID_VALUE;
  const item work = {.to = to, .from = from, .bytes = bytes};
  return work_in(stream, &work);
}
EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters,
                                 void **extra) {
  BEGIN(1);
  if (!config->hStream) return INVALID_HANDLE;
  const unsigned threads = config->blockDimX * config->blockDimY * config->blockDimZ;
  const int grid = config->gridDimX && config->gridDimX <= INT32_MAX && config->gridDimY == 1 &&
                   config->gridDimZ == 1;
  if (!grid || !threads || threads > MAX_THREADS || extra ||
      config->sharedMemBytes > (unsigned)function->shared_limit)
    return INVALID_VALUE;
  for (unsigned i = 0; i < config->numAttrs; ++i)
    if (config->attrs[i].id != CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION ||
        config->attrs[i].value.programmaticStreamSerializationAllowed != 1 || fake.capability < 90)
      return INVALID_VALUE;
  fake.early_launches += config->numAttrs;
  item work = {.function = function, .programs = config->gridDimX};
  for (int i = 0; i < function->count; ++i) {
    if (function->sizes[i] != 8 || !parameters[i]) return INVALID_VALUE;
    work.values[i] = READ(int64_t, parameters[i]);
  }
  return work_in(config->hStream, &work);
}

static void free_items(item *first) {
  for (item *next; first; first = next) {
    next = first->next;
    free(first);
  }
}
EXPORT CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
  BEGIN(1);
  if (!stream || mode != CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) return INVALID_VALUE;
  if (stream->capturing) return CAPTURING;
  stream->capturing = calloc(1, sizeof *stream->capturing);
  stream->capturing->last = &stream->capturing->first;
  object(1);
  return 0;
}
EXPORT CUresult cuGraphDestroy(CUgraph graph) {
  BEGIN(1);
  free_items(graph->first);
  free(graph);
  object(-1);
  return 0;
}
/* A capture that cannot be ended has ended all the same. */
EXPORT CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
  const CUresult error = begin(__func__, 1);
  if (!stream->capturing) return NOT_CAPTURING;
  if (error) cuGraphDestroy(stream->capturing);
  *graph = error ? NULL : stream->capturing;
  stream->capturing = NULL;
  return error;
}
EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *ready, CUgraph graph, unsigned long long flags) {
  BEGIN(1);
  if (flags || !graph->first) return INVALID_VALUE;
  *ready = calloc(1, sizeof **ready);
  item **last = &(*ready)->first;
  for (const item *at = graph->first; at; at = at->next) {
    *last = malloc(sizeof **last);
    **last = *at;
    last = &(*last)->next;
  }
  object(1);
  return 0;
}
EXPORT CUresult cuGraphLaunch(CUgraphExec ready, CUstream stream) {
  BEGIN(1);
  if (!stream) return INVALID_HANDLE;
  if (stream->capturing) return CAPTURING;
  ++fake.graph_launches;
  CUresult error = 0;
  for (item *at = ready->first; at && !error; at = at->next) error = run_item(at);
  return error;
}
EXPORT CUresult cuGraphExecDestroy(CUgraphExec ready) {
  BEGIN(1);
  free_items(ready->first);
  free(ready);
  object(-1);
  return 0;
}
