/* Runs models on NVIDIA's GPUs by their driver, which is found when the first model is opened.
 * An instance has a stream, its functions and its memory; the context is the device's primary one,
 * which it shares with other libraries of the process. */
#include "cuda.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../device.h"
#include "driver.h"

#define LIBRARY "libcuda.so.1"
#define NEEDED_DRIVER "driver 525 (CUDA 12.0) or newer"
enum { USUAL_SHARED = 48 << 10, MAX_PARAMETERS = 128, NAME_BYTES = 128 };

typedef struct {
  CUdeviceptr address;
  size_t capacity;
} memory;

typedef struct {
  CUdevice number;
  CUcontext context;
  CUstream stream;
  CUmodule *modules;     /* [function] */
  CUfunction *functions; /* [function] */
  const ts_image **images;
  memory weights, arena;
  memory *blocks;
  size_t block_count, blocks_used;
  int entered;
} gpu;

static ts_driver driver;

/* ---- The driver ------------------------------------------------------------------------------ */

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

static ts_status find_driver(ts_instance *instance) {
  static int found;
  ts_status status = TS_OK;
  pthread_mutex_lock(&loading);
  if (!found) {
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    const char *missing = NULL;
    if (!library) {
      status = ts_error(instance, TS_ERROR_DEVICE,
                        "the NVIDIA driver cannot be loaded (%s): model '%s' needs an NVIDIA GPU and "
                        NEEDED_DRIVER, dlerror(), instance->model->name);
    } else {
#define FIND(member, symbol, parameters)                \
  *(void **)&driver.member = dlsym(library, symbol);    \
  if (!driver.member && !missing) missing = symbol;
      TS_DRIVER_FUNCTIONS(FIND)
#undef FIND
      if (missing)
        status = ts_error(instance, TS_ERROR_DEVICE,
                          LIBRARY " has no '%s': install NVIDIA's " NEEDED_DRIVER, missing);
    }
    found = !status;
  }
  pthread_mutex_unlock(&loading);
  return status;
}

static ts_status refused(ts_instance *instance, CUresult error, const char *what) {
  const char *name = "an unknown error", *text = "";
  driver.error_name(error, &name);
  driver.error_text(error, &text);
  const ts_status status = error == CUDA_ERROR_OUT_OF_MEMORY ? TS_ERROR_MEMORY : TS_ERROR_DEVICE;
  const char *remedy = error == CUDA_ERROR_OUT_OF_MEMORY
                           ? "; give smaller batches, or end other programs that use the GPU"
                           : "";
  return ts_error(instance, status, "%s failed on the GPU: %s (%d), %s%s", what, name, error, text,
                  remedy);
}

/* Of a run: the first error stays. */
static int32_t failed(ts_frame *frame, CUresult error, const char *what) {
  if (!atomic_exchange(&frame->instance->failed, 1)) refused(frame->instance, error, what);
  return 1;
}

/* ---- Opening --------------------------------------------------------------------------------- */

static ts_status choose_images(ts_instance *instance, gpu *device) {
  const struct ts_device_code *code = instance->model->device_code;
  int major = 0, minor = 0, shared = 0;
  char name[NAME_BYTES] = "";
  driver.device_name(name, sizeof name, device->number);
  CUresult error =
      driver.device_attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device->number);
  if (!error)
    error = driver.device_attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                                    device->number);
  if (!error)
    error = driver.device_attribute(&shared, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
                                    device->number);
  if (error) return refused(instance, error, "asking for the GPU's properties");
  const int here = 10 * major + minor;
  for (int32_t f = 0; f < code->function_count; ++f) {
    const ts_function *function = &code->functions[f];
    const ts_image *best = NULL;
    for (int32_t i = 0; i < function->image_count; ++i) {
      const ts_image *image = &function->images[i];
      /* Code of 9.0 and later is for its own architecture alone, older code for a generation. */
      const int same = image->architecture == here ||
                       (image->architecture < 90 && image->architecture / 10 == major);
      if (image->architecture > here || (!image->ptx && !same)) continue;
      if (!best || image->ptx < best->ptx ||
          (image->ptx == best->ptx && image->architecture > best->architecture))
        best = image;
    }
    if (!best)
      return ts_error(instance, TS_ERROR_DEVICE,
                      "%s has compute capability %d.%d, and model '%s' code for %s alone: compile it "
                      "for --target cuda:sm_%d",
                      name, major, minor, instance->model->name, code->architectures, here);
    if (best->shared > (uint32_t)shared)
      return ts_error(instance, TS_ERROR_DEVICE,
                      "kernel '%s' needs %u bytes of shared memory, %s has %d: compile the model for "
                      "--target cuda:sm_%d",
                      function->name, best->shared, name, shared, here);
    device->images[f] = best;
  }
  return TS_OK;
}

