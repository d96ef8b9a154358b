/* Non-maximum suppression, determinants and inverses. */
#include <math.h>
#include <string.h>

#include "elements.h"
#include "internal.h"
#include "ordering.h"

typedef struct box {
  float y0, x0, y1, x1, area;
} box;

static box read_box(const float *at, int center) {
  box b = {fminf(at[0], at[2]), fminf(at[1], at[3]), fmaxf(at[0], at[2]), fmaxf(at[1], at[3]), 0};
  if (center)
    b = (box){at[1] - at[3] / 2, at[0] - at[2] / 2, at[1] + at[3] / 2, at[0] + at[2] / 2, 0};
  b.area = (b.y1 - b.y0) * (b.x1 - b.x0);
  return b;
}

enum { TOGETHER = 8 }; /* boxes that one is compared with at once, in vectors */

typedef struct kept_boxes { /* by coordinate; those behind the last one overlap nothing */
  float *y0, *x0, *y1, *x1, *area;
} kept_boxes;

static void clear_boxes(const kept_boxes *kept, int64_t from) {
  for (int64_t i = from; i < from + TOGETHER; ++i)
    kept->y0[i] = kept->x0[i] = kept->y1[i] = kept->x1[i] = kept->area[i] = NAN;
}

static void keep_box(const kept_boxes *kept, int64_t place, const box *b) {
  if (place % TOGETHER == 0) clear_boxes(kept, place);
  kept->y0[place] = b->y0, kept->x0[place] = b->x0;
  kept->y1[place] = b->y1, kept->x1[place] = b->x1;
  kept->area[place] = b->area;
}

/* Whether the intersection of a box with one of `count` kept ones is more than a share of their
 * union. */
static int overlaps(const box *b, const kept_boxes *kept, int64_t count, float most) {
  for (int64_t first = 0; first < count; first += TOGETHER) {
    int found = 0;
    for (int64_t i = first; i < first + TOGETHER; ++i) {
      const float y0 = b->y0 > kept->y0[i] ? b->y0 : kept->y0[i];
      const float x0 = b->x0 > kept->x0[i] ? b->x0 : kept->x0[i];
      const float y1 = b->y1 < kept->y1[i] ? b->y1 : kept->y1[i];
      const float x1 = b->x1 < kept->x1[i] ? b->x1 : kept->x1[i];
      const float height = y1 - y0 > 0 ? y1 - y0 : 0, width = x1 - x0 > 0 ? x1 - x0 : 0;
      const float common = height * width, whole = b->area + kept->area[i] - common;
      const float share = common / whole;
      found |= (whole > 0) & (common > 0) & (share > most);
    }
    if (found) return 1;
  }
  return 0;
}

typedef struct line { /* the boxes of a picture, their scores for a class, and what is wanted */
  const float *boxes, *scores;
  int64_t count, limit;
  float most, least;
  int center;
} line;

typedef struct room { /* for `count` of each */
  float *scores;
  int64_t *numbers, *order, *kept;
  kept_boxes boxes;
  void *memory;
} room;

enum { SORTED_AT_ONCE = 4 }; /* times as many boxes as are wanted; the others seldom matter */

/* How many boxes are left when those of low scores are, and those that overlap better ones; their
 * numbers are in r->kept. */
static int64_t suppress(const line *l, const room *r) {
  int64_t good = 0, taken = 0, sorted = 0;
  for (int64_t i = 0; i < l->count; ++i) {
    r->scores[good] = l->scores[i];
    r->numbers[good] = i;
    good += l->scores[i] > l->least;
  }
  for (int64_t i = 0; i < good && taken < l->limit; ++i) {
    if (i == sorted) {
      const int all = sorted || l->limit >= good / SORTED_AT_ONCE;
      sorted = all ? good : SORTED_AT_ONCE * l->limit;
      ts_order(TS_F32, r->scores, good, sorted, 1, r->memory, r->order);
    }
    const int64_t number = r->numbers[r->order[i]];
    const box candidate = read_box(l->boxes + number * 4, l->center);
    if (overlaps(&candidate, &r->boxes, taken, l->most)) continue;
    keep_box(&r->boxes, taken, &candidate);
    r->kept[taken++] = number;
  }
  return taken;
}

