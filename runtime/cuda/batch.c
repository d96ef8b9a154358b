/* Launches are recorded, and handed to the driver together: before the host waits for the device, or
 * copies from or to it. A record that comes again is captured in a graph, which the driver launches
 * as one; records are compared as a whole, so that a graph does what would be done without it.
 *
 * Words of a record: a launch is its function, how many programs, its tensors and sizes; a copy
 * inside the device is COPY, where to, where from, how many bytes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../device.h"
#include "gpu.h"

#define driver ts_cuda_driver

enum { COPY = -1, COPY_WORDS = 4, MAX_PARAMETERS = 128, LEAST_ITEMS = 2 };
enum { EDGES_IN_GRAPHS = 12030 }; /* the driver that captures programmatic launches */
static const uint64_t HASH_START = 14695981039346656037u, HASH_STEP = 1099511628211u; /* FNV-1a */

static int append(gpu_record *record, const int64_t *words, size_t count) {
  if (record->capacity - record->count < count) {
    const size_t capacity = 2 * (record->capacity + count);
    int64_t *grown = realloc(record->words, capacity * sizeof *grown);
    if (!grown) return -1;
    record->words = grown;
    record->capacity = capacity;
  }
  if (!record->count) record->hash = HASH_START;
  for (size_t i = 0; i < count; ++i) {
    record->words[record->count++] = words[i];
    record->hash = (record->hash ^ (uint64_t)words[i]) * HASH_STEP;
  }
  return 0;
}

static int32_t record_item(ts_frame *frame, const int64_t *words, size_t count) {
  gpu_record *record = &gpu_of(frame)->record;
  if (append(record, words, count))
    return ts_rt_fail(frame, TS_ERROR_MEMORY, "no memory for the record of launches");
  ++record->items;
  return 0;
}

int32_t ts_dev_launch(ts_frame *frame, int64_t number, int64_t programs, void *const *places,
                      const int64_t *sizes) {
  if (programs <= 0 || !gpu_of(frame)->images[number]) return 0;
  const ts_function *function = &frame->instance->model->device_code->functions[number];
  int64_t words[LAUNCH_WORDS + MAX_PARAMETERS] = {number, programs};
  if (programs > INT32_MAX || function->places + function->sizes + 2 > MAX_PARAMETERS)
    return ts_rt_fail(frame, TS_ERROR_DEVICE, "a kernel is too large to be launched");
  size_t count = LAUNCH_WORDS;
  for (int32_t i = 0; i < function->places; ++i) words[count++] = (int64_t)(uintptr_t)places[i];
  for (int32_t i = 0; i < function->sizes; ++i) words[count++] = sizes[i];
  return record_item(frame, words, count);
}

int32_t ts_dev_copy(ts_frame *frame, void *to, const void *from, int64_t bytes) {
  if (bytes <= 0) return 0;
  const int64_t words[COPY_WORDS] = {COPY, (int64_t)(uintptr_t)to, (int64_t)(uintptr_t)from, bytes};
  return record_item(frame, words, COPY_WORDS);
}

/* ---- Handing over ---------------------------------------------------------------------------- */

size_t ts_cuda_launch_words(const struct ts_device_code *code, const int64_t *words) {
  const ts_function *function = &code->functions[words[0]];
  return (size_t)(LAUNCH_WORDS + function->places + function->sizes);
}

CUresult ts_cuda_launch(gpu *device, const struct ts_device_code *code, int64_t *words, int edge,
                        CUstream stream) {
  const ts_function *function = &code->functions[words[0]];
  const ts_image *image = device->images[words[0]];
  const int32_t given = function->places + function->sizes;
  const int32_t scratch = function->scratch ? function->places - 1 : -1;
  void *parameters[MAX_PARAMETERS], *unused[2] = {NULL, NULL};
  int32_t count = 0;
  for (int32_t i = 0; i < given; ++i)
    if (i != scratch) parameters[count++] = &words[LAUNCH_WORDS + i];
  parameters[count++] = function->scratch ? (void *)&words[LAUNCH_WORDS + scratch] : &unused[0];
  parameters[count] = &unused[1];
  CUlaunchAttribute early = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION};
  early.value.programmaticStreamSerializationAllowed = 1;
  const CUlaunchConfig config = {.gridDimX = (unsigned)words[1],
                                 .gridDimY = 1,
                                 .gridDimZ = 1,
                                 .blockDimX = image->threads,
                                 .blockDimY = 1,
                                 .blockDimZ = 1,
                                 .sharedMemBytes = image->shared,
                                 .hStream = stream,
                                 .attrs = &early,
                                 .numAttrs = edge && image->waits};
  return driver.launch(&config, device->functions[words[0]], parameters, NULL);
}

