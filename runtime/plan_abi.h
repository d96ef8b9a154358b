/* What generated code and the runtime know of each other. */
#ifndef TENSMITH_PLAN_ABI_H_
#define TENSMITH_PLAN_ABI_H_

#include <stdint.h>

#define TS_LOCAL __attribute__((visibility("hidden")))

typedef struct ts_frame {
  const void *const *inputs; /* contiguous, aligned to the element size, in model order */
  const int64_t *symbols;    /* value of each input-bound symbolic dimension, in order */
  const uint8_t *weights;    /* page-aligned constant data */
  int64_t threads;           /* >= 1 */
  struct ts_instance *instance;
} ts_frame;

/* Returns 0, or non-zero after a callback recorded the error. */
typedef int32_t (*ts_plan)(ts_frame *frame);

/* The scratch memory of a run: one call per run, 64-byte aligned, contents undefined. NULL: failed,
 * the error is recorded. Zero bytes give a valid pointer. */
TS_LOCAL void *ts_rt_arena(ts_frame *frame, int64_t bytes);

/* More memory, valid until the end of the run; alignment and errors as ts_rt_arena. */
TS_LOCAL void *ts_rt_alloc(ts_frame *frame, int64_t bytes);

/* Where output `index` goes, given its final dims: the caller's buffer (aligned to the element
 * size) or one of the instance (64-byte aligned). NULL: it does not fit, or there is no memory. */
TS_LOCAL void *ts_rt_output(ts_frame *frame, int64_t index, const int64_t *dims);

/* Records an error (of a run, the first; callable from any thread) and returns `code`, a ts_status:
 * TS_ERROR_MODEL (7) unless another says more. */
TS_LOCAL int32_t ts_rt_fail(ts_frame *frame, int32_t code, const char *message);

/* Splits [0, count) into contiguous slices, the same slice for the same thread in every call, and
 * returns when all are done. Called by the plan's own thread; from inside `fn` it runs serially. */
TS_LOCAL void ts_rt_parallel(ts_frame *frame, void (*fn)(void *args, int64_t begin, int64_t end),
                             void *args, int64_t count);

#endif /* TENSMITH_PLAN_ABI_H_ */
