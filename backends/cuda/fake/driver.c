/* A stand-in for libcuda.so.1 on machines without a GPU. Memory of the device is memory of the host,
 * poisoned; modules are read as what they are, cubins or PTX; every call is checked by the rules of the
 * driver that can be; launches are handed to a function that the process has set, which computes
 * what the kernel's source says. Of a GPU's speed, and of its own code, it shows nothing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/driver.h"

#define EXPORT __attribute__((visibility("default")))
enum { INVALID_VALUE = 1, NOT_INITIALIZED = 3, INVALID_IMAGE = 200, INVALID_CONTEXT = 201,
       INVALID_DEVICE = 101, NOT_FOUND = 500, LAUNCH_FAILED = 719, INVALID_HANDLE = 400, CAPTURING = 900,
       NOT_CAPTURING = 901 };
enum { MACHINE = 190, PARAMETER = 0x17, NEW_ABI = 65, USUAL_SHARED = 48 << 10, MAX_THREADS = 1024,
       ALIGNMENT = 256, POISON = 0xFF, NAME = 128, MAX_PARAMETERS = 128 };

typedef int (*launch_function)(const char *file, const char *kernel, unsigned programs, int count,
                               void **parameters);

struct CUfunc_st {
  char name[NAME];
  int count, sizes[MAX_PARAMETERS], shared_limit;
  const char *file;
  CUfunction next;
};
struct CUmod_st { CUfunction functions; int ptx; const char *file; };
struct CUctx_st { int references; };

/* A launch, or a copy inside the device. */
typedef struct item {
  CUfunction function; /* NULL: a copy */
  unsigned programs;
  int64_t values[MAX_PARAMETERS];
  CUdeviceptr to, from;
  size_t bytes;
  struct item *next;
} item;
struct CUevent_st { int recorded; };
struct CUgraph_st { item *first, **last; };
struct CUgraphExec_st { item *first; };
struct CUstream_st { CUcontext context; CUgraph capturing; };

typedef struct block { CUdeviceptr address; size_t bytes; void *memory; struct block *next; } block;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static block *blocks;
static struct CUctx_st primary;
static int initialised, capability = 80, shared_optin = 166912, device_count = 1;
static size_t live_bytes, live_objects, graph_launches, early_launches;
static launch_function launched;
static char failing[NAME];
static int failing_in, failing_with;
static __thread int entered;

/* ---- What tests and the interpreter set ------------------------------------------------------- */

EXPORT void tensmith_fake_launches(launch_function function) { launched = function; }
EXPORT void tensmith_fake_device(int count, int compute_capability, int shared) {
  device_count = count;
  capability = compute_capability;
  shared_optin = shared;
}
/* The call number `after` (1: the next one) of a function fails with an error. */
EXPORT void tensmith_fake_failure(const char *function, int after, int error) {
  snprintf(failing, sizeof failing, "%s", function);
  failing_in = after;
  failing_with = error;
}
EXPORT size_t tensmith_fake_live_bytes(void) { return live_bytes; }
/* Contexts, modules and streams that were made and not ended. */
EXPORT size_t tensmith_fake_live_objects(void) { return live_objects; }

/* Graphs that were launched, and launches that were allowed to overlap with the one before. */
EXPORT size_t tensmith_fake_graph_launches(void) { return graph_launches; }
EXPORT size_t tensmith_fake_early_launches(void) { return early_launches; }

static CUresult begin(const char *function, int needs_context) {
  CUresult error = 0;
  pthread_mutex_lock(&lock);
  if (failing_in > 0 && !strcmp(function, failing) && --failing_in == 0) error = failing_with;
  pthread_mutex_unlock(&lock);
  if (error) return error;
  if (!initialised && strcmp(function, "cuInit")) return NOT_INITIALIZED;
  return needs_context && !entered ? INVALID_CONTEXT : 0;
}
#define BEGIN(needs_context)                                \
  do {                                                      \
    const CUresult error_ = begin(__func__, needs_context); \
    if (error_) return error_;                              \
  } while (0)

/* ---- Devices and contexts --------------------------------------------------------------------- */

EXPORT CUresult cuInit(unsigned flags) {
  BEGIN(0);
  if (flags) return INVALID_VALUE;
  initialised = 1;
  return device_count ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}
