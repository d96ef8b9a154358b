/* Calls from Python that are like the last one, without the work that the interpreter would do.
 *
 * The binary has no dependency on Python: the loader, which runs in an interpreter, hands over the
 * functions that are needed (`api`, the mirror of `repeat.py`), all of them of CPython's stable ABI
 * (docs.python.org/3/c-api/stable.html, version 3.11). All of this runs with the interpreter's lock
 * and with the loader's, which nobody else holds then.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

typedef void object;

typedef struct { /* Py_buffer */
  void *data;
  object *owner;
  ptrdiff_t bytes, item_bytes;
  int read_only, ndim;
  const char *format;
  const ptrdiff_t *shape, *strides, *suboffsets;
  void *internal;
} view;

typedef struct { /* PyMethodDef */
  const char *name;
  object *(*function)(object *self, object *argument);
  int flags;
  const char *doc;
} method;

typedef struct {
  void (*inc_ref)(object *);
  void (*dec_ref)(object *);
  object *(*type)(object *);
  ptrdiff_t (*tuple_size)(object *);
  object *(*tuple_item)(object *, ptrdiff_t);
  ptrdiff_t (*dict_size)(object *);
  object *(*dict_item)(object *, object *);
  object *(*dict_new)(void);
  int (*dict_set)(object *, object *, object *);
  int (*get_buffer)(object *, view *, int);
  void (*release_buffer)(view *);
  object *(*call)(object *);
  object *(*long_from)(long);
  void (*error_clear)(void);
  void *(*save_thread)(void);
  void (*restore_thread)(void *);
  object *(*capsule_new)(void *, const char *, void (*)(object *));
  void *(*capsule_pointer)(object *, const char *);
  object *(*function_new)(const method *, object *, object *);
  object *dict_type, *array_type, *none;
} api;

static api python; /* the same for all of a process */

enum { METHOD_OF_ONE = 0x0008, VIEW_FORMAT = 0x0004, VIEW_CONTIGUOUS = 0x0020 | 0x0010 | 0x0008 };

/* Names are str objects, formats those of Py_buffer, NULL for an input that is left out; owner keeps formats and early. Makers are called
 * without arguments and return the arrays of outputs, before the run where `early` says so (it writes
 * there), and after it elsewhere. */
typedef struct {
  ts_instance *instance;
  DLTensor *inputs, *outputs;
  int32_t input_count, output_count, early_count, given_count;
  int leads; /* whether the given inputs are the first ones */
  object **names, **output_names, **makers, *owner;
  const char *const *formats;
  const uint8_t *early;
  view *views;
} repetition;

static const char CAPSULE[] = "tensmith.repetition";

/* ---- Inputs ---------------------------------------------------------------------------------- */

static int has_type(object *value, object *wanted) {
  object *type = python.type(value);
  python.dec_ref(type);
  return type == wanted;
}

static int is_alike(const view *given, const DLTensor *tensor, const char *format) {
  if (given->ndim != tensor->ndim || !given->format || strcmp(given->format, format)) return 0;
  for (int32_t d = 0; d < tensor->ndim; ++d)
    if (given->shape[d] != tensor->shape[d]) return 0;
  return 1;
}

static void release_views(repetition *self, int32_t count) {
  for (int32_t i = 0; i < count; ++i) python.release_buffer(&self->views[i]);
}

/* Whether the inputs were alike: then their memory is held, and described by the tensors. */
static int take_inputs(repetition *self, object *arguments) {
  object *feed = NULL;
  if (python.tuple_size(arguments) == 1) {
    object *only = python.tuple_item(arguments, 0);
    if (has_type(only, python.dict_type)) feed = only;
  }
  if ((feed ? python.dict_size(feed) : python.tuple_size(arguments)) != self->given_count)
    return 0;
  if (!feed && !self->leads) return 0;
  for (int32_t i = 0; i < self->input_count; ++i) {
    if (!self->formats[i]) continue;
    object *array = feed ? python.dict_item(feed, self->names[i])
                         : python.tuple_item(arguments, i);
    const int held = array && has_type(array, python.array_type) &&
                     !python.get_buffer(array, &self->views[i], VIEW_FORMAT | VIEW_CONTIGUOUS);
    if (!held || !is_alike(&self->views[i], &self->inputs[i], self->formats[i])) {
      python.error_clear();
      release_views(self, i + held);
      return 0;
    }
    self->inputs[i].data = self->views[i].data;
  }
  return 1;
}

/* ---- Outputs --------------------------------------------------------------------------------- */

