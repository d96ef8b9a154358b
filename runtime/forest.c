/* Tree ensembles: many walks at once, so that the latency of one hides behind the others. */
#include <math.h>

#include "internal.h"

enum { WALKS = 8, STEPS = 2, ROW_BLOCK = 64, PARALLEL_WALKS = 4096 };
enum { LOOKED_AT = 64 }; /* features that are looked at, for NaN, in the time of a walk */
/* of all nodes: none is EXACT but where ANY; NaN may pass where ANY or MISSING, which becomes
 * NUMBERS for rows that have none */
enum { ANY, PLAIN, MISSING, NUMBERS };
/* of `test`: the number of the feature, and above it what is unusual */
#define FEATURE 0x3fffffffu
#define NAN_PASSES 0x40000000u
#define EXACT 0x80000000u
enum { TS_SUM, TS_MIN, TS_MAX };
#ifdef __clang__
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED
#endif

typedef struct forest {
  const void *x, *nodes, *weights;
  const int32_t *roots, *targets; /* targets: of each leaf; NULL: a leaf has a weight for each */
  void *out;
  int64_t rows, features, trees, width, columns, kind, tests;
} forest;

#define REAL float
#define NAME(part) part##_f32
#include "forest_walk.h"
#undef REAL
#undef NAME
#define REAL double
#define NAME(part) part##_f64
#include "forest_walk.h"

static void part_f32(void *forest, int64_t begin, int64_t end, int64_t thread) {
  (void)thread;
  blocks_f32(forest, begin, end);
}

static void part_f64(void *forest, int64_t begin, int64_t end, int64_t thread) {
  (void)thread;
  blocks_f64(forest, begin, end);
}

int32_t ts_op_forest(ts_frame *frame, void *const *places, const int64_t *arguments) {
  const int64_t targeted = arguments[7];
  forest f = {
      .x = places[0],
      .nodes = places[1],
      .roots = places[2],
      .weights = places[3],
      .targets = targeted ? places[4] : NULL,
      .out = places[4 + targeted],
      .rows = arguments[1],
      .features = arguments[2],
      .trees = arguments[3],
      .columns = arguments[4],
      .kind = arguments[5],
      .tests = arguments[6],
      .width = targeted ? 1 : arguments[4],
  };
  void (*part)(void *, int64_t, int64_t, int64_t) = arguments[0] == TS_F64 ? part_f64 : part_f32;
  const int64_t blocks = (f.rows + ROW_BLOCK - 1) / ROW_BLOCK;
  if (frame->threads > 1 && blocks > 1 && f.rows * f.trees >= PARALLEL_WALKS)
    ts_rt_parallel(frame, part, &f, blocks);
  else
    part(&f, 0, blocks, 0);
  return 0;
}
