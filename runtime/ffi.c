/* TVM-FFI entry points of a shared library (see tensmith.h).
 *
 * The binary has no dependency on TVM-FFI: whoever calls these functions has its library in the
 * process, and the few functions needed of it are looked up by name. Layouts and type indices:
 * tvm/ffi/c_api.h of apache-tvm-ffi 0.1.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { FFI_NONE = 0, FFI_INT = 1, FFI_DLTENSOR_PTR = 7, FFI_TENSOR = 70 };

typedef struct {
  uint64_t reference_counts;
  int32_t type_index;
  uint32_t padding;
  void (*deleter)(void *self, int flags);
} ffi_object; /* TVMFFIObject; a tensor object continues with its DLTensor */

typedef struct {
  int32_t type_index;
  uint32_t padding;
  union {
    int64_t v_int64;
    void *v_ptr;
    ffi_object *v_obj;
  };
} ffi_any; /* TVMFFIAny */

typedef struct {
  const char *data;
  size_t size;
} ffi_bytes; /* TVMFFIByteArray */

typedef struct lease {
  ts_instance *instance;
  struct lease *next;
} lease;

/* TVM-FFI calls are free functions, so idle instances are kept here, one per concurrent caller. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static lease *idle;
static int32_t thread_setting = 1;

static void *ffi_symbol(const char *name) {
  void *symbol = dlsym(RTLD_DEFAULT, name);
  if (symbol) return symbol;
  void *library = dlopen("libtvm_ffi.so", RTLD_LAZY | RTLD_NOLOAD);
  if (!library) return NULL;
  symbol = dlsym(library, name);
  dlclose(library);
  return symbol;
}

static int raise(const char *kind, const char *message) {
  void (*set)(const char *, const char *) =
      (void (*)(const char *, const char *))ffi_symbol("TVMFFIErrorSetRaisedFromCStr");
  if (set)
    set(kind, message);
  else
    fprintf(stderr, "%s: %s\n", kind, message);
  return -1;
}

static int raise_status(ts_status status, const char *message) {
  const int callers = status == TS_ERROR_ARGUMENT || status == TS_ERROR_INPUT ||
                      status == TS_ERROR_OUTPUT;
  return raise(callers ? "ValueError" : "RuntimeError", message);
}

static int return_string(const char *text, ffi_any *result) {
  int (*make)(const ffi_bytes *, ffi_any *) =
      (int (*)(const ffi_bytes *, ffi_any *))ffi_symbol("TVMFFIStringFromByteArray");
  if (!make) return raise("RuntimeError", "TVMFFIStringFromByteArray was not found");
  const ffi_bytes bytes = {text, strlen(text)};
  return make(&bytes, result);
}

/* ---- Idle instances -------------------------------------------------------------------------- */

static lease *take(void) {
  pthread_mutex_lock(&lock);
  lease *found = idle;
  if (found) idle = found->next;
  const int32_t threads = thread_setting;
  pthread_mutex_unlock(&lock);
  if (found && ts_threads(found->instance) == threads) return found;
  if (!found) found = calloc(1, sizeof *found);
  if (!found) {
    raise("RuntimeError", "no memory for an instance");
    return NULL;
  }
  ts_destroy(found->instance);
  ts_options options = TS_OPTIONS_DEFAULT;
  options.threads = threads;
  const ts_status status = ts_create(ts_model_get(), &options, &found->instance);
  if (!status) return found;
  raise_status(status, ts_last_error(found->instance));
  ts_destroy(found->instance);
  free(found);
  return NULL;
}

static void put_back(lease *used) {
  pthread_mutex_lock(&lock);
  used->next = idle;
  idle = used;
  pthread_mutex_unlock(&lock);
}

__attribute__((destructor)) static void drop_idle(void) {
  while (idle) {
    lease *next = idle->next;
    ts_destroy(idle->instance);
    free(idle);
    idle = next;
  }
}

/* ---- Results that the call returns ----------------------------------------------------------- */

static void free_managed(DLManagedTensorVersioned *self) { free(self); }

