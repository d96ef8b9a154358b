/* The part of NVIDIA's driver interface that the runtime uses, declared here: neither the toolkit
 * nor its headers are needed to build or to run. Names, types and numbers are those of CUDA's
 * documented driver API; functions are found in libcuda.so.1 when a model is opened. */
#ifndef TENSMITH_CUDA_DRIVER_H_
#define TENSMITH_CUDA_DRIVER_H_

#include <stddef.h>
#include <stdint.h>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;

enum {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_OUT_OF_MEMORY = 2,
  CUDA_ERROR_NO_DEVICE = 100,
  CUDA_ERROR_NO_BINARY_FOR_GPU = 209
};
enum {
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
  CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97
};
enum { CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8 };
enum { CU_STREAM_NON_BLOCKING = 1 };

_Static_assert(sizeof(CUdeviceptr) == 8 && sizeof(void *) == 8, "the driver is for 64 bits");

/* member of ts_driver, symbol of the library, parameters */
#define TS_DRIVER_FUNCTIONS(X)                                                                    \
  X(init, "cuInit", (unsigned flags))                                                             \
  X(device_count, "cuDeviceGetCount", (int *count))                                               \
  X(device_get, "cuDeviceGet", (CUdevice * device, int ordinal))                                  \
  X(device_name, "cuDeviceGetName", (char *name, int bytes, CUdevice device))                     \
  X(device_attribute, "cuDeviceGetAttribute", (int *value, int attribute, CUdevice device))       \
  X(context_retain, "cuDevicePrimaryCtxRetain", (CUcontext * context, CUdevice device))           \
  X(context_release, "cuDevicePrimaryCtxRelease_v2", (CUdevice device))                           \
  X(context_push, "cuCtxPushCurrent_v2", (CUcontext context))                                     \
  X(context_pop, "cuCtxPopCurrent_v2", (CUcontext * context))                                     \
  X(module_load, "cuModuleLoadData", (CUmodule * module, const void *image))                      \
  X(module_unload, "cuModuleUnload", (CUmodule module))                                           \
  X(module_function, "cuModuleGetFunction",                                                       \
    (CUfunction * function, CUmodule module, const char *name))                                   \
  X(function_attribute, "cuFuncSetAttribute", (CUfunction function, int attribute, int value))    \
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
  X(launch, "cuLaunchKernel",                                                                     \
    (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,    \
     unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void **parameters,     \
     void **extra))                                                                               \
  X(error_name, "cuGetErrorName", (CUresult error, const char **name))                            \
  X(error_text, "cuGetErrorString", (CUresult error, const char **text))

typedef struct {
#define TS_MEMBER(member, symbol, parameters) CUresult(*member) parameters;
  TS_DRIVER_FUNCTIONS(TS_MEMBER)
#undef TS_MEMBER
} ts_driver;

#endif /* TENSMITH_CUDA_DRIVER_H_ */