static ts_status load_functions(ts_instance *instance, gpu *device) {
  const struct ts_device_code *code = instance->model->device_code;
  for (int32_t f = 0; f < code->function_count; ++f) {
    const ts_image *image = device->images[f];
    const char *name = code->functions[f].name;
    CUresult error = driver.module_load(&device->modules[f], code->images + image->offset);
    if (!error) error = driver.module_function(&device->functions[f], device->modules[f], name);
    if (!error && image->shared > USUAL_SHARED)
      error = driver.function_attribute(device->functions[f],
                                        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                        (int)image->shared);
    if (error) {
      char what[NAME_BYTES + 32];
      snprintf(what, sizeof what, "loading kernel '%.*s'", NAME_BYTES, name);
      return refused(instance, error, what);
    }
  }
  return TS_OK;
}

static ts_status open_device(ts_instance *instance, gpu *device) {
  int count = 0;
  CUresult error = driver.init(0);
  if (!error) error = driver.device_count(&count);
  if (error == CUDA_ERROR_NO_DEVICE || (!error && !count))
    return ts_error(instance, TS_ERROR_DEVICE,
                    "there is no NVIDIA GPU here that the driver offers (CUDA_VISIBLE_DEVICES may "
                    "hide it)");
  if (error) return refused(instance, error, "starting the driver");
  error = driver.device_get(&device->number, 0);
  if (error) return refused(instance, error, "choosing the GPU");
  ts_status status = choose_images(instance, device);
  if (status) return status;
  error = driver.context_retain(&device->context, device->number);
  if (error) {
    device->context = NULL;
    return refused(instance, error, "making a context");
  }
  error = driver.context_push(device->context);
  if (error) return refused(instance, error, "entering the context");
  device->entered = 1;
  error = driver.stream_create(&device->stream, CU_STREAM_NON_BLOCKING);
  if (error) return refused(instance, error, "making a stream");
  status = load_functions(instance, device);
  const size_t bytes = instance->model->weights_bytes;
  if (status || !bytes) return status;
  error = driver.memory_alloc(&device->weights.address, bytes);
  if (error) {
    device->weights.address = 0;
    return refused(instance, error, "obtaining memory for the weights");
  }
  error = driver.copy_to_device(device->weights.address, instance->weights, bytes, device->stream);
  if (!error) error = driver.stream_wait(device->stream);
  return error ? refused(instance, error, "copying the weights") : TS_OK;
}

static void leave(gpu *device) {
  CUcontext popped;
  if (device->entered) driver.context_pop(&popped);
  device->entered = 0;
}

static void release(memory *block) {
  if (block->address) driver.memory_free(block->address);
  *block = (memory){0};
}

static void cuda_close(ts_instance *instance) {
  gpu *device = instance->device;
  if (!device) return;
  if (device->context && (device->entered || !driver.context_push(device->context))) {
    device->entered = 1;
    if (device->stream) driver.stream_wait(device->stream);
    release(&device->weights);
    release(&device->arena);
    for (size_t i = 0; i < device->block_count; ++i) release(&device->blocks[i]);
    for (int32_t f = 0; f < instance->model->device_code->function_count; ++f)
      if (device->modules[f]) driver.module_unload(device->modules[f]);
    if (device->stream) driver.stream_destroy(device->stream);
    leave(device);
  }
  if (device->context) driver.context_release(device->number);
  free(device->modules);
  free(device->functions);
  free(device->images);
  free(device->blocks);
  free(device);
  instance->device = NULL;
}

static ts_status cuda_open(ts_instance *instance) {
  const ts_status status = find_driver(instance);
  if (status) return status;
  const size_t count = (size_t)instance->model->device_code->function_count + 1;
  gpu *device = calloc(1, sizeof *device);
  if (!device) return ts_error(instance, TS_ERROR_MEMORY, "no memory for an instance");
  device->modules = calloc(count, sizeof *device->modules);
  device->functions = calloc(count, sizeof *device->functions);
  device->images = calloc(count, sizeof *device->images);
  instance->device = device;
  if (!device->modules || !device->functions || !device->images) {
    free(device->modules);
    free(device->functions);
    free(device->images);
    free(device);
    instance->device = NULL;
    return ts_error(instance, TS_ERROR_MEMORY, "no memory for an instance");
  }
  const ts_status opened = open_device(instance, device);
  leave(device);
  return opened;
}

static ts_status cuda_begin(ts_instance *instance) {
  gpu *device = instance->device;
  const CUresult error = driver.context_push(device->context);
  if (error) return refused(instance, error, "entering the context");
  device->entered = 1;
  device->blocks_used = 0;
  return TS_OK;
}