/* A tensor object with its own copy of `from`: header, sizes, strides and data in one block. */
static int copy_to_object(const DLTensor *from, ffi_any *out) {
  int (*wrap)(DLManagedTensorVersioned *, int32_t, int32_t, void **) =
      (int (*)(DLManagedTensorVersioned *, int32_t, int32_t, void **))ffi_symbol(
          "TVMFFITensorFromDLPackVersioned");
  if (!wrap) return raise("RuntimeError", "TVMFFITensorFromDLPackVersioned was not found");
  const size_t ndim = (size_t)from->ndim;
  const size_t header = sizeof(DLManagedTensorVersioned) + 2 * ndim * sizeof(int64_t);
  const size_t offset = (header + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  const size_t bytes = (size_t)ts_tensor_bytes(from->dtype, from->ndim, from->shape);
  void *block;
  if (posix_memalign(&block, ALIGNMENT, offset + bytes + 1))
    return raise("RuntimeError", "no memory for a result");
  DLManagedTensorVersioned *managed = block;
  *managed = (DLManagedTensorVersioned){.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION},
                                        .deleter = free_managed,
                                        .dl_tensor = *from};
  managed->dl_tensor.shape = (int64_t *)(managed + 1);
  managed->dl_tensor.strides = managed->dl_tensor.shape + ndim;
  managed->dl_tensor.data = (char *)block + offset;
  memcpy(managed->dl_tensor.shape, from->shape, ndim * sizeof(int64_t));
  memcpy(managed->dl_tensor.strides, from->strides, ndim * sizeof(int64_t));
  memcpy(managed->dl_tensor.data, from->data, bytes);
  void *object;
  if (wrap(managed, 0, 0, &object)) {
    free(block);
    return -1;
  }
  *out = (ffi_any){.type_index = FFI_TENSOR, .v_obj = object};
  return 0;
}

static int make_array(ffi_any *items, int32_t count, ffi_any *result) {
  int (*find)(const ffi_bytes *, void **) =
      (int (*)(const ffi_bytes *, void **))ffi_symbol("TVMFFIFunctionGetGlobal");
  int (*call)(void *, ffi_any *, int32_t, ffi_any *) =
      (int (*)(void *, ffi_any *, int32_t, ffi_any *))ffi_symbol("TVMFFIFunctionCall");
  int (*release)(void *) = (int (*)(void *))ffi_symbol("TVMFFIObjectDecRef");
  const ffi_bytes name = {"ffi.Array", sizeof "ffi.Array" - 1};
  void *function = NULL;
  if (!find || !call || !release || find(&name, &function) || !function)
    return raise("RuntimeError", "the TVM-FFI function ffi.Array was not found");
  const int status = call(function, items, count, result);
  release(function);
  return status;
}

static int return_outputs(const DLTensor *outputs, int32_t count, ffi_any *result) {
  ffi_any *items = calloc((size_t)count + 1, sizeof *items);
  if (!items) return raise("RuntimeError", "no memory for the results");
  int status = 0;
  int32_t made = 0;
  while (made < count && !(status = copy_to_object(&outputs[made], &items[made]))) ++made;
  if (!status && count == 1) {
    *result = items[0];
    made = 0;
  } else if (!status) {
    status = make_array(items, count, result);
  }
  int (*release)(void *) = (int (*)(void *))ffi_symbol("TVMFFIObjectDecRef");
  for (int32_t i = 0; i < made && release; ++i) release(items[i].v_obj);
  free(items);
  return status;
}

/* ---- Entry points ---------------------------------------------------------------------------- */

static int read_tensor(const ffi_any *argument, int32_t index, DLTensor *tensor) {
  if (argument->type_index == FFI_NONE && ts_input_is_optional(ts_model_get(), index)) {
    *tensor = (DLTensor){0};
  } else if (argument->type_index == FFI_TENSOR) {
    *tensor = *(const DLTensor *)(argument->v_obj + 1);
  } else if (argument->type_index == FFI_DLTENSOR_PTR) {
    *tensor = *(const DLTensor *)argument->v_ptr;
  } else {
    char text[64];
    snprintf(text, sizeof text, "argument %d: expected a tensor", index);
    return raise("TypeError", text);
  }
  return 0;
}

