/* A stand-in for libcuda.so.1 on machines without a GPU. Memory of the device is memory of the host,
 * poisoned; modules are read as what they are, cubins or PTX; every call is checked by the rules of the
 * driver that can be; launches are handed to a function that the process has set, which computes
 * what the kernel's source says. Of a GPU's speed, and of its own code, it shows nothing. */
#include "state.h"

#include <stdio.h>

enum { NAME_BYTES = 128 };

struct fake_state fake = {.lock = PTHREAD_MUTEX_INITIALIZER, .capability = 80, .shared_optin = 166912};
struct CUctx_st primary;
static int initialised, device_count = 1, version = 12040;
static char failing[NAME_BYTES];
static int failing_in, failing_with, failing_times;
static __thread int entered;

/* ---- What tests and the interpreter set ------------------------------------------------------- */

EXPORT void tensmith_fake_launches(launch_function function) { fake.launched = function; }
EXPORT void tensmith_fake_device(int count, int compute_capability, int shared) {
  device_count = count;
  fake.capability = compute_capability;
  fake.shared_optin = shared;
  fake.hanging = 0;
}
/* The newest CUDA that the driver knows: 1000 times its first number, and 10 times the second. */
EXPORT void tensmith_fake_version(int number) { version = number; }
/* So many calls of a function, from number `after` on (1: the next one), fail with an error. */
EXPORT void tensmith_fake_failure(const char *function, int after, int error, int times) {
  snprintf(failing, sizeof failing, "%s", function);
  failing_in = after;
  failing_with = error;
  failing_times = times;
}
/* Let time go by, in milliseconds, which events then tell: launches take none by themselves. */
EXPORT void tensmith_fake_advance(double milliseconds) { fake.clock += milliseconds; }
EXPORT size_t tensmith_fake_live_bytes(void) { return fake.live_bytes; }
/* Contexts, modules and streams that were made and not ended. */
EXPORT size_t tensmith_fake_live_objects(void) { return fake.live_objects; }

/* Graphs that were launched, and launches that were allowed to overlap with the one before. */
EXPORT size_t tensmith_fake_graph_launches(void) { return fake.graph_launches; }
EXPORT size_t tensmith_fake_early_launches(void) { return fake.early_launches; }

CUresult begin(const char *function, int needs_context) {
  CUresult error = 0;
  pthread_mutex_lock(&fake.lock);
  if (failing_in > 0 && !strcmp(function, failing) && --failing_in == 0) {
    error = failing_with;
    failing_in = --failing_times > 0;
  }
  pthread_mutex_unlock(&fake.lock);
  if (error) return error;
  if (!initialised && strcmp(function, "cuInit")) return NOT_INITIALIZED;
  return needs_context && !entered ? INVALID_CONTEXT : 0;
}
void object(int change) {
  pthread_mutex_lock(&fake.lock);
  fake.live_objects += (size_t)change;
  pthread_mutex_unlock(&fake.lock);
}

/* ---- Devices and contexts --------------------------------------------------------------------- */

EXPORT CUresult cuInit(unsigned flags) {
  BEGIN(0);
  if (flags) return INVALID_VALUE;
  initialised = 1;
  return device_count ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}
EXPORT CUresult cuDriverGetVersion(int *found) {
  BEGIN(0);
  *found = version;
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
  snprintf(name, (size_t)bytes, "no GPU (an interpreter of sm_%d, device %d)", fake.capability, device);
  return 0;
}
EXPORT CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  BEGIN(0);
  if (device < 0 || device >= device_count) return INVALID_DEVICE;
  if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) *value = fake.capability / 10;
  else if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR) *value = fake.capability % 10;
  else if (attribute == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN) *value = fake.shared_optin;
  else return INVALID_VALUE;
  return 0;
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

/* ---- Errors ----------------------------------------------------------------------------------- */

static const struct { CUresult error; const char *name, *text; } errors[] = {
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
     "too many resources requested for launch"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {BLOCKED, "CUDA_ERROR_UNKNOWN", "a GPU would never answer: a launch does not end"},
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