static void cuda_end(ts_instance *instance) { leave(instance->device); }

const ts_device_services ts_cuda = {cuda_open, cuda_close, cuda_begin, cuda_end};

/* ---- Services of the plan -------------------------------------------------------------------- */

static gpu *device_of(const ts_frame *frame) { return frame->instance->device; }

static void *reserve(ts_frame *frame, memory *block, int64_t bytes) {
  const size_t wanted = bytes > 0 ? (size_t)bytes : 1;
  if (block->capacity < wanted) {
    /* Launches of an earlier run may still use the old memory: the driver waits for them. */
    release(block);
    const CUresult error = driver.memory_alloc(&block->address, wanted);
    if (error) {
      *block = (memory){0};
      char what[64];
      snprintf(what, sizeof what, "obtaining %" PRId64 " bytes of memory", bytes);
      failed(frame, error, what);
      return NULL;
    }
    block->capacity = wanted;
  }
  return (void *)(uintptr_t)block->address;
}

void *ts_dev_arena(ts_frame *frame, int64_t bytes) {
  return reserve(frame, &device_of(frame)->arena, bytes);
}

void *ts_dev_alloc(ts_frame *frame, int64_t bytes) {
  gpu *device = device_of(frame);
  if (device->blocks_used == device->block_count) {
    const size_t count = device->block_count ? 2 * device->block_count : 8;
    memory *blocks = realloc(device->blocks, count * sizeof *blocks);
    if (!blocks) {
      ts_rt_fail(frame, TS_ERROR_MEMORY, "no memory for the table of buffers");
      return NULL;
    }
    memset(blocks + device->block_count, 0, (count - device->block_count) * sizeof *blocks);
    device->blocks = blocks;
    device->block_count = count;
  }
  return reserve(frame, &device->blocks[device->blocks_used++], bytes);
}

void *ts_dev_weights(ts_frame *frame) { return (void *)(uintptr_t)device_of(frame)->weights.address; }

int32_t ts_dev_upload(ts_frame *frame, void *to, const void *from, int64_t bytes) {
  if (bytes <= 0) return 0;
  gpu *device = device_of(frame);
  const CUresult error =
      driver.copy_to_device((CUdeviceptr)(uintptr_t)to, from, (size_t)bytes, device->stream);
  return error ? failed(frame, error, "copying to the GPU") : 0;
}

int32_t ts_dev_download(ts_frame *frame, void *to, const void *from, int64_t bytes) {
  if (bytes <= 0) return 0;
  gpu *device = device_of(frame);
  CUresult error =
      driver.copy_to_host(to, (CUdeviceptr)(uintptr_t)from, (size_t)bytes, device->stream);
  if (!error) error = driver.stream_wait(device->stream);
  return error ? failed(frame, error, "waiting for the kernels, and copying from the GPU,") : 0;
}

int32_t ts_dev_copy(ts_frame *frame, void *to, const void *from, int64_t bytes) {
  if (bytes <= 0) return 0;
  const CUresult error =
      driver.copy_inside((CUdeviceptr)(uintptr_t)to, (CUdeviceptr)(uintptr_t)from, (size_t)bytes,
                         device_of(frame)->stream);
  return error ? failed(frame, error, "copying") : 0;
}

int32_t ts_dev_launch(ts_frame *frame, int64_t number, int64_t programs, void *const *places,
                      const int64_t *sizes) {
  if (programs <= 0) return 0;
  gpu *device = device_of(frame);
  const ts_function *function = &frame->instance->model->device_code->functions[number];
  const ts_image *image = device->images[number];
  void *parameters[MAX_PARAMETERS];
  void *unused[2] = {NULL, NULL};
  const int32_t given = function->places + function->sizes;
  if (programs > INT32_MAX || given + 2 > MAX_PARAMETERS)
    return ts_rt_fail(frame, TS_ERROR_DEVICE, "a kernel is too large to be launched");
  for (int32_t i = 0; i < function->places; ++i) parameters[i] = (void *)&places[i];
  for (int32_t i = 0; i < function->sizes; ++i)
    parameters[function->places + i] = (void *)&sizes[i];
  parameters[given] = &unused[0];
  parameters[given + 1] = &unused[1];
  const CUresult error =
      driver.launch(device->functions[number], (unsigned)programs, 1, 1, image->threads, 1, 1,
                    image->shared, device->stream, parameters, NULL);
  if (!error) return 0;
  char what[NAME_BYTES + 32];
  snprintf(what, sizeof what, "launching kernel '%.*s'", NAME_BYTES, function->name);
  return failed(frame, error, what);
}
