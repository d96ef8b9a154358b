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

#include "gpu.h"

#define LIBRARY "libcuda.so.1"
#define NEEDED_DRIVER "driver 525 (CUDA 12.0) or newer"
enum { LEAST_DRIVER = 12000 };     /* as `cuDriverGetVersion` tells it */
enum { LEAST_CAPABILITY = 80 };    /* 10 times the compute capability that code can be made for */
#define EVERY_GPU "--target cuda" /* it has PTX for those that have no code of their own */
#define driver ts_cuda_driver
ts_driver ts_cuda_driver;

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

/* What a user can do about an error of the driver ("": nothing that is known), by what the "CUDA
 * Driver API" says of each in `CUresult`. */
static const char *remedy_of(CUresult error) {
  switch (error) {
    case CUDA_ERROR_OUT_OF_MEMORY:
      return "; give smaller batches, or end other programs that use the GPU";
    case CUDA_ERROR_INVALID_IMAGE:
    case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
      return "; a newer NVIDIA driver knows such code";
    case CUDA_ERROR_NO_BINARY_FOR_GPU:
      return "; compile the model for " EVERY_GPU;
    case CUDA_ERROR_JIT_COMPILER_NOT_FOUND:
      return "; install the driver's libnvidia-ptxjitcompiler, or compile the model for this very GPU";
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
      return "; end the program that has the GPU for itself, or let it be shared (nvidia-smi -c 0)";
    case CUDA_ERROR_SYSTEM_NOT_READY:
      return "; start the services of the driver, as nvidia-fabricmanager";
    case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
    case CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE:
      return "; " LIBRARY " has to be of the version of the driver in the kernel (nvidia-smi tells it)";
    case CUDA_ERROR_UNKNOWN:
      return "; nvidia-smi tells whether the driver and the GPU work";
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_LAUNCH_FAILED:
      return "; the GPU takes nothing from this process any more: start it anew";
    default:
      return "";
  }
}

ts_status ts_cuda_refused(ts_instance *instance, CUresult error, const char *what) {
  const char *name = "an unknown error", *text = "";
  driver.error_name(error, &name);
  driver.error_text(error, &text);
  const ts_status status = error == CUDA_ERROR_OUT_OF_MEMORY ? TS_ERROR_MEMORY : TS_ERROR_DEVICE;
  return ts_error(instance, status, "%s failed on the GPU: %s (%d), %s%s", what, name, error, text,
                  remedy_of(error));
}

/* Of a run: the first error stays. */
int32_t ts_cuda_failed(ts_frame *frame, CUresult error, const char *what) {
  if (!atomic_exchange(&frame->instance->failed, 1)) ts_cuda_refused(frame->instance, error, what);
  return 1;
}

/* ---- Opening --------------------------------------------------------------------------------- */

/* The best image of all functions of a part for an architecture, or NULL. */
static const ts_image *best_image(const struct ts_device_code *code, int32_t part, int here) {
  const ts_image *best = NULL;
  for (int32_t f = 0; f < code->function_count; ++f) {
    const ts_function *function = &code->functions[f];
    for (int32_t i = 0; function->part == part && i < function->image_count; ++i) {
      const ts_image *image = &function->images[i];
      /* Code of 9.0 and later is for its own architecture alone, older code for a generation. */
      const int same = image->architecture == here ||
                       (image->architecture < 90 && image->architecture / 10 == here / 10);
      if (image->architecture > here || (!image->ptx && !same)) continue;
      if (!best || image->ptx < best->ptx ||
          (image->ptx == best->ptx && image->architecture > best->architecture))
        best = image;
    }
  }
  return best;
}

static ts_status choose_images(ts_instance *instance, gpu *device) {
  const struct ts_device_code *code = instance->model->device_code;
  int major = 0, minor = 0, shared = 0;
  char *const name = device->name;
  driver.device_name(name, sizeof device->name, device->number);
  CUresult error =
      driver.device_attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device->number);
  if (!error)
    error = driver.device_attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                                    device->number);
  if (!error)
    error = driver.device_attribute(&shared, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
                                    device->number);
  if (error) return ts_cuda_refused(instance, error, "asking for the GPU's properties");
  const int here = 10 * major + minor;
  for (int32_t f = 0; f < code->function_count; ++f) {
    const ts_function *function = &code->functions[f];
    const ts_image *best = best_image(code, function->part, here);
    if (!best)
      return ts_error(instance, TS_ERROR_DEVICE,
                      "%s has compute capability %d.%d, and model '%s' code for %s alone: %s", name,
                      major, minor, instance->model->name, code->architectures,
                      here < LEAST_CAPABILITY ? "use a GPU of 8.0 or newer, older ones have none"
                                              : "compile it for " EVERY_GPU);
    for (int32_t i = 0; i < function->image_count; ++i) {
      const ts_image *image = &function->images[i];
      if (image->architecture == best->architecture && image->ptx == best->ptx)
        device->images[f] = image;
    }
  }
  const int32_t large = ts_cuda_fit(device, code, (uint32_t)shared);
  if (large >= 0)
    return ts_error(instance, TS_ERROR_DEVICE,
                    "kernel '%s' needs %u bytes of shared memory, %s has %d: compile the model for "
                    EVERY_GPU,
                    code->functions[large].name, device->images[large]->shared, name, shared);
  ts_cuda_recall(device, code);
  return TS_OK;
}

static ts_status load_functions(ts_instance *instance, gpu *device) {
  const struct ts_device_code *code = instance->model->device_code;
  for (int32_t f = 0; f < code->function_count; ++f) {
    const ts_image *image = device->images[f];
    if (!image) continue;
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
      return ts_cuda_refused(instance, error, what);
    }
  }
  return TS_OK;
}