int32_t ts_op_nms(ts_frame *frame, void *const *places, const int64_t *arguments) {
  const int64_t batches = arguments[0], classes = arguments[1], count = arguments[2];
  int64_t *rows = places[5], used = 0;
  const int64_t padded = count + TOGETHER;
  float *coordinates = ts_rt_alloc(frame, 5 * padded * (int64_t)sizeof(float));
  const room r = {
      ts_rt_alloc(frame, count * (int64_t)sizeof(float)),
      ts_rt_alloc(frame, count * (int64_t)sizeof(int64_t)),
      ts_rt_alloc(frame, count * (int64_t)sizeof(int64_t)),
      ts_rt_alloc(frame, count * (int64_t)sizeof(int64_t)),
      {coordinates, coordinates + padded, coordinates + 2 * padded, coordinates + 3 * padded,
       coordinates + 4 * padded},
      ts_rt_alloc(frame, ts_order_bytes(count)),
  };
  if (!r.scores || !r.numbers || !r.order || !r.kept || !coordinates || !r.memory) return 1;
  line l = {places[0], places[1], count, *(const int64_t *)places[2],
            *(const float *)places[3], *(const float *)places[4], (int)arguments[3]};
  for (int64_t number = 0; number < batches * classes; ++number) {
    l.boxes = (const float *)places[0] + number / classes * count * 4;
    const int64_t taken = suppress(&l, &r);
    for (int64_t i = 0; i < taken; ++i) {
      const int64_t row[] = {number / classes, number % classes, r.kept[i]};
      memcpy(rows + 3 * used++, row, sizeof row);
    }
    l.scores += count;
  }
  memset(rows + 3 * used, 0, (size_t)(3 * (batches * classes * count - used)) * sizeof *rows);
  *(int64_t *)places[6] = used;
  return 0;
}

/* By elimination with partial pivoting; destroys the matrix. */
static double determinant(double *m, int64_t size) {
  double result = 1;
  for (int64_t column = 0; column < size; ++column) {
    int64_t pivot = column;
    for (int64_t row = column + 1; row < size; ++row)
      if (fabs(m[row * size + column]) > fabs(m[pivot * size + column])) pivot = row;
    const double top = m[pivot * size + column];
    if (top == 0) return 0;
    result *= pivot == column ? top : -top;
    for (int64_t i = column; i < size; ++i) {
      const double swap = m[pivot * size + i];
      m[pivot * size + i] = m[column * size + i];
      m[column * size + i] = swap;
    }
    for (int64_t row = column + 1; row < size; ++row) {
      const double factor = m[row * size + column] / top;
      for (int64_t i = column; i < size; ++i) m[row * size + i] -= factor * m[column * size + i];
    }
  }
  return result;
}

int32_t ts_op_det(ts_frame *frame, void *const *places, const int64_t *arguments) {
  const int64_t element = arguments[0], count = arguments[1], size = arguments[2];
  double *matrix = ts_rt_alloc(frame, size * size * (int64_t)sizeof *matrix);
  if (!matrix) return 1;
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t i = 0; i < size * size; ++i)
      matrix[i] = ts_read_float(element, places[0], n * size * size + i);
    ts_write_float(element, places[1], n, determinant(matrix, size));
  }
  return 0;
}

static void add_row(double *to, const double *row, double factor, int64_t size) {
  for (int64_t i = 0; i < size; ++i) to[i] += factor * row[i];
}

/* By Gauss-Jordan elimination with partial pivoting of [m | inverse], both size x size; destroys m.
 * A singular matrix has an inverse of NaN. */
static void invert(double *m, double *inverse, int64_t size) {
  for (int64_t i = 0; i < size * size; ++i) inverse[i] = i % (size + 1) == 0;
  for (int64_t column = 0; column < size; ++column) {
    int64_t pivot = column;
    for (int64_t row = column + 1; row < size; ++row)
      if (fabs(m[row * size + column]) > fabs(m[pivot * size + column])) pivot = row;
    const double top = m[pivot * size + column];
    if (top == 0) {
      for (int64_t i = 0; i < size * size; ++i) inverse[i] = NAN;
      return;
    }
    for (int64_t i = 0; i < size; ++i) {
      double *const pairs[] = {m, inverse};
      for (int part = 0; part < 2; ++part) {
        const double swap = pairs[part][pivot * size + i] / top;
        pairs[part][pivot * size + i] = pairs[part][column * size + i];
        pairs[part][column * size + i] = swap;
      }
    }
    for (int64_t row = 0; row < size; ++row) {
      const double factor = -m[row * size + column];
      if (row == column || factor == 0) continue;
      add_row(m + row * size, m + column * size, factor, size);
      add_row(inverse + row * size, inverse + column * size, factor, size);
    }
  }
}

int32_t ts_op_inverse(ts_frame *frame, void *const *places, const int64_t *arguments) {
  const int64_t element = arguments[0], count = arguments[1], size = arguments[2];
  const int64_t area = size * size;
  double *matrix = ts_rt_alloc(frame, 2 * area * (int64_t)sizeof *matrix);
  if (!matrix) return 1;
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t i = 0; i < area; ++i) matrix[i] = ts_read_float(element, places[0], n * area + i);
    invert(matrix, matrix + area, size);
    for (int64_t i = 0; i < area; ++i)
      ts_write_float(element, places[1], n * area + i, matrix[area + i]);
  }
  return 0;
}
