/* Indices, divisors and amounts are checked before the kernels that use them: those would take the
 * nearest element, and make a division by zero zero. */
#include "internal.h"

static int64_t at(int64_t element, const void *indices, int64_t i) {
  return element == TS_I64 ? ((const int64_t *)indices)[i] : ((const int32_t *)indices)[i];
}

/* Whether all indices are in range: one pass without branches, which compilers vectorise. */
static int all_i64(const int64_t *indices, int64_t count, int64_t size) {
  uint64_t wrong = 0;
  for (int64_t i = 0; i < count; ++i)
    wrong |= (uint64_t)(indices[i] < -size) | (uint64_t)(indices[i] >= size);
  return !wrong;
}

static int all_i32(const int32_t *indices, int64_t count, int64_t size) {
  uint32_t wrong = 0;
  for (int64_t i = 0; i < count; ++i)
    wrong |= (uint32_t)(indices[i] < -size) | (uint32_t)(indices[i] >= size);
  return !wrong;
}

int32_t ts_op_check_index(ts_frame *frame, void *const *places, const int64_t *arguments) {
  const int64_t element = arguments[0], count = arguments[1], depth = arguments[2];
  const int64_t *sizes = arguments + 3;
  const void *indices = places[0];
  if (depth == 1 && (element == TS_I64 ? all_i64(indices, count, sizes[0])
                                       : all_i32(indices, count, sizes[0])))
    return 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t index = at(element, indices, i), size = sizes[i % depth];
    if (index >= -size && index < size) continue;
    ts_rt_outside(frame, places[1], index, size);
    return TS_ERROR_MODEL;
  }
  return 0;
}

#define TS_ANY_ZERO(type)                                                                  \
  static int any_zero_##type(const void *data, int64_t count) {                            \
    unsigned zero = 0;                                                                     \
    for (int64_t i = 0; i < count; ++i) zero |= ((const type *)data)[i] == 0;              \
    return zero != 0;                                                                      \
  }
TS_ANY_ZERO(uint8_t)
TS_ANY_ZERO(uint16_t)
TS_ANY_ZERO(uint32_t)
TS_ANY_ZERO(uint64_t)

int32_t ts_op_check_nonzero(ts_frame *frame, void *const *places, const int64_t *arguments) {
  const int64_t bytes = arguments[0], count = arguments[1];
  const void *data = places[0];
  const int zero = bytes == 1   ? any_zero_uint8_t(data, count)
                   : bytes == 2 ? any_zero_uint16_t(data, count)
                   : bytes == 4 ? any_zero_uint32_t(data, count)
                                : any_zero_uint64_t(data, count);
  if (!zero) return 0;
  return ts_rt_fail(frame, TS_ERROR_MODEL, places[1]);
}