EXPORT CUresult cuDriverGetVersion(int *version) {
  BEGIN(0);
  *version = 12040;
  return 0;
}
EXPORT CUresult cuDeviceGetCount(int *count) {
  BEGIN(0);
  *count = device_count;
  return 0;
}
EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  BEGIN(0);
  if (ordinal < 0 || ordinal >= device_count) return INVALID_DEVICE;
  *device = ordinal;
  return 0;
}
EXPORT CUresult cuDeviceGetName(char *name, int bytes, CUdevice device) {
  BEGIN(0);
  snprintf(name, (size_t)bytes, "no GPU (an interpreter of sm_%d, device %d)", capability, device);
  return 0;
}
EXPORT CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  BEGIN(0);
  if (device < 0 || device >= device_count) return INVALID_DEVICE;
  if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) *value = capability / 10;
  else if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR) *value = capability % 10;
  else if (attribute == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN) *value = shared_optin;
  else return INVALID_VALUE;
  return 0;
}
static void object(int change) {
  pthread_mutex_lock(&lock);
  live_objects += (size_t)change;
  pthread_mutex_unlock(&lock);
}
EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  BEGIN(0);
  if (device < 0 || device >= device_count) return INVALID_DEVICE;
  object(1);
  *context = &primary;
  return 0;
}
EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  BEGIN(0);
  object(-1);
  return device < 0 || device >= device_count ? INVALID_DEVICE : 0;
}
EXPORT CUresult cuCtxPushCurrent_v2(CUcontext context) {
  BEGIN(0);
  if (context != &primary) return INVALID_CONTEXT;
  ++entered;
  return 0;
}
EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *context) {
  BEGIN(1);
  --entered;
  *context = &primary;
  return 0;
}

EXPORT CUresult cuCtxSynchronize(void) {
  BEGIN(1);
  return 0;
}

/* ---- Modules ---------------------------------------------------------------------------------- */

#define READ(type, pointer) (__extension__({ type value_; memcpy(&value_, pointer, sizeof value_); value_; }))

static CUfunction new_function(CUmodule module, const char *name, size_t length) {
  CUfunction function = calloc(1, sizeof *function);
  snprintf(function->name, sizeof function->name, "%.*s", (int)length, name);
  function->shared_limit = USUAL_SHARED;
  function->file = module->file;
  function->next = module->functions;
  module->functions = function;
  return function;
}

static void read_parameters(CUfunction function, const uint8_t *at, const uint8_t *end) {
  while (at + 4 <= end) {
    const int format = at[0], attribute = at[1], value = READ(uint16_t, at + 2);
    at += 4;
    if (format != 4) continue;
    if (attribute == PARAMETER) {
      const int ordinal = READ(uint16_t, at + 4);
      if (ordinal < MAX_PARAMETERS) function->sizes[ordinal] = (int)(READ(uint32_t, at + 8) >> 18);
      if (ordinal >= function->count) function->count = ordinal + 1;
    }
    at += value;
  }
}

static CUresult load_cubin(CUmodule module, const uint8_t *image) {
  if (READ(uint16_t, image + 18) != MACHINE) return INVALID_IMAGE;
  const uint32_t flags = READ(uint32_t, image + 48);
  const int architecture = (int)((image[7] == NEW_ABI ? flags >> 8 : flags) & 255);
  const int fits = architecture < 90 ? architecture / 10 == capability / 10 && architecture <= capability
                                     : architecture == capability;
  if (!fits) return CUDA_ERROR_NO_BINARY_FOR_GPU;
  const uint8_t *sections = image + READ(uint64_t, image + 0x28);
  const int entry = READ(uint16_t, image + 0x3a), count = READ(uint16_t, image + 0x3c);
  const int names = READ(uint16_t, image + 0x3e);
  const char *strings = (const char *)image + READ(uint64_t, sections + names * entry + 24);
  for (int i = 0; i < count; ++i) {
    const uint8_t *section = sections + i * entry;
    const char *name = strings + READ(uint32_t, section);
    if (strncmp(name, ".nv.info.", 9)) continue;
    const uint8_t *content = image + READ(uint64_t, section + 24);
    read_parameters(new_function(module, name + 9, strlen(name + 9)), content,
                    content + READ(uint64_t, section + 32));
  }
  return 0;
}

static CUresult load_ptx(CUmodule module, const char *text) {
  const char *target = strstr(text, ".target sm_"), *entry = strstr(text, ".entry ");
  if (!target || !entry) return INVALID_IMAGE;
  if (atoi(target + 11) > capability) return CUDA_ERROR_NO_BINARY_FOR_GPU;
  entry += 7;
  CUfunction function = new_function(module, entry, strcspn(entry, "("));
  const char *end = strchr(entry, ')');
  for (const char *at = strstr(entry, ".param "); at && at < end; at = strstr(at + 1, ".param "))
    if (function->count < MAX_PARAMETERS) function->sizes[function->count++] = 8;
  module->ptx = 1;
  return 0;
}

EXPORT CUresult cuModuleUnload(CUmodule module) {
  BEGIN(1);
  for (CUfunction next, at = module->functions; at; at = next) {
    next = at->next;
    free(at);
  }
  free(module);
  object(-1);
  return 0;
}
EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  BEGIN(1);
  Dl_info info;
  CUmodule made = calloc(1, sizeof *made);
  made->file = dladdr(image, &info) && info.dli_fname ? info.dli_fname : "";
  const int elf = !memcmp(image, "\177ELF", 4);
  const CUresult error = elf ? load_cubin(made, image) : load_ptx(made, image);
  object(1);
  if (error) cuModuleUnload(made);
  else *module = made;
  return error;
}
EXPORT CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  BEGIN(1);
  for (CUfunction at = module->functions; at; at = at->next)
    if (!strcmp(at->name, name)) {
      *function = at;
      return 0;
    }
  return NOT_FOUND;
}
EXPORT CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  BEGIN(1);
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value > shared_optin)
    return INVALID_VALUE;
  function->shared_limit = value;
  return 0;
}

