/* Running sums and products. */
#include "plan_abi.h"

typedef struct shape {
  int64_t outer, length, inner;
  int exclusive, reverse;
} shape;

/* For one element type and operator: along rows in a register, across them by whole rows. Integers
 * are unsigned, as they wrap. `start` is what stands in front of the first element where that is
 * left out; `neutral` leaves every number as it is, -0 too. */
#define RUNNING(name, type, op, start, neutral)                                      \
  static void name(const type *x, type *y, const shape *s) {                         \
    const int64_t step = s->reverse ? -s->inner : s->inner;                          \
    for (int64_t outer = 0; outer < s->outer; ++outer) {                             \
      int64_t at = (outer * s->length + (s->reverse ? s->length - 1 : 0)) * s->inner;\
      type total = (type)neutral;                                                    \
      for (int64_t i = 0; s->inner == 1 && i < s->length; ++i, at += step) {         \
        const type sum = total op x[at];                                             \
        y[at] = !s->exclusive ? sum : i ? total : start;                             \
        total = sum;                                                                 \
      }                                                                              \
      for (int64_t i = 0; s->inner != 1 && i < s->length; ++i, at += step) {         \
        const int64_t first = s->exclusive; /* whose result is an element as it is */\
        const type *given = x + (i && first ? at - step : at);                       \
        const type *before = y + (i ? at - step : at);                               \
        type *made = y + at;                                                         \
        for (int64_t j = 0; i > first && j < s->inner; ++j)                          \
          made[j] = before[j] op given[j];                                           \
        for (int64_t j = 0; i <= first && j < s->inner; ++j)                         \
          made[j] = i < first ? start : given[j];                                    \
      }                                                                              \
    }                                                                                \
  }
#define BOTH(name, type)                 \
  RUNNING(name##_sums, type, +, 0, -0.0) \
  RUNNING(name##_products, type, *, 1, 1)

BOTH(f64, double)
BOTH(f32, float)
BOTH(u64, uint64_t)
BOTH(u32, uint32_t)

int32_t ts_op_cumulative(ts_frame *frame, void *const *places, const int64_t *arguments) {
  (void)frame;
  const shape s = {arguments[1], arguments[2], arguments[3], (int)arguments[4], (int)arguments[5]};
  const void *x = places[0];
  void *y = places[1];
#define CALL(name) arguments[6] ? name##_products(x, y, &s) : name##_sums(x, y, &s)
  switch (arguments[0]) {
    case TS_F64: CALL(f64); break;
    case TS_F32: CALL(f32); break;
    case TS_I64:
    case TS_U64: CALL(u64); break;
    default: CALL(u32); break;
  }
  return 0;
}