/* Tensors on a GPU: the run takes its place in the stream that the caller works in there. */
static ts_status follow_stream(ts_instance *instance, const DLTensor *tensors, int32_t count) {
  void *(*current)(int32_t, int32_t) =
      (void *(*)(int32_t, int32_t))ffi_symbol("TVMFFIEnvGetStream");
  for (int32_t i = 0; i < count && current; ++i)
    if (tensors[i].device.device_type == kDLCUDA)
      return ts_set_stream(instance, current(kDLCUDA, tensors[i].device.device_id));
  return TS_OK;
}

static int run_tensors(const ffi_any *args, int32_t count, ffi_any *result, DLTensor *tensors) {
  const ts_model *model = ts_model_get();
  const int32_t inputs = ts_input_count(model), outputs = ts_output_count(model);
  for (int32_t i = 0; i < count; ++i)
    if (read_tensor(&args[i], i, &tensors[i])) return -1;
  lease *leased = take();
  if (!leased) return -1;
  ts_status status = follow_stream(leased->instance, tensors, count);
  if (!status)
    status = ts_run(leased->instance, tensors, inputs, tensors + inputs, outputs);
  int code = 0;
  if (status)
    code = raise_status(status, ts_last_error(leased->instance));
  else if (count <= inputs && outputs)
    code = return_outputs(tensors + inputs, outputs, result);
  put_back(leased);
  return code;
}

TS_API int __tvm_ffi_run(void *self, const ffi_any *args, int32_t count, ffi_any *result) {
  (void)self;
  const ts_model *model = ts_model_get();
  const int32_t inputs = ts_input_count(model), outputs = ts_output_count(model);
  int32_t required = inputs;
  while (required && ts_input_is_optional(model, required - 1)) --required;
  result->type_index = FFI_NONE;
  if ((count < required || count > inputs) && count != inputs + outputs) {
    char text[128];
    snprintf(text, sizeof text, "expected %d inputs, or these and %d outputs; got %d tensors",
             inputs, outputs, count);
    return raise("TypeError", text);
  }
  DLTensor *tensors = calloc((size_t)(inputs + outputs) + 1, sizeof *tensors);
  if (!tensors) return raise("RuntimeError", "no memory for the tensors of a call");
  const int code = run_tensors(args, count, result, tensors);
  free(tensors);
  return code;
}

TS_API int __tvm_ffi_set_threads(void *self, const ffi_any *args, int32_t count, ffi_any *result) {
  (void)self;
  result->type_index = FFI_NONE;
  if (count != 1 || args[0].type_index != FFI_INT || args[0].v_int64 < 0 ||
      args[0].v_int64 > INT32_MAX)
    return raise("TypeError", "set_threads: expected one integer that is not negative");
  pthread_mutex_lock(&lock);
  thread_setting = args[0].v_int64 ? (int32_t)args[0].v_int64 : ts_cpu_count();
  pthread_mutex_unlock(&lock);
  return 0;
}

TS_API int __tvm_ffi_manifest(void *self, const ffi_any *args, int32_t count, ffi_any *result) {
  (void)self, (void)args, (void)count;
  return return_string(ts_manifest(ts_model_get()), result);
}

TS_API int __tvm_ffi__metadata_run(void *self, const ffi_any *args, int32_t count,
                                   ffi_any *result) {
  (void)self, (void)args, (void)count;
  return return_string("{\"type_schema\": \"{\\\"type\\\": \\\"ffi.Function\\\"}\"}", result);
}

TS_API int __tvm_ffi__doc_run(void *self, const ffi_any *args, int32_t count, ffi_any *result) {
  (void)self, (void)args, (void)count;
  return return_string("run(inputs..., outputs...) writes into the outputs; run(inputs...) returns "
                       "the output tensor, or an array of them.",
                       result);
}
