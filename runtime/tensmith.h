/* Tensmith: the C interface of a compiled model (plain C99, usable from C++).
 *
 *   const ts_model *model = ts_model_mnist(); // or ts_model_get() of a loaded .so
 *   ts_instance *instance;
 *   if (ts_create(model, NULL, &instance) != TS_OK)
 *     fprintf(stderr, "%s\n", ts_last_error(instance));
 *   DLTensor output = {0};                    // data == NULL: the instance owns the result
 *   if (ts_run(instance, &input, 1, &output, 1) != TS_OK) ...
 *   ts_destroy(instance);
 *
 * A model is read-only data; everything that changes lives in an instance. Any number of instances
 * may run at the same time; one instance runs one call at a time.
 */
#ifndef TENSMITH_H_
#define TENSMITH_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define TS_API
#else
#define TS_API __attribute__((visibility("default")))
#endif

/* ---- DLPack ------------------------------------------------------------------------------------
 * The same types and values as dlpack.h 1.x, under its include guard: either header may come first.
 */
#ifndef DLPACK_DLPACK_H_
#define DLPACK_DLPACK_H_
#define DLPACK_MAJOR_VERSION 1
#define DLPACK_MINOR_VERSION 3
#ifdef __cplusplus
extern "C" {
typedef enum : int32_t {
#else
typedef enum {
#endif
  kDLCPU = 1,
  kDLCUDA = 2,
  kDLCUDAHost = 3,
  kDLOpenCL = 4,
  kDLVulkan = 7,
  kDLMetal = 8,
  kDLVPI = 9,
  kDLROCM = 10,
  kDLROCMHost = 11,
  kDLExtDev = 12,
  kDLCUDAManaged = 13,
  kDLOneAPI = 14,
  kDLWebGPU = 15,
  kDLHexagon = 16,
  kDLMAIA = 17,
  kDLTrn = 18
} DLDeviceType;

typedef enum {
  kDLInt = 0U,
  kDLUInt = 1U,
  kDLFloat = 2U,
  kDLOpaqueHandle = 3U,
  kDLBfloat = 4U,
  kDLComplex = 5U,
  kDLBool = 6U,
  kDLFloat8_e4m3fn = 10U,
  kDLFloat8_e4m3fnuz = 11U,
  kDLFloat8_e5m2 = 12U,
  kDLFloat8_e5m2fnuz = 13U,
  kDLFloat8_e8m0fnu = 14U,
  kDLFloat4_e2m1fn = 17U
} DLDataTypeCode;

typedef struct {
  uint32_t major;
  uint32_t minor;
} DLPackVersion;

typedef struct {
  DLDeviceType device_type;
  int32_t device_id;
} DLDevice;

typedef struct {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
} DLDataType;

typedef struct {
  void *data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape;
  int64_t *strides; /* in elements; NULL: row-major and compact */
  uint64_t byte_offset;
} DLTensor;

typedef struct DLManagedTensor {
  DLTensor dl_tensor;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensor *self);
} DLManagedTensor;

#define DLPACK_FLAG_BITMASK_READ_ONLY (1UL << 0UL)
#define DLPACK_FLAG_BITMASK_IS_COPIED (1UL << 1UL)

typedef struct DLManagedTensorVersioned {
  DLPackVersion version;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensorVersioned *self);
  uint64_t flags;
  DLTensor dl_tensor;
} DLManagedTensorVersioned;
#ifdef __cplusplus
}
#endif
#endif /* DLPACK_DLPACK_H_ */

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Status ---------------------------------------------------------------------------------- */

#define TS_ABI_VERSION 7