/* ---- Memory ----------------------------------------------------------------------------------- */

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
  BEGIN(1);
  if (!bytes) return INVALID_VALUE;
  block *made = calloc(1, sizeof *made);
  const size_t whole = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (posix_memalign(&made->memory, ALIGNMENT, whole)) {
    free(made);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  memset(made->memory, POISON, whole);
  made->address = *address = (CUdeviceptr)(uintptr_t)made->memory;
  made->bytes = bytes;
  pthread_mutex_lock(&lock);
  made->next = blocks;
  blocks = made;
  live_bytes += bytes;
  pthread_mutex_unlock(&lock);
  return 0;
}
EXPORT CUresult cuMemFree_v2(CUdeviceptr address) {
  BEGIN(1);
  CUresult error = INVALID_VALUE;
  pthread_mutex_lock(&lock);
  for (block **at = &blocks; *at; at = &(*at)->next)
    if ((*at)->address == address) {
      block *found = *at;
      *at = found->next;
      live_bytes -= found->bytes;
      free(found->memory);
      free(found);
      error = 0;
      break;
    }
  pthread_mutex_unlock(&lock);
  return error;
}
static int inside(CUdeviceptr address, size_t bytes) {
  int found = 0;
  pthread_mutex_lock(&lock);
  for (block *at = blocks; at && !found; at = at->next)
    found = address >= at->address && address - at->address <= at->bytes &&
            bytes <= at->bytes - (address - at->address);
  pthread_mutex_unlock(&lock);
  return found;
}
EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
  BEGIN(1);
  if (!stream) return INVALID_HANDLE;
  if (stream->capturing) return CAPTURING;
  if (!inside(to, bytes)) return INVALID_VALUE;
  memcpy((void *)(uintptr_t)to, from, bytes);
  return 0;
}
EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  BEGIN(1);
  if (!stream) return INVALID_HANDLE;
  if (stream->capturing) return CAPTURING;
  if (!inside(from, bytes)) return INVALID_VALUE;
  memcpy(to, (const void *)(uintptr_t)from, bytes);
  return 0;
}
/* ---- Streams and launches --------------------------------------------------------------------- */

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
  return stream ? 0 : INVALID_HANDLE;
}

EXPORT CUresult cuEventCreate(CUevent *event, unsigned flags) {
  BEGIN(1);
  if (flags != CU_EVENT_DISABLE_TIMING) return INVALID_VALUE;
  *event = calloc(1, sizeof **event);
  object(1);
  return 0;
}
EXPORT CUresult cuEventRecord(CUevent event, CUstream stream) {
  BEGIN(1);
  if (!stream || stream->capturing) return INVALID_HANDLE;
  event->recorded = 1;
  return 0;
}
EXPORT CUresult cuEventSynchronize(CUevent event) {
  BEGIN(1);
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
  if (!launched) return LAUNCH_FAILED;
  void *parameters[MAX_PARAMETERS];
  for (int i = 0; i < work->function->count; ++i) parameters[i] = &work->values[i];
  const int failed = launched(work->function->file, work->function->name, work->programs,
                              work->function->count, parameters);
  return failed ? LAUNCH_FAILED : 0;
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
        config->attrs[i].value.programmaticStreamSerializationAllowed != 1 || capability < 90)
      return INVALID_VALUE;
  early_launches += config->numAttrs;
  item work = {.function = function, .programs = config->gridDimX};
  for (int i = 0; i < function->count; ++i) {
    if (function->sizes[i] != 8 || !parameters[i]) return INVALID_VALUE;
    work.values[i] = READ(int64_t, parameters[i]);
  }
  return work_in(config->hStream, &work);
}

/* ---- Graphs ----------------------------------------------------------------------------------- */

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
  ++graph_launches;
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

/* ---- Errors ----------------------------------------------------------------------------------- */

static const struct { CUresult error; const char *name, *text; } errors[] = {
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CAPTURING, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {NOT_CAPTURING, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "the stream is not capturing"},
};
EXPORT CUresult cuGetErrorName(CUresult error, const char **name) {
  for (size_t i = 0; i < sizeof errors / sizeof errors[0]; ++i)
    if (errors[i].error == error) return *name = errors[i].name, 0;
  return INVALID_VALUE;
}
EXPORT CUresult cuGetErrorString(CUresult error, const char **text) {
  for (size_t i = 0; i < sizeof errors / sizeof errors[0]; ++i)
    if (errors[i].error == error) return *text = errors[i].text, 0;
  return INVALID_VALUE;
}
