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
  const int32_t *stop; /* above 1: the run is to end; written by other threads */
  int64_t max_trips;   /* most rounds of one loop */
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

/* Records that two sizes do not fit, as an error of the inputs: "<text> (here <left> and <right>)". */
TS_LOCAL void ts_rt_refuse(ts_frame *frame, const char *text, int64_t left, int64_t right);

/* Records an error of the model: "<text>: index <index> is out of range for size <size>". */
TS_LOCAL void ts_rt_outside(ts_frame *frame, const char *text, int64_t index, int64_t size);

/* Records that tensors are too large for any machine; `where` says which ask for it, or is empty. */
TS_LOCAL void ts_rt_oversize(ts_frame *frame, const char *where);

/* Records why a run ends early: it was cancelled, or else `where` has a loop of too many rounds. */
TS_LOCAL void ts_rt_stop(ts_frame *frame, const char *where);

/* What a kernel that checks its accesses knows of the memory that a tensor lies in. */
typedef struct ts_extent {
  int64_t bytes;
  const char *name;
} ts_extent;

/* `pointer`, to elements of `bytes` each that lie next to each other and of which those are touched
 * whose bits in `live` are set; or `spare`, memory of TS_SPARE_BYTES, where one of these is outside
 * the tensor at `base`: then the error is recorded. */
enum { TS_SPARE_BYTES = 512 };
TS_LOCAL const void *ts_rt_checked(ts_frame *frame, const char *kernel, const ts_extent *tensor,
                                   const void *base, const void *pointer, int64_t bytes,
                                   uint64_t live, const void *spare);

/* Whether an error of the run was recorded. */
TS_LOCAL int32_t ts_rt_failed(ts_frame *frame);

/* Splits [0, count) into contiguous slices, the same slice for the same thread in every call, and
 * returns when all are done. `fn` does part of a slice; a thread that is through helps the others.
 * Called by the plan's own thread; from inside `fn` it runs serially, as thread 0. */
TS_LOCAL void ts_rt_parallel(ts_frame *frame,
                             void (*fn)(void *args, int64_t begin, int64_t end, int64_t thread),
                             void *args, int64_t count);

/* Operators that are no loop nests. `places`: memory of the operands, then of the results, dense and
 * row-major; `arguments`: numbers as listed; the result is that of a ts_plan. */
enum ts_element {
  TS_F64, TS_F32, TS_F16, TS_BF16, TS_I64, TS_I32, TS_I16, TS_I8, TS_U64, TS_U32, TS_U16, TS_U8
};

/* x[rows, length] -> i64[rows, count], the order of each row; equal elements keep theirs and NaN is
 * the largest. Arguments: element, rows, length, count, descending. */
TS_LOCAL int32_t ts_op_argsort(ts_frame *frame, void *const *places, const int64_t *arguments);

/* bool[length] -> i64[length], the places of true elements, and i64[1], how many they are.
 * Argument: length. */
TS_LOCAL int32_t ts_op_nonzero(ts_frame *frame, void *const *places, const int64_t *arguments);

/* x[rows, width] -> of the different rows, i64[rows]: where each is first; for every row, i64[rows]:
 * which one it equals; i64[rows]: how often each is there; i64[1]: how many differ.
 * Arguments: element, rows, width, sorted (else in order of appearance). */
TS_LOCAL int32_t ts_op_unique(ts_frame *frame, void *const *places, const int64_t *arguments);

/* Non-maximum suppression: boxes f32[batches, count, 4], scores f32[batches, classes, count], limit
 * i64, overlap f32, least score f32 -> i64[batches * classes * count, 3] and i64[1], the rows used.
 * Arguments: batches, classes, count, whether boxes are (x, y, width, height) around a centre. */
TS_LOCAL int32_t ts_op_nms(ts_frame *frame, void *const *places, const int64_t *arguments);

/* Determinants: x[count, size, size] -> x[count]. Arguments: element (a float), count, size. */
TS_LOCAL int32_t ts_op_det(ts_frame *frame, void *const *places, const int64_t *arguments);

/* Inverses: x[count, size, size] -> the same type and shape, NaN where a matrix is singular.
 * Arguments: element (a float), count, size. */
TS_LOCAL int32_t ts_op_inverse(ts_frame *frame, void *const *places, const int64_t *arguments);

/* Tree ensembles: x[rows, features], nodes (see forest_walk.h), i32 roots[trees], weights
 * [leaves, width], i32 targets[leaves] if they are given -> [rows, columns], what the leaves that a
 * row reaches say. A leaf has one weight for its target, or one for each column. Arguments: element
 * (f32 or f64), rows, features, trees, columns, whether weights are summed (0) or the least (1) or
 * greatest (2) counts, whether every test is a plain <=, whether there are targets. */
TS_LOCAL int32_t ts_op_forest(ts_frame *frame, void *const *places, const int64_t *arguments);

/* Running sums along the middle axis of x[outer, length, inner], in the order of the axis or from its
 * end -> the same type and shape. Arguments: element (of 32 or 64 bits), outer, length, inner,
 * whether an element's own number is left out, whether from the end, whether products (else sums). */
TS_LOCAL int32_t ts_op_cumulative(ts_frame *frame, void *const *places, const int64_t *arguments);

/* Fails with an error of the model unless every index[..., depth] is within [-size, size) of its
 * size. Places: i64 or i32 indices, and behind them the text that names the operator.
 * Arguments: element, number of indices, depth, the sizes. */
TS_LOCAL int32_t ts_op_check_index(ts_frame *frame, void *const *places, const int64_t *arguments);

/* Fails with an error of the model if an element is zero. Places: the elements, and behind them the
 * message. Arguments: bytes of an element, number of elements. */
TS_LOCAL int32_t ts_op_check_nonzero(ts_frame *frame, void *const *places, const int64_t *arguments);

/* Floats as text: x[count] -> u8[count, digits + 7], as `%.<digits>g` of C in its own locale writes
 * them, but NaN, INF and -INF; zeros behind. Arguments: element (a float), count, digits. */
TS_LOCAL int32_t ts_op_write_floats(ts_frame *frame, void *const *places, const int64_t *arguments);

/* The numbers that texts u8[count, width] begin with, as strtoll, strtoull and strtod of C read
 * them, a byte of zero being the end; fails with an error of the model where there is none, or one
 * that is too large. Places: the texts, the numbers [count], and behind them the message.
 * Arguments: element (i64, u64 or f64), count, width. */
TS_LOCAL int32_t ts_op_read_numbers(ts_frame *frame, void *const *places, const int64_t *arguments);

#endif /* TENSMITH_PLAN_ABI_H_ */
