/* Non-maximum suppression, determinants and inverses. */
#include <math.h>
#include <string.h>

#include "elements.h"
#include "internal.h"

typedef struct box {
  float y0, x0, y1, x1;
} box;

static box read_box(const float *at, int center) {
  if (center)
    return (box){at[1] - at[3] / 2, at[0] - at[2] / 2, at[1] + at[3] / 2, at[0] + at[2] / 2};
  return (box){fminf(at[0], at[2]), fminf(at[1], at[3]), fmaxf(at[0], at[2]), fmaxf(at[1], at[3])};
}

static float area(const box *b) { return (b->y1 - b->y0) * (b->x1 - b->x0); }

static float overlap(const box *a, const box *b) {
  const float height = fminf(a->y1, b->y1) - fmaxf(a->y0, b->y0);
  const float width = fminf(a->x1, b->x1) - fmaxf(a->x0, b->x0);
  const float common = fmaxf(height, 0) * fmaxf(width, 0);
  const float whole = area(a) + area(b) - common;
  return whole > 0 ? common / whole : 0;
}

int32_t ts_op_nms(ts_frame *frame, void *const *places, const int64_t *arguments) {
  const int64_t batches = arguments[0], classes = arguments[1], count = arguments[2];
  const float *boxes = places[0], *scores = places[1];
  const int64_t limit = *(const int64_t *)places[2];
  const float most = *(const float *)places[3], least = *(const float *)places[4];
  int64_t *rows = places[5], used = 0;
  int64_t *order = ts_rt_alloc(frame, count * (int64_t)sizeof *order);
  box *kept = ts_rt_alloc(frame, count * (int64_t)sizeof *kept);
  if (!order || !kept) return 1;
  for (int64_t line = 0; line < batches * classes; ++line) {
    const float *score = scores + line * count, *own = boxes + line / classes * count * 4;
    void *const sorting[] = {(void *)score, order};
    if (ts_op_argsort(frame, sorting, (const int64_t[]){TS_F32, 1, count, count, 1})) return 1;
    int64_t taken = 0;
    for (int64_t i = 0; i < count && taken < limit; ++i) {
      if (!(score[order[i]] > least)) {
        if (isnan(score[order[i]])) continue;
        break;
      }
      const box candidate = read_box(own + order[i] * 4, (int)arguments[3]);
      int64_t other = 0;
      while (other < taken && !(overlap(&candidate, &kept[other]) > most)) ++other;
      if (other < taken) continue;
      kept[taken++] = candidate;
      const int64_t row[] = {line / classes, line % classes, order[i]};
      memcpy(rows + 3 * used++, row, sizeof row);
    }
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
