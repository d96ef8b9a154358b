/* The services of plan_abi.h that generated code calls. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { SHAPE_TEXT = 256 };

int32_t ts_rt_fail(ts_frame *frame, int32_t code, const char *message) {
  ts_instance *instance = frame->instance;
  if (!atomic_exchange(&instance->failed, 1))
    ts_error(instance, (ts_status)(code ? code : TS_ERROR_MODEL), "%s", message);
  return code;
}

void ts_rt_refuse(ts_frame *frame, const char *text, int64_t left, int64_t right) {
  if (!atomic_exchange(&frame->instance->failed, 1))
    ts_error(frame->instance, TS_ERROR_INPUT, "%s (here %" PRId64 " and %" PRId64 ")", text, left,
             right);
}

void ts_rt_outside(ts_frame *frame, const char *text, int64_t index, int64_t size) {
  if (!atomic_exchange(&frame->instance->failed, 1))
    ts_error(frame->instance, TS_ERROR_MODEL,
             "%s: index %" PRId64 " is out of range for size %" PRId64, text, index, size);
}

const void *ts_rt_checked(ts_frame *frame, const char *kernel, const ts_extent *tensor,
                          const void *base, const void *pointer, int64_t bytes, uint64_t live,
                          const void *spare) {
  if (!live || (uintptr_t)pointer - (uintptr_t)spare < TS_SPARE_BYTES) return pointer;
  const int64_t at = (int64_t)((uintptr_t)pointer - (uintptr_t)base);
  const int64_t begin = at + __builtin_ctzll(live) * bytes;
  const int64_t end = at + (64 - __builtin_clzll(live)) * bytes;
  if (begin >= 0 && end <= tensor->bytes) return pointer;
  char text[512];
  snprintf(text, sizeof text,
           "kernel '%s' touches bytes %" PRId64 " to %" PRId64 " of '%s', which has %" PRId64, kernel,
           begin, end, tensor->name, tensor->bytes);
  ts_rt_fail(frame, TS_ERROR_MODEL, text);
  return spare;
}

int32_t ts_rt_failed(ts_frame *frame) { return atomic_load(&frame->instance->failed) != 0; }

void ts_rt_oversize(ts_frame *frame, const char *where) {
  if (!atomic_exchange(&frame->instance->failed, 1))
    ts_error(frame->instance, TS_ERROR_MEMORY,
             "%s%stensors of these sizes are too large for any machine", where, *where ? ": " : "");
}

void ts_rt_stop(ts_frame *frame, const char *where) {
  ts_instance *instance = frame->instance;
  if (atomic_exchange(&instance->failed, 1)) return;
  if (atomic_load_explicit(&instance->state, memory_order_relaxed) == CANCELLED)
    ts_error(instance, TS_ERROR_CANCELLED, "the run was cancelled");
  else
    ts_error(instance, TS_ERROR_LIMIT, "%s: more than %" PRId64 " rounds, the limit of this instance",
             where, frame->max_trips);
}

static void *reserve(ts_frame *frame, ts_block *block, int64_t bytes, const char *what) {
  if (bytes >= 0 && !ts_block_reserve(block, (size_t)bytes)) return block->data;
  char text[96];
  snprintf(text, sizeof text, "no memory for %" PRId64 " bytes of %s", bytes, what);
  ts_rt_fail(frame, TS_ERROR_MEMORY, text);
  return NULL;
}

void *ts_rt_arena(ts_frame *frame, int64_t bytes) {
  return reserve(frame, &frame->instance->arena, bytes, "scratch memory");
}

void *ts_rt_alloc(ts_frame *frame, int64_t bytes) {
  ts_instance *instance = frame->instance;
  if (instance->blocks_used == instance->block_count) {
    const size_t count = instance->block_count ? 2 * instance->block_count : 8;
    ts_block *blocks = realloc(instance->blocks, count * sizeof *blocks);
    if (!blocks) {
      ts_rt_fail(frame, TS_ERROR_MEMORY, "no memory for the table of buffers");
      return NULL;
    }
    memset(blocks + instance->block_count, 0,
           (count - instance->block_count) * sizeof *blocks);
    instance->blocks = blocks;
    instance->block_count = count;
  }
  return reserve(frame, &instance->blocks[instance->blocks_used++], bytes, "a buffer");
}

static int has_shape(ts_frame *frame, const ts_tensor_info *info, const DLTensor *tensor,
                     const int64_t *dims) {
  for (int32_t d = 0; d < info->ndim; ++d) {
    if (tensor->shape[d] == dims[d]) continue;
    char expected[SHAPE_TEXT], given[SHAPE_TEXT];
    ts_shape_text(expected, sizeof expected, info->ndim, dims, NULL);
    ts_shape_text(given, sizeof given, info->ndim, tensor->shape, NULL);
    if (!atomic_exchange(&frame->instance->failed, 1))
      ts_error(frame->instance, TS_ERROR_OUTPUT,
               "output '%s': dimension %d: expected %" PRId64 ", got %" PRId64
               " (result %s, buffer %s)",
               info->name, d, dims[d], tensor->shape[d], expected, given);
    return 0;
  }
  return 1;
}

void *ts_rt_output(ts_frame *frame, int64_t index, const int64_t *dims) {
  ts_instance *instance = frame->instance;
  const ts_tensor_info *info = &instance->model->outputs[index];
  ts_slot *slot = &instance->outputs[index];
  if (slot->tensor->data) {
    if (!has_shape(frame, info, slot->tensor, dims)) return NULL;
    slot->done = 1;
    if (slot->tensor->device.device_type != kDLCUDA)
      return (char *)slot->tensor->data + slot->tensor->byte_offset;
  }
  const int64_t bytes = ts_tensor_bytes(info->dtype, info->ndim, dims);
  if (bytes < 0) {
    char text[SHAPE_TEXT];
    ts_shape_text(text, sizeof text, info->ndim, dims, NULL);
    if (!atomic_exchange(&instance->failed, 1))
      ts_error(instance, TS_ERROR_MODEL, "output '%s': impossible shape %s", info->name, text);
    return NULL;
  }
  if (!reserve(frame, &slot->copy, bytes, info->name)) return NULL;
  int64_t stride = 1;
  for (int32_t d = info->ndim - 1; d >= 0; --d) {
    slot->shape[d] = dims[d];
    slot->shape[info->ndim + d] = stride;
    stride *= dims[d] ? dims[d] : 1;
  }
  slot->done = 1;
  return slot->copy.data;
}

void ts_rt_parallel(ts_frame *frame, void (*fn)(void *, int64_t, int64_t, int64_t), void *args,
                    int64_t count) {
  if (count <= 0) return;
  ts_pool *pool = frame->instance->pool;
  if (pool && count > 1)
    ts_pool_run(pool, fn, args, count);
  else
    fn(args, 0, count, 0);
}
