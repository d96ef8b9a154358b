/* Hand-written plans, in place of generated code. */
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "plan_abi.h"

/* y[2,3] = x[2,3] * weight + bias */
int32_t plan_affine(ts_frame *frame) {
  static const int64_t dims[2] = {2, 3};
  const float *x = frame->inputs[0], *w = (const float *)frame->weights;
  float *y = ts_rt_output(frame, 0, dims);
  if (!y) return 1;
  for (int i = 0; i < 6; ++i) y[i] = x[i] * w[0] + w[1];
  return 0;
}

int32_t plan_symbolic(ts_frame *frame);
int32_t plan_optional(ts_frame *frame) { return plan_symbolic(frame); }

/* rows[N] = sums of a[N,M]; scaled[N,M] = a[N,M] * s[M]; total = scalar; symbols N, M */
int32_t plan_symbolic(ts_frame *frame) {
  const int64_t n = frame->symbols[0], m = frame->symbols[1], dims[2] = {n, m};
  const float *a = frame->inputs[0], *s = frame->inputs[1];
  float *rows = ts_rt_output(frame, 0, dims), *scaled = ts_rt_output(frame, 1, dims);
  double *total = ts_rt_output(frame, 2, NULL);
  float *scratch = ts_rt_arena(frame, n * m * (int64_t)sizeof *scratch);
  if (!rows || !scaled || !total || !scratch) return 1;
  *total = 0;
  for (int64_t i = 0; i < n; ++i) {
    rows[i] = 0;
    for (int64_t j = 0; j < m; ++j) {
      scratch[i * m + j] = a[i * m + j] * s[j];
      rows[i] += a[i * m + j];
    }
    *total += rows[i];
  }
  memcpy(scaled, scratch, (size_t)(n * m) * sizeof *scaled);
  return 0;
}

/* The positive elements of x[N] (i64), a number of them that only the run knows. */
int32_t plan_positive(ts_frame *frame) {
  const int64_t n = frame->symbols[0], *x = frame->inputs[0];
  int64_t count = 0, *kept = ts_rt_alloc(frame, n * (int64_t)sizeof *kept);
  if (!kept) return 1;
  for (int64_t i = 0; i < n; ++i)
    if (x[i] > 0) kept[count++] = x[i];
  int64_t *y = ts_rt_output(frame, 0, &count);
  if (!y) return 1;
  memcpy(y, kept, (size_t)count * sizeof *y);
  return 0;
}

/* A cascade of three stages, one of which x[N] names for every row; fails where x[0] is negative. */
int32_t plan_staged(ts_frame *frame) {
  const int64_t n = frame->symbols[0];
  const int32_t *x = frame->inputs[0];
  int32_t *y = ts_rt_output(frame, 0, &n);
  int64_t *stage = ts_rt_output(frame, 1, &n);
  if (!y || !stage) return 1;
  if (n && x[0] < 0) return ts_rt_fail(frame, 7, "there is no such stage");
  for (int64_t i = 0; i < n; ++i) stage[i] = y[i] = x[i];
  return 0;
}

/* What x[0] says: 0 works, 1 fails with a message, 2 returns a code, 3 forgets its output,
 * 4 asks for absurd memory, 5 for a negative size. */
int32_t plan_failing(ts_frame *frame) {
  static const int64_t dims[1] = {1};
  const int32_t mode = *(const int32_t *)frame->inputs[0];
  if (mode == 1) return ts_rt_fail(frame, 7, "Gather 'embed': index 9 is out of range [0, 4)");
  if (mode == 2) return 3;
  if (mode == 3) return 0;
  if (mode == 4 && !ts_rt_arena(frame, INT64_C(1) << 60)) return 1;
  if (mode == 5 && !ts_rt_alloc(frame, -8)) return 1;
  int32_t *y = ts_rt_output(frame, 0, dims);
  if (!y) return 1;
  *y = mode;
  return 0;
}

typedef struct {
  ts_frame *frame;
  int64_t *visits;
  float *values;
  const float *x;
} parallel_args;

static void halve(void *opaque, int64_t begin, int64_t end, int64_t thread) {
  parallel_args *args = opaque;
  (void)thread;
  for (int64_t i = begin; i < end; ++i) args->values[i] = args->x[i] * 0.5f;
}

static void visit(void *opaque, int64_t begin, int64_t end, int64_t thread) {
  parallel_args *args = opaque;
  (void)thread;
  for (int64_t i = begin; i < end; ++i) args->visits[i] += 1;
}

static void nested(void *opaque, int64_t begin, int64_t end, int64_t thread) {
  parallel_args *args = opaque;
  (void)begin, (void)end, (void)thread;
  ts_rt_parallel(args->frame, visit, opaque, 4);
}

/* visits[N]: how often 50 jobs came to element i; values[N] = x[N] / 2 */
int32_t plan_parallel(ts_frame *frame) {
  const int64_t n = frame->symbols[0];
  int64_t inner[4] = {0};
  parallel_args args = {frame, inner, ts_rt_output(frame, 1, &n), frame->inputs[0]};
  if (!args.values) return 1;
  ts_rt_parallel(frame, nested, &args, 1);
  args.visits = ts_rt_output(frame, 0, &n);
  if (!args.visits) return 1;
  for (int64_t i = 0; i < n; ++i) args.visits[i] = 0;
  for (int repeat = 0; repeat < 50; ++repeat) {
    ts_rt_parallel(frame, halve, &args, n);
    ts_rt_parallel(frame, visit, &args, n);
  }
  return 0;
}

typedef struct {
  int64_t *first, *owner;
  atomic_int arrived;
  atomic_llong left;
  int threads;
} slices_args;

static void note_owner(void *opaque, int64_t begin, int64_t end, int64_t thread) {
  slices_args *args = opaque;
  const int comes_first = args->first[thread] < 0;
  if (comes_first) {
    args->first[thread] = begin;
    atomic_fetch_add(&args->arrived, 1);
    while (atomic_load(&args->arrived) < args->threads) sched_yield();
  }
  for (int64_t i = begin; i < end; ++i) args->owner[i] = thread;
  const long long mine = end - begin;
  if (comes_first && thread == args->threads - 1)
    while (atomic_load(&args->left) > mine) sched_yield();
  atomic_fetch_sub(&args->left, mine);
}

/* owner[N]: the thread that did an iteration; first[threads]: where each thread's first part began.
 * No thread is through before all have begun, and the last one before all others are. */
int32_t plan_slices(ts_frame *frame) {
  const int64_t n = frame->symbols[0], threads = frame->threads;
  slices_args args = {.first = ts_rt_output(frame, 0, &threads), .threads = (int)threads};
  args.owner = ts_rt_output(frame, 1, &n);
  if (!args.first || !args.owner) return 1;
  atomic_store(&args.left, n);
  for (int64_t i = 0; i < threads; ++i) args.first[i] = -1;
  ts_rt_parallel(frame, note_owner, &args, n);
  return 0;
}

/* One scalar of each type passes through, so that every element type is seen. */
int32_t plan_types(ts_frame *frame) {
  static const uint8_t bytes[13] = {8, 4, 2, 2, 8, 4, 2, 1, 8, 4, 2, 1, 1};
  for (int i = 0; i < 13; ++i) {
    void *y = ts_rt_output(frame, i, NULL);
    if (!y) return 1;
    memcpy(y, frame->inputs[i], bytes[i]);
  }
  return 0;
}
