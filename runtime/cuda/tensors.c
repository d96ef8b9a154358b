/* Memory of runs on the device, and the tensors that callers hand over: on the host, from and to
 * which they are copied, or on the device, where kernels read and write them as they lie. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../device.h"
#include "gpu.h"

#define driver ts_cuda_driver

enum { ACCESS = 16 }; /* bytes that a thread loads at once: kernels rely on such addresses */

static CUdeviceptr at(const void *address) { return (CUdeviceptr)(uintptr_t)address; }

static int is_on_device(const DLTensor *tensor) {
  return tensor->data && tensor->device.device_type == kDLCUDA;
}

static void *data_of(const DLTensor *tensor) { return (char *)tensor->data + tensor->byte_offset; }

static int is_aligned(const void *address) { return (uintptr_t)address % ACCESS == 0; }

static void leave(gpu *device) {
  CUcontext popped;
  driver.context_pop(&popped);
  device->entered = 0;
}

/* ---- Runs ------------------------------------------------------------------------------------ */

/* Host memory for the inputs that the caller has on the device and the host reads. */
static CUresult fetch_inputs(ts_instance *instance, const char **what) {
  gpu *device = instance->device;
  CUresult error = 0;
  int fetched = 0;
  *what = "copying inputs from the GPU";
  for (int32_t i = 0; i < instance->model->input_count && !error; ++i) {
    const gpu_input *input = &device->inputs[i];
    if (!input->data || !instance->model->device_code->host_reads[i]) continue;
    ts_block *copy = &instance->inputs[i].copy;
    *what = "obtaining host memory for an input";
    if (ts_block_reserve(copy, input->bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
    *what = "copying inputs from the GPU";
    error = driver.copy_to_host(copy->data, at(input->data), input->bytes, device->stream);
    instance->input_data[i] = copy->data;
    fetched = 1;
  }
  if (fetched && !error) error = driver.stream_wait(device->stream);
  return error;
}

ts_status ts_cuda_begin(ts_instance *instance) {
  gpu *device = instance->device;
  CUresult error = driver.context_push(device->context);
  if (error) return ts_cuda_refused(instance, error, "entering the context");
  device->entered = 1;
  device->blocks_used = 0;
  device->record.count = 0;
  device->record.items = 0;
  device->waits = !device->of_caller;
  int given = 0;
  for (int32_t i = 0; i < instance->model->input_count; ++i) given |= device->inputs[i].data != NULL;
  for (int32_t i = 0; i < instance->model->output_count; ++i)
    given |= is_on_device(instance->outputs[i].tensor);
  const char *what = "waiting for the run before";
  if (device->follows) error = driver.stream_follow(device->stream, device->done, 0);
  if (!error) device->follows = 0;
  /* What makes the caller's tensors runs in streams that are not known here. */
  if (!error && given && !device->of_caller) {
    what = "waiting for the tensors that are given";
    error = driver.context_wait();
  }
  if (!error) error = fetch_inputs(instance, &what);
  if (!error) return TS_OK;
  leave(device);
  return ts_cuda_refused(instance, error, what);
}

void ts_cuda_end(ts_instance *instance) {
  gpu *device = instance->device;
  ts_frame frame = {.instance = instance};
  if (!atomic_load(&instance->failed)) ts_cuda_flush(&frame);
  if (device->waits || atomic_load(&instance->failed)) {
    const CUresult error = driver.stream_wait(device->stream);
    if (error) ts_cuda_failed(&frame, error, "waiting for the kernels");
    device->pending = 0;
  } else {
    const CUresult error = driver.event_record(device->done, device->stream);
    if (error) ts_cuda_failed(&frame, error, "noting the end of the run");
    device->pending = !error;
  }
  leave(device);
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static void *reserve(ts_frame *frame, gpu_memory *block, int64_t bytes) {
  const size_t wanted = bytes > 0 ? (size_t)bytes : 1;
  if (block->capacity < wanted) {
    /* Launches of an earlier run may still use the old memory: the driver waits for them. */
    if (block->address) driver.memory_free(block->address);
    *block = (gpu_memory){0};
    const CUresult error = driver.memory_alloc(&block->address, wanted);
    if (error) {
      block->address = 0;
      char what[64];
      snprintf(what, sizeof what, "obtaining %" PRId64 " bytes of memory", bytes);
      ts_cuda_failed(frame, error, what);
      return NULL;
    }
    block->capacity = wanted;
  }
  return (void *)(uintptr_t)block->address;
}

void *ts_dev_arena(ts_frame *frame, int64_t bytes) {
  return reserve(frame, &gpu_of(frame)->arena, bytes);
}

void *ts_dev_alloc(ts_frame *frame, int64_t bytes) {
  gpu *device = gpu_of(frame);
  if (device->blocks_used == device->block_count) {
    const size_t count = device->block_count ? 2 * device->block_count : 8;
    gpu_memory *blocks = realloc(device->blocks, count * sizeof *blocks);
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

void *ts_dev_weights(ts_frame *frame) { return (void *)(uintptr_t)gpu_of(frame)->weights.address; }

/* ---- Copies ---------------------------------------------------------------------------------- */

int32_t ts_dev_upload(ts_frame *frame, void *to, const void *from, int64_t bytes) {
  if (ts_cuda_flush(frame)) return 1;
  if (bytes <= 0) return 0;
  gpu *device = gpu_of(frame);
  device->waits = 1; /* the caller may change what is copied once the run has ended */
  const CUresult error = driver.copy_to_device(at(to), from, (size_t)bytes, device->stream);
  return error ? ts_cuda_failed(frame, error, "copying to the GPU") : 0;
}

int32_t ts_dev_download(ts_frame *frame, void *to, const void *from, int64_t bytes) {
  if (ts_cuda_flush(frame)) return 1;
  if (bytes <= 0) return 0;
  gpu *device = gpu_of(frame);
  CUresult error = driver.copy_to_host(to, at(from), (size_t)bytes, device->stream);
  if (!error) error = driver.stream_wait(device->stream);
  return error ? ts_cuda_failed(frame, error, "waiting for the kernels, and copying from the GPU,")
               : 0;
}

/* ---- The caller's tensors -------------------------------------------------------------------- */

static ts_status check_device(ts_instance *instance, ts_status status, const char *role,
                              const char *name, const DLTensor *tensor) {
  const gpu *device = instance->device;
  if (tensor->device.device_id != device->ordinal)
    return ts_error(instance, status,
                    "%s '%s': it is on GPU %d, the instance on GPU %d: choose it by "
                    "ts_options.device",
                    role, name, (int)tensor->device.device_id, device->ordinal);
  if (!ts_is_compact(tensor))
    return ts_error(instance, status,
                    "%s '%s': tensors on the GPU must be row-major and compact: make it contiguous",
                    role, name);
  return TS_OK;
}

ts_status ts_cuda_bind_input(ts_instance *instance, int32_t index, const DLTensor *tensor) {
  gpu *device = instance->device;
  const ts_tensor_info *info = &instance->model->inputs[index];
  device->inputs[index] = (gpu_input){0};
  if (tensor->device.device_type != kDLCUDA) return TS_OK;
  const ts_status status = check_device(instance, TS_ERROR_INPUT, "input", info->name, tensor);
  const int64_t bytes = ts_tensor_bytes(tensor->dtype, tensor->ndim, tensor->shape);
  if (status || !bytes) return status;
  if (!tensor->data)
    return ts_error(instance, TS_ERROR_INPUT, "input '%s': data is NULL", info->name);
  device->inputs[index] = (gpu_input){data_of(tensor), (size_t)bytes};
  return TS_OK;
}

ts_status ts_cuda_bind_output(ts_instance *instance, int32_t index, const DLTensor *tensor) {
  if (!is_on_device(tensor)) return TS_OK;
  const ts_tensor_info *info = &instance->model->outputs[index];
  return check_device(instance, TS_ERROR_OUTPUT, "output", info->name, tensor);
}

void *ts_dev_input(ts_frame *frame, int64_t index, void *staging, int64_t bytes) {
  const gpu_input *input = &gpu_of(frame)->inputs[index];
  if (input->data && is_aligned(input->data)) return (void *)input->data;
  const int32_t failed = input->data ? ts_dev_copy(frame, staging, input->data, bytes)
                                     : ts_dev_upload(frame, staging, frame->inputs[index], bytes);
  return failed ? NULL : staging;
}

void *ts_dev_output(ts_frame *frame, int64_t index, void *staging) {
  const DLTensor *tensor = frame->instance->outputs[index].tensor;
  return is_on_device(tensor) && is_aligned(data_of(tensor)) ? data_of(tensor) : staging;
}

int32_t ts_dev_deliver(ts_frame *frame, int64_t index, const void *from, int64_t bytes) {
  gpu *device = gpu_of(frame);
  const ts_slot *slot = &frame->instance->outputs[index];
  if (is_on_device(slot->tensor)) {
    void *to = data_of(slot->tensor);
    if (!from) return ts_dev_upload(frame, to, slot->copy.data, bytes);
    return from == to ? 0 : ts_dev_copy(frame, to, from, bytes);
  }
  if (!from || bytes <= 0) return 0;
  if (ts_cuda_flush(frame)) return 1;
  void *to = slot->tensor->data ? data_of(slot->tensor) : slot->copy.data;
  device->waits = 1;
  const CUresult error = driver.copy_to_host(to, at(from), (size_t)bytes, device->stream);
  return error ? ts_cuda_failed(frame, error, "copying an output from the GPU") : 0;
}