typedef enum {
  TS_OK = 0,
  TS_ERROR_ARGUMENT = 1, /* a NULL pointer, a wrong number of tensors, an option out of range */
  TS_ERROR_INPUT = 2,    /* an input of the wrong type, rank, shape or device */
  TS_ERROR_OUTPUT = 3,   /* a caller's output buffer of the wrong type, rank, shape or device */
  TS_ERROR_CPU = 4,      /* this CPU lacks instructions that the model was compiled for */
  TS_ERROR_MEMORY = 5,   /* memory could not be allocated */
  TS_ERROR_WEIGHTS = 6,  /* the weights file is missing or is not the model's */
  TS_ERROR_MODEL = 7,    /* the model itself reported it: an index out of range, a negative size */
  TS_ERROR_BUSY = 8,     /* another thread is running this instance */
  TS_ERROR_THREADS = 9,  /* threads could not be started */
  TS_ERROR_VERSION = 10, /* model and runtime were built for different ABI versions */
  TS_ERROR_CANCELLED = 11, /* ts_cancel ended the run */
  TS_ERROR_LIMIT = 12,     /* a loop ran more often than ts_options.max_trips allows */
  TS_ERROR_DEVICE = 13     /* the GPU or its driver: missing, too old, of another kind, failing */
} ts_status;

/* The name of a status, e.g. "TS_ERROR_INPUT". */
TS_API const char *ts_status_name(ts_status status);

/* ---- Models ---------------------------------------------------------------------------------- */

typedef struct ts_model ts_model;

/* One input or output. A dimension that only a run knows is -1 in dims, and dim_names holds the
 * symbol (inputs: equal names must have equal sizes) or the expression, "?" if there is none;
 * dim_names[d] is NULL for a fixed dimension. dims and dim_names are NULL for a scalar. */
typedef struct {
  const char *name;
  DLDataType dtype;
  int32_t ndim;
  const int64_t *dims;
  const char *const *dim_names;
} ts_tensor_info;

/* The model of a shared library. Statically linked models have one function each instead,
 * `const ts_model *ts_model_<name>(void)`, declared in the header beside the library. */
TS_API const ts_model *ts_model_get(void);

TS_API uint32_t ts_abi_version(void);
TS_API const char *ts_name(const ts_model *model);
TS_API int32_t ts_input_count(const ts_model *model);
TS_API int32_t ts_output_count(const ts_model *model);
/* NULL for an index out of range. */
TS_API const ts_tensor_info *ts_input_info(const ts_model *model, int32_t index);
TS_API const ts_tensor_info *ts_output_info(const ts_model *model, int32_t index);
/* Whether an input has a default value, so that a run may leave it out. */
TS_API int ts_input_is_optional(const ts_model *model, int32_t index);
/* A JSON object: target, precision, kernels, memory, hashes. */
TS_API const char *ts_manifest(const ts_model *model);

/* ---- Instances ------------------------------------------------------------------------------- */

typedef struct ts_instance ts_instance;
typedef struct ts_cache ts_cache;

typedef struct {
  uint32_t size;            /* sizeof(ts_options) */
  int32_t threads;          /* 1: the calling thread alone; 0: one per available CPU */
  const char *weights_path; /* side file of weights or its folder; NULL: beside the binary */
  int64_t max_trips;        /* most rounds of one Loop, else TS_ERROR_LIMIT; 0: any number */
  int32_t device;           /* of models for GPUs: which GPU, as the driver counts them */
  int32_t idle;             /* between runs threads: 0: spin for 0.3 ms, then sleep; TS_IDLE_PARK */
  void *stream;             /* of models for GPUs: the CUstream to work in; NULL: its own */
  ts_cache *cache;          /* of responses; NULL: every run computes */
} ts_options;

#define TS_OPTIONS_DEFAULT {sizeof(ts_options), 1, NULL, 0, 0, 0, NULL, NULL}
/* Sleep at once: no processor time between runs, and some 50 us more until threads are at work. */
#define TS_IDLE_PARK 1

/* Makes an instance; options may be NULL. When it fails, *out is an instance that only answers
 * ts_last_error and ts_destroy (NULL if not even that could be allocated; both accept NULL). */
TS_API ts_status ts_create(const ts_model *model, const ts_options *options, ts_instance **out);

/* Runs the model on CPU tensors; a model for GPUs also on tensors of the instance's GPU (kDLCUDA),
 * compact ones, which it reads and writes where they lie. Without a stream of the caller's it waits
 * for all that the GPU has to do before it reads these, and ends when its outputs are there. In the
 * caller's stream the run is behind what was put there before, and may return before its outputs on
 * the GPU are made: what follows in the stream finds them.
 * Inputs, in model order: any strides (those that are not compact are copied first). An optional one
 * that is all zeros (DLTensor t = {0}), or behind the last of input_count, has its default value.
 * Outputs, in model order: with data == NULL (or as the last run of the instance left it) the
 * instance owns the buffer, which stays valid until its next run, and fills in the whole DLTensor;
 * otherwise the tensor describes the caller's compact buffer, which must have the type and the
 * shape of the result. An output buffer must not overlap an input or another output.
 * Subnormal numbers count as zero during the call. */