static int set_output(repetition *self, object *results, int32_t index) {
  object *array = python.call(self->makers[index]);
  if (!array) return -1;
  const int status = python.dict_set(results, self->output_names[index], array);
  python.dec_ref(array);
  return status;
}

/* Arrays that the run writes; places of the others, so that all are in the model's order. */
static int set_early(repetition *self, object *results) {
  int status = 0;
  for (int32_t i = 0; i < self->output_count && self->early_count && !status; ++i)
    status = self->early[i] ? set_output(self, results, i)
                            : python.dict_set(results, self->output_names[i], python.none);
  return status;
}

static ts_status run(repetition *self) {
  void *thread = python.save_thread();
  const ts_status status = ts_run(self->instance, self->inputs, self->input_count, self->outputs,
                                  self->output_count);
  python.restore_thread(thread);
  return status;
}

static object *run_into(repetition *self, object *results) {
  if (set_early(self, results)) return NULL;
  const ts_status status = run(self);
  if (status) return python.long_from(status);
  for (int32_t i = 0; i < self->output_count; ++i)
    if (!self->early[i] && set_output(self, results, i)) return NULL;
  python.inc_ref(results);
  return results;
}

/* ---- The function and what it refers to ------------------------------------------------------ */

/* repeat(inputs): a dict; None where they are not alike, without having run; or the status of a run
 * that failed. */
static object *repeat(object *capsule, object *arguments) {
  repetition *self = python.capsule_pointer(capsule, CAPSULE);
  if (!self) return NULL;
  if (!take_inputs(self, arguments)) {
    python.inc_ref(python.none);
    return python.none;
  }
  object *results = python.dict_new();
  object *answer = results ? run_into(self, results) : NULL;
  if (results) python.dec_ref(results);
  release_views(self, self->input_count);
  return answer;
}

static object **keep(object *const *objects, int32_t count) {
  object **kept = calloc((size_t)count + 1, sizeof *kept);
  for (int32_t i = 0; kept && i < count; ++i) python.inc_ref(kept[i] = objects[i]);
  return kept;
}

static void let_go(object **kept, int32_t count) {
  for (int32_t i = 0; kept && i < count; ++i) python.dec_ref(kept[i]);
  free(kept);
}

static void destroy(repetition *self) {
  let_go(self->names, self->input_count);
  let_go(self->output_names, self->output_count);
  let_go(self->makers, self->output_count);
  python.dec_ref(self->owner);
  free(self->views);
  free(self);
}

static void destroy_capsule(object *capsule) {
  destroy(python.capsule_pointer(capsule, CAPSULE));
}

/* The function `repeat` for an instance, whose shapes the tensors describe; NULL without memory.
 * names: of inputs, output_names, makers: Python objects, referred to until the function is gone.
 * owner: an object that formats and early belong to. The instance, the library and the tensors must
 * outlive the function. */
TS_API object *ts_python_repetition(const api *functions, ts_instance *instance, DLTensor *inputs,
                                    DLTensor *outputs, object *const *names,
                                    const char *const *formats, object *const *output_names,
                                    object *const *makers, const uint8_t *early, object *owner) {
  static const method definition = {"repeat", repeat, METHOD_OF_ONE, NULL};
  const ts_model *model = ts_model_get();
  const int32_t input_count = model->input_count, output_count = model->output_count;
  python = *functions;
  repetition *self = calloc(1, sizeof *self);
  if (!self) return NULL;
  *self = (repetition){.instance = instance,
                       .inputs = inputs,
                       .outputs = outputs,
                       .input_count = input_count,
                       .output_count = output_count,
                       .names = keep(names, input_count),
                       .output_names = keep(output_names, output_count),
                       .makers = keep(makers, output_count),
                       .formats = formats,
                       .early = early,
                       .owner = owner,
                       .views = calloc((size_t)input_count + 1, sizeof(view))};
  python.inc_ref(owner);
  object *capsule = NULL;
  if (self->names && self->output_names && self->makers && self->views)
    capsule = python.capsule_new(self, CAPSULE, destroy_capsule);
  if (!capsule) {
    destroy(self);
    return NULL;
  }
  for (int32_t i = 0; i < output_count; ++i) self->early_count += early[i];
  self->leads = 1;
  for (int32_t i = 0; i < input_count; ++i) {
    if (formats[i] && self->given_count++ != i) self->leads = 0;
  }
  object *function = python.function_new(&definition, capsule, NULL);
  python.dec_ref(capsule);
  return function;
}
