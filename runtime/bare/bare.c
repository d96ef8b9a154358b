/* The services of plan_abi.h on memory of the caller's. */
#include "bare.h"

enum { ERROR_INPUT = 2, ERROR_OUTPUT = 3, ERROR_MEMORY = 5, ERROR_MODEL = 7, ERROR_LIMIT = 12 };

struct ts_instance {
  const ts_bare_model *model;
  ts_bare_run *run;
  int32_t status;
};

static void record(ts_frame *frame, int32_t status, const char *message) {
  if (frame->instance->status) return;
  frame->instance->status = status;
  frame->instance->run->message = message;
}

static void *take(ts_frame *frame, int64_t bytes) {
  ts_bare_run *run = frame->instance->run;
  if (bytes >= 0 && bytes <= INT32_MAX) {
    const uint64_t after = (uint64_t)run->arena_used + (uint64_t)bytes;
    const uint64_t end = (after + TS_BARE_ALIGNMENT - 1) / TS_BARE_ALIGNMENT * TS_BARE_ALIGNMENT;
    if (end <= INT32_MAX) {
      uint8_t *memory = (uint8_t *)run->arena + run->arena_used;
      run->arena_used = (size_t)end;
      if (after <= run->arena_bytes) return memory;
    }
  }
  record(frame, ERROR_MEMORY, "the arena is too small");
  return NULL;
}

void *ts_rt_arena(ts_frame *frame, int64_t bytes) { return take(frame, bytes); }

void *ts_rt_alloc(ts_frame *frame, int64_t bytes) { return take(frame, bytes); }

void *ts_rt_output(ts_frame *frame, int64_t index, const int64_t *dims) {
  const ts_bare_model *model = frame->instance->model;
  ts_bare_output *output = &frame->instance->run->outputs[index];
  int64_t bytes = model->output_item_bytes[index];
  for (int32_t d = 0; d < model->output_ranks[index]; ++d) {
    if (__builtin_mul_overflow(bytes, dims[d], &bytes) || bytes > INT32_MAX) {
      record(frame, ERROR_MEMORY, "an output is too large for any machine");
      return NULL;
    }
    if (output->shape) output->shape[d] = dims[d];
  }
  if (!output->data) {
    output->data = take(frame, bytes);
  } else if ((size_t)bytes > output->bytes) {
    record(frame, ERROR_OUTPUT, "the memory of an output is too small");
    return NULL;
  }
  output->bytes = (size_t)bytes;
  return output->data;
}

int32_t ts_rt_fail(ts_frame *frame, int32_t code, const char *message) {
  record(frame, code ? code : ERROR_MODEL, message);
  return code;
}

void ts_rt_refuse(ts_frame *frame, const char *text, int64_t left, int64_t right) {
  (void)left, (void)right;
  record(frame, ERROR_INPUT, text);
}

void ts_rt_outside(ts_frame *frame, const char *text, int64_t index, int64_t size) {
  (void)index, (void)size;
  record(frame, ERROR_MODEL, text);
}

void ts_rt_oversize(ts_frame *frame, const char *where) {
  (void)where;
  record(frame, ERROR_MEMORY, "tensors of these sizes are too large for any machine");
}

void ts_rt_stop(ts_frame *frame, const char *where) { record(frame, ERROR_LIMIT, where); }

int32_t ts_rt_failed(ts_frame *frame) { return frame->instance->status != 0; }

const void *ts_rt_checked(ts_frame *frame, const char *kernel, const ts_extent *tensor,
                          const void *base, const void *pointer, int64_t bytes, uint64_t live,
                          const void *spare) {
  if (!live || (uintptr_t)pointer - (uintptr_t)spare < TS_SPARE_BYTES) return pointer;
  const int64_t at = (int64_t)(intptr_t)pointer - (int64_t)(intptr_t)base;
  const int64_t begin = at + __builtin_ctzll(live) * bytes;
  const int64_t end = at + (64 - __builtin_clzll(live)) * bytes;
  if (begin >= 0 && end <= tensor->bytes) return pointer;
  record(frame, ERROR_MODEL, kernel);
  return spare;
}

void ts_rt_parallel(ts_frame *frame,
                    void (*fn)(void *args, int64_t begin, int64_t end, int64_t thread), void *args,
                    int64_t count) {
  (void)frame;
  fn(args, 0, count, 0);
}

/* Denormal numbers count as zero while a model runs (FPSCR.FZ), as on every target. */
static uint32_t flush_denormals(void) {
  uint32_t before;
  __asm__ volatile("vmrs %0, fpscr" : "=r"(before));
  __asm__ volatile("vmsr fpscr, %0" ::"r"(before | 1u << 24));
  return before;
}

static void restore(uint32_t fpscr) { __asm__ volatile("vmsr fpscr, %0" ::"r"(fpscr)); }

int32_t ts_bare_run_model(const ts_bare_model *model, ts_bare_run *run) {
  static const int32_t never = 0;
  struct ts_instance instance = {model, run, 0};
  ts_frame frame = {(const void *const *)run->inputs, run->symbols, model->weights, 1, &instance, &never, INT64_MAX};
  run->arena_used = 0;
  run->message = NULL;
  if ((uintptr_t)run->arena % TS_BARE_ALIGNMENT) {
    record(&frame, ERROR_MEMORY, "the arena does not begin at a multiple of 64 bytes");
    return instance.status;
  }
  for (int32_t i = 0; i < model->input_count; ++i) {
    if (run->inputs[i]) continue;
    if (!model->input_defaults || model->input_defaults[i] < 0) {
      record(&frame, ERROR_INPUT, "an input is missing");
      return instance.status;
    }
    run->inputs[i] = model->weights + model->input_defaults[i];
  }
  const uint32_t before = flush_denormals();
  const int32_t ended = model->plan(&frame);
  restore(before);
  if (ended && !instance.status) record(&frame, ERROR_MODEL, "the run failed");
  return instance.status;
}