TS_API ts_status ts_run(ts_instance *instance, const DLTensor *inputs, int32_t input_count,
                        DLTensor *outputs, int32_t output_count);

/* Runs `iterations` times and stores the duration of each run, in nanoseconds, in `durations`. */
TS_API ts_status ts_bench(ts_instance *instance, const DLTensor *inputs, int32_t input_count,
                          DLTensor *outputs, int32_t output_count, int64_t iterations,
                          int64_t *durations);

/* Ends the run that another thread has in progress: it returns TS_ERROR_CANCELLED before its next
 * round of a loop or its next kernel of weight. Without a run in progress nothing happens. The
 * instance can run again afterwards. Callable from any thread and from signal handlers. */
TS_API void ts_cancel(ts_instance *instance);

/* The CUstream that the runs of an instance on a GPU that follow work in; NULL: its own. */
TS_API ts_status ts_set_stream(ts_instance *instance, void *stream);

/* What an instance has done since it was created. Of a cascade (tensmith cascade) rows are counted by
 * the stage that answered them, the smallest first: what an evaluation has promised of deferred rows
 * can be watched while it serves. */
#define TS_MOST_STAGES 16
typedef struct {
  uint32_t size;    /* sizeof(ts_counters), set by the caller */
  int32_t stages;   /* of the cascade; 0: the model is none, and rows are not counted */
  int64_t calls;    /* runs that succeeded */
  int64_t rows;     /* of these calls */
  int64_t deferred; /* rows that the first stage has not answered */
  int64_t answered[TS_MOST_STAGES];
} ts_counters;

/* Fills in the counters; callable from any thread, also while the instance runs. Where the output
 * that tells stages goes to a caller's tensor on a GPU, its rows are not counted. */
TS_API ts_status ts_read_counters(const ts_instance *instance, ts_counters *counters);

/* Threads that a run uses. */
TS_API int32_t ts_threads(const ts_instance *instance);

/* The message of the last error of this instance, "" if there was none. */
TS_API const char *ts_last_error(const ts_instance *instance);

TS_API void ts_destroy(ts_instance *instance);

/* ---- Cache of responses ----------------------------------------------------------------------
 * A run whose inputs are, byte for byte, those of an earlier one gets that one's outputs. It pays
 * where calls repeat themselves, and costs a copy of inputs and outputs where they do not; models
 * that draw random numbers draw the same ones every time, so that nothing changes but the time.
 * Whoever can read the process's memory can read the calls that it holds.
 */

#define TS_LEAST_CACHE_BYTES 65536

/* A cache of at most `bytes`, keys, results and its own tables included: what was not asked for the
 * longest goes first. Any number of instances of models of this library may share it, from any
 * threads, through ts_options.cache; it must outlive them. TS_ERROR_ARGUMENT below that
 * many. */
TS_API ts_status ts_cache_create(uint64_t bytes, ts_cache **out);
TS_API void ts_cache_destroy(ts_cache *cache);

typedef struct {
  uint32_t size; /* sizeof(ts_cache_counters), set by the caller */
  int64_t hits, misses;
  int64_t entries, bytes; /* that it holds now */
  int64_t evicted;        /* entries */
} ts_cache_counters;

TS_API ts_status ts_cache_read(ts_cache *cache, ts_cache_counters *counters);

/* ---- TVM-FFI ---------------------------------------------------------------------------------
 * A shared library also exports these functions in the TVM-FFI calling convention, so that
 * `module = tvm_ffi.load_module("model.so")` can call, with tensors of any DLPack framework (None for
 * an optional input that is left out):
 *   module.run(inputs..., outputs...)   writes the outputs into the given tensors
 *   module.run(inputs...)               returns the output tensor, or an array of them
 *   module.set_threads(n)               threads of the runs that follow (default 1)
 *   module.manifest()                   the JSON manifest
 */

#ifdef __cplusplus
}
#endif
#endif /* TENSMITH_H_ */
