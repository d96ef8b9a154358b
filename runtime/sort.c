/* Operators that sort and select. */
#include <string.h>

#include "elements.h"
#include "internal.h"
#include "ordering.h"

int32_t ts_op_argsort(ts_frame *frame, void *const *places, const int64_t *arguments) {
  const int64_t element = arguments[0], rows = arguments[1], length = arguments[2];
  const int64_t count = arguments[3], descending = arguments[4];
  if (count < 0 || count > length)
    return ts_rt_fail(frame, TS_ERROR_INPUT, "more elements are asked for than an axis has");
  void *memory = ts_rt_alloc(frame, ts_order_bytes(length));
  if (!memory) return 1;
  const char *data = places[0];
  int64_t *order = places[1];
  const int64_t row_bytes = length * ts_element_bytes(element);
  for (int64_t row = 0; row < rows; ++row)
    ts_order(element, data + row * row_bytes, length, count, descending, memory,
             order + row * count);
  return 0;
}

int32_t ts_op_nonzero(ts_frame *frame, void *const *places, const int64_t *arguments) {
  (void)frame;
  const uint8_t *flags = places[0];
  int64_t *found = places[1], count = 0;
  for (int64_t i = 0; i < arguments[0]; ++i)
    found[count] = i, count += flags[i] != 0;
  memset(found + count, 0, (size_t)(arguments[0] - count) * sizeof *found);
  *(int64_t *)places[2] = count;
  return 0;
}

typedef struct table {
  int64_t element, width;
  const void *data;
} table;

static int compare_rows(const table *t, int64_t a, int64_t b) {
  for (int64_t i = 0; i < t->width; ++i) {
    const uint64_t x = ts_key(t->element, t->data, a * t->width + i);
    const uint64_t y = ts_key(t->element, t->data, b * t->width + i);
    if (x != y) return x < y ? -1 : 1;
  }
  return 0;
}

/* The order of the rows, stable. `order` and `spare` have room for `rows` numbers. */
static int64_t *sort_rows(const table *t, int64_t *order, int64_t *spare, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i) order[i] = i;
  for (int64_t width = 1; width < rows; width *= 2) {
    for (int64_t begin = 0; begin < rows; begin += 2 * width) {
      const int64_t middle = begin + width < rows ? begin + width : rows;
      const int64_t end = middle + width < rows ? middle + width : rows;
      int64_t a = begin, b = middle;
      for (int64_t i = begin; i < end; ++i) {
        const int left = a < middle && (b >= end || compare_rows(t, order[a], order[b]) <= 0);
        spare[i] = left ? order[a++] : order[b++];
      }
    }
    int64_t *swap = order;
    order = spare;
    spare = swap;
  }
  return order;
}

/* Numbers the groups by first appearance: `number[group]` becomes its place. */
static void by_appearance(const int64_t *group, int64_t *number, int64_t rows, int64_t groups) {
  int64_t next = 0;
  for (int64_t i = 0; i < groups; ++i) number[i] = -1;
  for (int64_t i = 0; i < rows; ++i)
    if (number[group[i]] < 0) number[group[i]] = next++;
}

int32_t ts_op_unique(ts_frame *frame, void *const *places, const int64_t *arguments) {
  const int64_t rows = arguments[1];
  const table t = {arguments[0], arguments[2], places[0]};
  int64_t *first = places[1], *inverse = places[2], *counts = places[3], groups = 0;
  const int64_t line = rows * (int64_t)sizeof(int64_t);
  int64_t *memory = ts_rt_alloc(frame, 3 * line + (t.width == 1 ? ts_order_bytes(rows) : 0));
  if (!memory) return 1;
  int64_t *order = memory, *number = memory + 2 * rows;
  if (t.width == 1)
    ts_order(t.element, t.data, rows, rows, 0, memory + 3 * rows, order);
  else
    order = sort_rows(&t, order, memory + rows, rows);
  for (int64_t i = 0; i < rows; ++i) {
    groups += i == 0 || compare_rows(&t, order[i - 1], order[i]) != 0;
    inverse[order[i]] = groups - 1;
  }
  for (int64_t i = 0; i < groups; ++i) number[i] = i;
  if (!arguments[3]) by_appearance(inverse, number, rows, groups);
  memset(first, 0, (size_t)rows * sizeof *first);
  memset(counts, 0, (size_t)rows * sizeof *counts);
  for (int64_t i = rows - 1; i >= 0; --i) {
    inverse[i] = number[inverse[i]];
    first[inverse[i]] = i;
    ++counts[inverse[i]];
  }
  *(int64_t *)places[4] = groups;
  return 0;
}