/* Hands the items of a record to a stream; where that fails, `what` says at which. Functions that the
 * GPU does not take, as others of their part are faster, are passed over. */
static CUresult issue(gpu *device, const struct ts_device_code *code, const gpu_record *record,
                      CUstream stream, char *what, size_t bytes) {
  int edge = 0;
  for (size_t at = 0; at < record->count;) {
    int64_t *words = &record->words[at];
    if (words[0] == COPY) {
      const CUresult error = driver.copy_inside((CUdeviceptr)words[1], (CUdeviceptr)words[2],
                                                (size_t)words[3], stream);
      snprintf(what, bytes, "copying");
      if (error) return error;
      edge = 0;
      at += COPY_WORDS;
      continue;
    }
    const ts_function *function = &code->functions[words[0]];
    size_t used = 0;
    CUresult error = 0;
    if (device->untimed)
      error = ts_cuda_settle(device, code, words, record->count - at, stream, &used);
    if (!error && !used) {
      used = ts_cuda_launch_words(code, words);
      if (device->images[words[0]]) error = ts_cuda_launch(device, code, words, edge, stream);
    }
    if (error) {
      snprintf(what, bytes, "launching kernel '%.*s'", NAME_BYTES, function->name);
      return error;
    }
    edge = device->driver_version >= EDGES_IN_GRAPHS;
    at += used;
  }
  return 0;
}

static CUresult capture(gpu *device, const struct ts_device_code *code, gpu_graph *graph, char *what,
                        size_t bytes) {
  snprintf(what, bytes, "beginning a graph");
  CUresult error = driver.capture_begin(device->own, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  if (error) return error;
  CUgraph made = NULL;
  error = issue(device, code, &graph->record, device->own, what, bytes);
  const CUresult ended = driver.capture_end(device->own, &made);
  if (!error && ended) {
    snprintf(what, bytes, "ending a graph");
    error = ended;
  }
  if (!error) {
    snprintf(what, bytes, "making a graph ready");
    error = driver.graph_instantiate(&graph->ready, made, 0);
    if (error) graph->ready = NULL;
  }
  if (made) driver.graph_destroy(made);
  return error;
}

/* ---- Graphs ---------------------------------------------------------------------------------- */

void ts_cuda_drop_graph(gpu_graph *graph) {
  if (graph->ready) driver.ready_destroy(graph->ready);
  free(graph->record.words);
  *graph = (gpu_graph){0};
}

static int is_same(const gpu_record *a, const gpu_record *b) {
  return a->count == b->count && a->hash == b->hash &&
         !memcmp(a->words, b->words, a->count * sizeof *a->words);
}

static gpu_graph *find(gpu *device) {
  for (int i = 0; i < GRAPHS; ++i)
    if (is_same(&device->graphs[i].record, &device->record)) return &device->graphs[i];
  return NULL;
}

/* Remembers the record. Where there is no memory for that, it is not: it only saves time. */
static void remember(gpu *device) {
  gpu_graph *oldest = &device->graphs[0];
  for (int i = 1; i < GRAPHS; ++i)
    if (device->graphs[i].used < oldest->used) oldest = &device->graphs[i];
  int64_t *words = malloc(device->record.count * sizeof *words);
  if (!words) return;
  ts_cuda_drop_graph(oldest);
  memcpy(words, device->record.words, device->record.count * sizeof *words);
  oldest->record = device->record;
  oldest->record.words = words;
  oldest->record.capacity = device->record.count;
  oldest->used = ++device->clock;
}

int32_t ts_cuda_flush(ts_frame *frame) {
  gpu *device = gpu_of(frame);
  const struct ts_device_code *code = frame->instance->model->device_code;
  char what[NAME_BYTES + 32] = "";
  CUresult error = 0;
  gpu_graph *graph = device->record.items < LEAST_ITEMS ? NULL : find(device);
  if (graph) {
    graph->used = ++device->clock;
    if (!graph->ready) error = capture(device, code, graph, what, sizeof what);
    if (!error) {
      snprintf(what, sizeof what, "launching a graph");
      error = driver.graph_launch(graph->ready, device->stream);
    }
  } else if (device->record.items) {
    const int before = device->settled;
    error = issue(device, code, &device->record, device->stream, what, sizeof what);
    const int same = device->settled == before; /* else later records are without the slower ones */
    if (!error && same && device->record.items >= LEAST_ITEMS) remember(device);
    if (!same) device->untimed = ts_cuda_is_untimed(device, code);
  }
  device->record.count = 0;
  device->record.items = 0;
  return error ? ts_cuda_failed(frame, error, what) : 0;
}
