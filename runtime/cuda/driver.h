/* The part of NVIDIA's driver interface that the runtime uses, declared here: neither the toolkit
 * nor its headers are needed to build or to run. Names, types and numbers are those of CUDA's
 * documented driver API; functions are found in libcuda.so.1 when a model is opened. */
#ifndef TENSMITH_CUDA_DRIVER_H_
#define TENSMITH_CUDA_DRIVER_H_

#include <stddef.h>
#include <stdint.h>

#ifndef TS_NVIDIA_DECLARES /* a test compares with NVIDIA's own header */
typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;
typedef int CUstreamCaptureMode, CUdevice_attribute, CUfunction_attribute;

typedef struct {
  int id;
  char pad[4];
  union {
    char bytes[64];
    int programmaticStreamSerializationAllowed;
  } value;
} CUlaunchAttribute;

typedef struct {
  unsigned gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
  CUstream hStream;
  CUlaunchAttribute *attrs;
  unsigned numAttrs;
} CUlaunchConfig;

enum {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_INVALID_VALUE = 1,
  CUDA_ERROR_OUT_OF_MEMORY = 2,
  CUDA_ERROR_DEVICE_UNAVAILABLE = 46,
  CUDA_ERROR_NO_DEVICE = 100,
  CUDA_ERROR_INVALID_IMAGE = 200,
  CUDA_ERROR_NO_BINARY_FOR_GPU = 209,
  CUDA_ERROR_ECC_UNCORRECTABLE = 214,
  CUDA_ERROR_JIT_COMPILER_NOT_FOUND = 221,
  CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222,
  CUDA_ERROR_ILLEGAL_ADDRESS = 700,
  CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES = 701,
  CUDA_ERROR_LAUNCH_TIMEOUT = 702,
  CUDA_ERROR_ILLEGAL_INSTRUCTION = 715,
  CUDA_ERROR_MISALIGNED_ADDRESS = 716,
  CUDA_ERROR_LAUNCH_FAILED = 719,
  CUDA_ERROR_SYSTEM_NOT_READY = 802,
  CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803,
  CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE = 804,
  CUDA_ERROR_UNKNOWN = 999
};
enum {
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
  CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97
};
enum { CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8 };
enum { CU_STREAM_NON_BLOCKING = 1, CU_EVENT_DISABLE_TIMING = 2 };
enum { CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1 };
enum { CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6 };
#endif

_Static_assert(sizeof(CUlaunchAttribute) == 72 && sizeof(CUlaunchConfig) == 56, "see cuda.h");
_Static_assert(sizeof(CUdeviceptr) == 8 && sizeof(void *) == 8, "the driver is for 64 bits");

/* member of ts_driver, symbol of the library, parameters */
#define TS_DRIVER_FUNCTIONS(X)                                                                    \
  X(init, "cuInit", (unsigned flags))                                                             \
  X(driver_version, "cuDriverGetVersion", (int *version))                                         \
  X(device_count, "cuDeviceGetCount", (int *count))                                               \
  X(device_get, "cuDeviceGet", (CUdevice * device, int ordinal))                                  \
  X(device_name, "cuDeviceGetName", (char *name, int bytes, CUdevice device))                     \
  X(device_attribute, "cuDeviceGetAttribute",                                                     \
    (int *value, CUdevice_attribute attribute, CUdevice device))                                  \
  X(context_retain, "cuDevicePrimaryCtxRetain", (CUcontext * context, CUdevice device))           \
  X(context_release, "cuDevicePrimaryCtxRelease_v2", (CUdevice device))                           \
  X(context_push, "cuCtxPushCurrent_v2", (CUcontext context))                                     \
  X(context_pop, "cuCtxPopCurrent_v2", (CUcontext * context))                                     \
  X(context_wait, "cuCtxSynchronize", (void))                                                     \
  X(module_load, "cuModuleLoadData", (CUmodule * module, const void *image))                      \
  X(module_unload, "cuModuleUnload", (CUmodule module))                                           \
  X(module_function, "cuModuleGetFunction",                                                       \
    (CUfunction * function, CUmodule module, const char *name))                                   \
  X(function_attribute, "cuFuncSetAttribute",                                                     \
    (CUfunction function, CUfunction_attribute attribute, int value))                             \
  X(memory_alloc, "cuMemAlloc_v2", (CUdeviceptr * address, size_t bytes))                         \
  X(memory_free, "cuMemFree_v2", (CUdeviceptr address))                                           \
  X(copy_to_device, "cuMemcpyHtoDAsync_v2",                                                       \
    (CUdeviceptr to, const void *from, size_t bytes, CUstream stream))                            \
  X(copy_to_host, "cuMemcpyDtoHAsync_v2",                                                         \
    (void *to, CUdeviceptr from, size_t bytes, CUstream stream))                                  \
  X(copy_inside, "cuMemcpyDtoDAsync_v2",                                                          \
    (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream))                            \
  X(stream_create, "cuStreamCreate", (CUstream * stream, unsigned flags))                         \
  X(stream_destroy, "cuStreamDestroy_v2", (CUstream stream))                                      \
  X(stream_wait, "cuStreamSynchronize", (CUstream stream))                                        \
  X(stream_follow, "cuStreamWaitEvent", (CUstream stream, CUevent event, unsigned flags))         \
  X(event_create, "cuEventCreate", (CUevent * event, unsigned flags))                             \
  X(event_record, "cuEventRecord", (CUevent event, CUstream stream))                              \
  X(event_wait, "cuEventSynchronize", (CUevent event))                                            \
  X(event_elapsed, "cuEventElapsedTime",                                                          \
    (float *milliseconds, CUevent start, CUevent end))                                            \
  X(event_destroy, "cuEventDestroy_v2", (CUevent event))                                          \
  X(launch, "cuLaunchKernelEx",                                                                   \
    (const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra))         \
  X(capture_begin, "cuStreamBeginCapture_v2", (CUstream stream, CUstreamCaptureMode mode))        \
  X(capture_end, "cuStreamEndCapture", (CUstream stream, CUgraph * graph))                        \
  X(graph_instantiate, "cuGraphInstantiateWithFlags",                                             \
    (CUgraphExec * ready, CUgraph graph, unsigned long long flags))                               \
  X(graph_launch, "cuGraphLaunch", (CUgraphExec ready, CUstream stream))                          \
  X(graph_destroy, "cuGraphDestroy", (CUgraph graph))                                             \
  X(ready_destroy, "cuGraphExecDestroy", (CUgraphExec ready))                                     \
  X(error_name, "cuGetErrorName", (CUresult error, const char **name))                            \
  X(error_text, "cuGetErrorString", (CUresult error, const char **text))

typedef struct {
#define TS_MEMBER(member, symbol, parameters) CUresult(*member) parameters;
  TS_DRIVER_FUNCTIONS(TS_MEMBER)
#undef TS_MEMBER
} ts_driver;

#endif /* TENSMITH_CUDA_DRIVER_H_ */
