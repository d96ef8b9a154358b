/* Creation, runs and destruction of instances; what a model says about itself. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "internal.h"

ts_status ts_error(ts_instance *instance, ts_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(instance->message, sizeof instance->message, format, arguments);
  va_end(arguments);
  instance->status = status;
  return status;
}

const char *ts_status_name(ts_status status) {
  static const char names[][20] = {
      "TS_OK",         "TS_ERROR_ARGUMENT", "TS_ERROR_INPUT", "TS_ERROR_OUTPUT",
      "TS_ERROR_CPU",  "TS_ERROR_MEMORY",   "TS_ERROR_WEIGHTS", "TS_ERROR_MODEL",
      "TS_ERROR_BUSY", "TS_ERROR_THREADS",  "TS_ERROR_VERSION", "TS_ERROR_CANCELLED",
      "TS_ERROR_LIMIT",    "TS_ERROR_DEVICE"};
  const size_t index = (size_t)status;
  return index < sizeof names / sizeof names[0] ? names[index] : "TS_ERROR_UNKNOWN";
}

uint32_t ts_abi_version(void) { return TS_ABI_VERSION; }
const char *ts_name(const ts_model *model) { return model->name; }
const char *ts_manifest(const ts_model *model) { return model->manifest; }
int32_t ts_input_count(const ts_model *model) { return model->input_count; }
int32_t ts_output_count(const ts_model *model) { return model->output_count; }

const ts_tensor_info *ts_input_info(const ts_model *model, int32_t index) {
  return index >= 0 && index < model->input_count ? &model->inputs[index] : NULL;
}

const ts_tensor_info *ts_output_info(const ts_model *model, int32_t index) {
  return index >= 0 && index < model->output_count ? &model->outputs[index] : NULL;
}

int ts_input_is_optional(const ts_model *model, int32_t index) {
  return index >= 0 && index < model->input_count && model->input_defaults[index].present;
}

int32_t ts_threads(const ts_instance *instance) { return instance->threads; }

const char *ts_last_error(const ts_instance *instance) {
  return instance ? instance->message : "no memory for an instance";
}

static int allocate_tables(ts_instance *instance, const ts_model *model) {
  const size_t inputs = (size_t)model->input_count, outputs = (size_t)model->output_count;
  instance->inputs = calloc(inputs + 1, sizeof *instance->inputs);
  instance->outputs = calloc(outputs + 1, sizeof *instance->outputs);
  instance->input_data = calloc(inputs + 1, sizeof *instance->input_data);
  instance->symbols = calloc((size_t)model->symbol_count + 1, sizeof *instance->symbols);
  if (!instance->inputs || !instance->outputs || !instance->input_data || !instance->symbols)
    return -1;
  for (size_t i = 0; i < outputs; ++i) {
    const size_t ndim = (size_t)model->outputs[i].ndim;
    instance->outputs[i].shape = calloc(2 * ndim + 1, sizeof(int64_t));
    if (!instance->outputs[i].shape) return -1;
  }
  return 0;
}

static ts_status start_threads(ts_instance *instance, int32_t threads) {
  if (threads < 0 || threads > MAX_THREADS)
    return ts_error(instance, TS_ERROR_ARGUMENT, "threads: expected 0 to %d, got %d", MAX_THREADS,
                    threads);
  if (threads == 0) threads = ts_cpu_count();
  instance->threads = threads;
  if (threads == 1) return TS_OK;
  instance->pool = ts_pool_create(threads);
  if (instance->pool && instance->idle == TS_IDLE_PARK) ts_pool_park(instance->pool);
  if (instance->pool) return TS_OK;
  return ts_error(instance, TS_ERROR_THREADS, "%d threads could not be started", threads);
}

static void release(ts_instance *instance) {
  ts_pool_destroy(instance->pool);
  if (instance->device) instance->model->device->close(instance);
  ts_weights_close(instance);
  ts_block_free(&instance->arena);
  for (size_t i = 0; i < instance->block_count; ++i) ts_block_free(&instance->blocks[i]);
  free(instance->blocks);
  const ts_model *model = instance->model;
  for (int32_t i = 0; model && instance->inputs && i < model->input_count; ++i)
    ts_block_free(&instance->inputs[i].copy);
  for (int32_t i = 0; model && instance->outputs && i < model->output_count; ++i) {
    ts_block_free(&instance->outputs[i].copy);
    free(instance->outputs[i].shape);
  }
  free(instance->inputs);
  free(instance->outputs);
  free(instance->input_data);
  free(instance->symbols);
}

static ts_status open_instance(ts_instance *instance, const ts_model *model,
                               const ts_options *options) {
  if (!model) return ts_error(instance, TS_ERROR_ARGUMENT, "model is NULL");
  if (model->abi_version != TS_ABI_VERSION)
    return ts_error(instance, TS_ERROR_VERSION, "model has ABI version %u, this runtime %u",
                    model->abi_version, (unsigned)TS_ABI_VERSION);
  if (options && options->size != sizeof(ts_options))
    return ts_error(instance, TS_ERROR_VERSION, "ts_options.size: expected %zu, got %u",
                    sizeof(ts_options), options->size);
  if (options && options->max_trips < 0)
    return ts_error(instance, TS_ERROR_ARGUMENT, "max_trips: expected 0 or more, got %" PRId64,
                    options->max_trips);
  if (!model->device && options && (options->device || options->stream))
    return ts_error(instance, TS_ERROR_ARGUMENT,
                    "device and stream: model '%s' runs on the CPU alone", model->name);
  if (options && options->idle != 0 && options->idle != TS_IDLE_PARK)
    return ts_error(instance, TS_ERROR_ARGUMENT, "idle: expected 0 or %d, got %d", TS_IDLE_PARK,
                    options->idle);
  if (model->device && options && options->cache)
    return ts_error(instance, TS_ERROR_ARGUMENT, "cache: model '%s' runs on a GPU", model->name);
  instance->idle = options ? options->idle : 0;
  instance->cache = options ? options->cache : NULL;
  instance->max_trips = options && options->max_trips ? options->max_trips : INT64_MAX;
  instance->model = model;
  const char *missing = ts_cpu_missing(model->features, model->feature_count);
  if (missing)
    return ts_error(instance, TS_ERROR_CPU,
                    "model '%s' was compiled for a CPU with '%s', which this one does not offer",
                    model->name, missing);
  if (allocate_tables(instance, model))
    return ts_error(instance, TS_ERROR_MEMORY, "no memory for an instance");
  ts_status status = ts_weights_open(instance, options ? options->weights_path : NULL);
  if (!status && model->device) status = model->device->open(instance, options);
  return status ? status : start_threads(instance, options ? options->threads : 1);
}

ts_status ts_create(const ts_model *model, const ts_options *options, ts_instance **out) {
  if (!out) return TS_ERROR_ARGUMENT;
  ts_instance *instance = *out = calloc(1, sizeof *instance);
  if (!instance) return TS_ERROR_MEMORY;
  const ts_status status = open_instance(instance, model, options);
  if (!status) return TS_OK;
  ts_instance failed = {.status = status};
  memcpy(failed.message, instance->message, sizeof failed.message);
  release(instance);
  *instance = failed;
  return status;
}

void ts_destroy(ts_instance *instance) {
  if (!instance) return;
  release(instance);
  free(instance);
}

static ts_status finish_outputs(ts_instance *instance) {
  const ts_model *model = instance->model;
  for (int32_t i = 0; i < model->output_count; ++i) {
    ts_slot *slot = &instance->outputs[i];
    const ts_tensor_info *info = &model->outputs[i];
    if (!slot->done)
      return ts_error(instance, TS_ERROR_MODEL, "output '%s' was not computed", info->name);
    DLTensor *tensor = slot->tensor;
    if (tensor->data) continue;
    *tensor = (DLTensor){.data = slot->copy.data,
                         .device = {kDLCPU, 0},
                         .ndim = info->ndim,
                         .dtype = info->dtype,
                         .shape = slot->shape,
                         .strides = slot->shape + info->ndim};
  }
  return TS_OK;
}

static ts_status run_plan(ts_instance *instance) {
  ts_frame frame = {.inputs = instance->input_data,
                    .symbols = instance->symbols,
                    .weights = instance->weights,
                    .threads = instance->threads,
                    .instance = instance,
                    .stop = (const int32_t *)&instance->state,
                    .max_trips = instance->max_trips};
  const ts_device_services *device = instance->model->device;
  instance->blocks_used = 0;
  atomic_store_explicit(&instance->failed, 0, memory_order_relaxed);
  if (device) {
    const ts_status status = device->begin(instance);
    if (status) return status;
  }
  if (instance->pool) ts_pool_begin(instance->pool);
  const uint64_t fp_state = ts_fp_flush();
  const int32_t code = instance->model->plan(&frame);
  ts_fp_restore(fp_state);
  if (instance->pool) ts_pool_end(instance->pool);
  if (device) device->end(instance);
  if (atomic_load_explicit(&instance->failed, memory_order_relaxed)) return instance->status;
  if (code) return ts_error(instance, TS_ERROR_MODEL, "the model failed with code %d", code);
  return finish_outputs(instance);
}

static ts_status run_cached(ts_instance *instance) {
  const uint64_t hash = ts_cache_hash(instance);
  atomic_store_explicit(&instance->failed, 0, memory_order_relaxed);
  if (ts_cache_answer(instance->cache, instance, hash))
    return atomic_load(&instance->failed) ? instance->status : finish_outputs(instance);
  const ts_status status = run_plan(instance);
  if (!status) ts_cache_keep(instance->cache, instance, hash);
  return status;
}

static ts_status run_checked(ts_instance *instance, const DLTensor *inputs, int32_t input_count,
                             DLTensor *outputs, int32_t output_count) {
  const ts_model *model = instance->model;
  int32_t required = model->input_count;
  while (required && ts_input_is_optional(model, required - 1)) --required;
  if (input_count < required || input_count > model->input_count ||
      output_count != model->output_count)
    return ts_error(instance, TS_ERROR_ARGUMENT,
                    "expected %d inputs and %d outputs, got %d and %d", model->input_count,
                    model->output_count, input_count, output_count);
  if ((!inputs && input_count) || (!outputs && output_count))
    return ts_error(instance, TS_ERROR_ARGUMENT, "inputs or outputs are NULL");
  if (instance->pool && ts_pool_orphaned(instance->pool)) {
    ts_pool_destroy(instance->pool);
    instance->pool = NULL;
    ts_status status = start_threads(instance, instance->threads);
    if (status) return status;
  }
  ts_status status = ts_bind_inputs(instance, inputs, input_count);
  if (!status) status = ts_bind_outputs(instance, outputs);
  if (status) return status;
  return instance->cache ? run_cached(instance) : run_plan(instance);
}

ts_status ts_run(ts_instance *instance, const DLTensor *inputs, int32_t input_count,
                 DLTensor *outputs, int32_t output_count) {
  if (!instance) return TS_ERROR_ARGUMENT;
  if (!instance->model) return instance->status;
  int idle = IDLE;
  if (!atomic_compare_exchange_strong_explicit(&instance->state, &idle, RUNNING,
                                               memory_order_acquire, memory_order_relaxed))
    return TS_ERROR_BUSY;
  const ts_status status = run_checked(instance, inputs, input_count, outputs, output_count);
  if (!status) {
    instance->message[0] = '\0';
    ts_count_run(instance);
  }
  atomic_store_explicit(&instance->state, IDLE, memory_order_release);
  return status;
}

ts_status ts_set_stream(ts_instance *instance, void *stream) {
  if (!instance) return TS_ERROR_ARGUMENT;
  if (!instance->model) return instance->status;
  int idle = IDLE;
  if (!atomic_compare_exchange_strong_explicit(&instance->state, &idle, RUNNING,
                                               memory_order_acquire, memory_order_relaxed))
    return TS_ERROR_BUSY;
  const ts_device_services *device = instance->model->device;
  const ts_status status =
      device ? device->set_stream(instance, stream)
             : ts_error(instance, TS_ERROR_ARGUMENT, "stream: model '%s' runs on the CPU alone",
                        instance->model->name);
  atomic_store_explicit(&instance->state, IDLE, memory_order_release);
  return status;
}

void ts_cancel(ts_instance *instance) {
  int running = RUNNING;
  if (instance) atomic_compare_exchange_strong(&instance->state, &running, CANCELLED);
}

ts_status ts_bench(ts_instance *instance, const DLTensor *inputs, int32_t input_count,
                   DLTensor *outputs, int32_t output_count, int64_t iterations,
                   int64_t *durations) {
  for (int64_t i = 0; i < iterations; ++i) {
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    const ts_status status = ts_run(instance, inputs, input_count, outputs, output_count);
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (status) return status;
    durations[i] = (end.tv_sec - begin.tv_sec) * INT64_C(1000000000) + end.tv_nsec - begin.tv_nsec;
  }
  return TS_OK;
}