static ts_status choose_device(ts_instance *instance, gpu *device) {
  int count = 0;
  CUresult error = driver.init(0);
  if (!error) error = driver.driver_version(&device->driver_version);
  if (!error) error = driver.device_count(&count);
  if (error == CUDA_ERROR_NO_DEVICE || (!error && !count))
    return ts_error(instance, TS_ERROR_DEVICE,
                    "there is no NVIDIA GPU here that the driver offers (CUDA_VISIBLE_DEVICES may "
                    "hide it)");
  if (error) return ts_cuda_refused(instance, error, "starting the driver");
  const int version = device->driver_version;
  if (version < LEAST_DRIVER)
    return ts_error(instance, TS_ERROR_DEVICE,
                    "the NVIDIA driver knows CUDA %d.%d: model '%s' needs " NEEDED_DRIVER,
                    version / 1000, version % 1000 / 10, instance->model->name);
  if (device->ordinal < 0 || device->ordinal >= count)
    return ts_error(instance, TS_ERROR_ARGUMENT, "device: there are GPUs 0 to %d, not %d", count - 1,
                    device->ordinal);
  error = driver.device_get(&device->number, device->ordinal);
  if (error) return ts_cuda_refused(instance, error, "choosing the GPU");
  return choose_images(instance, device);
}

static ts_status open_device(ts_instance *instance, gpu *device) {
  ts_status status = choose_device(instance, device);
  if (status) return status;
  CUresult error = driver.context_retain(&device->context, device->number);
  if (error) {
    device->context = NULL;
    return ts_cuda_refused(instance, error, "making a context");
  }
  error = driver.context_push(device->context);
  if (error) return ts_cuda_refused(instance, error, "entering the context");
  device->entered = 1;
  error = driver.stream_create(&device->own, CU_STREAM_NON_BLOCKING);
  if (error) return ts_cuda_refused(instance, error, "making a stream");
  if (!device->of_caller) device->stream = device->own;
  error = driver.event_create(&device->done, CU_EVENT_DISABLE_TIMING);
  if (error) return ts_cuda_refused(instance, error, "making an event");
  status = load_functions(instance, device);
  const size_t bytes = instance->model->weights_bytes;
  if (status || !bytes) return status;
  error = driver.memory_alloc(&device->weights.address, bytes);
  if (error) {
    device->weights.address = 0;
    return ts_cuda_refused(instance, error, "obtaining memory for the weights");
  }
  error = driver.copy_to_device(device->weights.address, instance->weights, bytes, device->stream);
  if (!error) error = driver.stream_wait(device->stream);
  return error ? ts_cuda_refused(instance, error, "copying the weights") : TS_OK;
}

static void leave(gpu *device) {
  CUcontext popped;
  if (device->entered) driver.context_pop(&popped);
  device->entered = 0;
}

static void release(gpu_memory *block) {
  if (block->address) driver.memory_free(block->address);
  *block = (gpu_memory){0};
}

static void free_tables(gpu *device) {
  free(device->modules);
  free(device->functions);
  free(device->images);
  free(device->inputs);
  free(device->blocks);
  free(device->record.words);
  free(device);
}

static void cuda_close(ts_instance *instance) {
  gpu *device = instance->device;
  if (!device) return;
  if (device->context && (device->entered || !driver.context_push(device->context))) {
    device->entered = 1;
    if (device->own) driver.stream_wait(device->own);
    if (device->pending) driver.event_wait(device->done);
    if (device->done) driver.event_destroy(device->done);
    for (int i = 0; i < GRAPHS; ++i) ts_cuda_drop_graph(&device->graphs[i]);
    release(&device->weights);
    release(&device->arena);
    for (size_t i = 0; i < device->block_count; ++i) release(&device->blocks[i]);
    for (int32_t f = 0; f < instance->model->device_code->function_count; ++f)
      if (device->modules[f]) driver.module_unload(device->modules[f]);
    if (device->own) driver.stream_destroy(device->own);
    leave(device);
  }
  if (device->context) driver.context_release(device->number);
  free_tables(device);
  instance->device = NULL;
}

static ts_status cuda_open(ts_instance *instance, const ts_options *options) {
  const ts_status status = find_driver(instance);
  if (status) return status;
  const struct ts_model *model = instance->model;
  const size_t count = (size_t)model->device_code->function_count + 1;
  gpu *device = calloc(1, sizeof *device);
  if (!device) return ts_error(instance, TS_ERROR_MEMORY, "no memory for an instance");
  device->modules = calloc(count, sizeof *device->modules);
  device->functions = calloc(count, sizeof *device->functions);
  device->images = calloc(count, sizeof *device->images);
  device->inputs = calloc((size_t)model->input_count + 1, sizeof *device->inputs);
  if (!device->modules || !device->functions || !device->images || !device->inputs) {
    free_tables(device);
    return ts_error(instance, TS_ERROR_MEMORY, "no memory for an instance");
  }
  device->ordinal = options ? options->device : 0;
  device->stream = options ? options->stream : NULL;
  device->of_caller = device->stream != NULL;
  instance->device = device;
  const ts_status opened = open_device(instance, device);
  leave(device);
  return opened;
}

static ts_status cuda_stream(ts_instance *instance, void *stream) {
  gpu *device = instance->device;
  if (device->stream == (stream ? stream : device->own)) return TS_OK;
  device->stream = stream ? stream : device->own;
  device->of_caller = stream != NULL;
  device->follows = device->pending;
  return TS_OK;
}

const ts_device_services ts_cuda = {cuda_open, cuda_close, cuda_stream, ts_cuda_bind_input,
                                    ts_cuda_bind_output, ts_cuda_begin, ts_cuda_end};
