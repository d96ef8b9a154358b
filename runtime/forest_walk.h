/* The part of forest.c that depends on the element type; included for each, with REAL and NAME. */

/* Where the test fails `next` follows, where it holds the node behind that. A leaf is its own
 * successor: no test of its threshold, NaN, holds. */
typedef struct {
  REAL threshold;
  uint32_t test;
  int32_t next, number; /* number: of a leaf */
} NAME(node);

/* Takes every walk `at[i]` along the row `x[i]` down to its leaf. */
static inline void NAME(descend)(const NAME(node) *nodes, int32_t *at, const REAL *const *x,
                                 const int tests) {
  int32_t moving;
  do {
    for (int step = 0; step < STEPS; ++step) {
      UNROLLED
      for (int i = 0; i < WALKS; ++i) {
        const NAME(node) *n = &nodes[at[i]];
        const REAL value = x[i][tests == PLAIN ? n->test : n->test & FEATURE];
        unsigned goes = value <= n->threshold;
        if (tests == ANY) goes = (n->test & EXACT) ? value == n->threshold : goes;
        if (tests == ANY || tests == MISSING)
          goes |= (value != value) & ((n->test & NAN_PASSES) != 0);
        at[i] = n->next + (int32_t)goes;
      }
    }
    moving = 0;
    UNROLLED
    for (int i = 0; i < WALKS; ++i) moving |= nodes[at[i]].next ^ at[i];
  } while (moving);
}

static inline void NAME(add)(const forest *f, int64_t leaf, REAL *out) {
  const REAL *weights = (const REAL *)f->weights + leaf * f->width;
  if (f->targets) out += f->targets[leaf];
  for (int64_t c = 0; c < f->width; ++c) {
    if (f->kind == TS_SUM) out[c] += weights[c];
    if (f->kind == TS_MIN) out[c] = weights[c] < out[c] ? weights[c] : out[c];
    if (f->kind == TS_MAX) out[c] = weights[c] > out[c] ? weights[c] : out[c];
  }
}

/* One tree for WALKS rows at a time; `rows` is a multiple of WALKS. */
static inline void NAME(rows_of)(const forest *f, int64_t begin, int64_t rows, const int tests) {
  const NAME(node) *nodes = f->nodes;
  const REAL *x = (const REAL *)f->x + begin * f->features;
  REAL *out = (REAL *)f->out + begin * f->columns;
  for (int64_t tree = 0; tree < f->trees; ++tree)
    for (int64_t row = 0; row < rows; row += WALKS) {
      int32_t at[WALKS];
      const REAL *from[WALKS];
      for (int i = 0; i < WALKS; ++i) {
        at[i] = f->roots[tree];
        from[i] = x + (row + i) * f->features;
      }
      NAME(descend)(nodes, at, from, tests);
      for (int i = 0; i < WALKS; ++i)
        NAME(add)(f, nodes[at[i]].number, out + (row + i) * f->columns);
    }
}

/* One row through WALKS trees at a time; the last tree stands in for those that are missing. */
static inline void NAME(trees_of)(const forest *f, int64_t row, const int tests) {
  const NAME(node) *nodes = f->nodes;
  const REAL *from[WALKS];
  for (int i = 0; i < WALKS; ++i) from[i] = (const REAL *)f->x + row * f->features;
  for (int64_t tree = 0; tree < f->trees; tree += WALKS) {
    int32_t at[WALKS];
    const int64_t left = f->trees - tree < WALKS ? f->trees - tree : WALKS;
    for (int i = 0; i < WALKS; ++i) at[i] = f->roots[tree + (i < left ? i : left - 1)];
    NAME(descend)(nodes, at, from, tests);
    for (int64_t i = 0; i < left; ++i)
      NAME(add)(f, nodes[at[i]].number, (REAL *)f->out + row * f->columns);
  }
}

static inline void NAME(block)(const forest *f, int64_t first, int64_t together, int64_t last,
                               const int tests) {
  NAME(rows_of)(f, first, together, tests);
  for (int64_t row = first + together; row < last; ++row) NAME(trees_of)(f, row, tests);
}

/* Whether all features of rows are numbers, where it pays to look. */
static inline int NAME(all_numbers)(const forest *f, const REAL *x, int64_t rows) {
  if (f->features > LOOKED_AT * f->trees) return 0;
  int found = 0;
  for (int64_t i = 0; i < rows * f->features; ++i) found |= x[i] != x[i];
  return !found;
}

/* Blocks of rows, each through all trees while it is near. */
static inline void NAME(blocks)(const forest *f, int64_t begin, int64_t end) {
  const REAL start = f->kind == TS_SUM ? 0 : f->kind == TS_MIN ? (REAL)INFINITY : (REAL)-INFINITY;
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * ROW_BLOCK;
    const int64_t last = first + ROW_BLOCK < f->rows ? first + ROW_BLOCK : f->rows;
    const int64_t together = (last - first) / WALKS * WALKS;
    REAL *out = f->out;
    for (int64_t i = first * f->columns; i < last * f->columns; ++i) out[i] = start;
    const REAL *x = (const REAL *)f->x + first * f->features;
    if (f->tests == PLAIN)
      NAME(block)(f, first, together, last, PLAIN);
    else if (f->tests == ANY)
      NAME(block)(f, first, together, last, ANY);
    else if (NAME(all_numbers)(f, x, last - first))
      NAME(block)(f, first, together, last, NUMBERS);
    else
      NAME(block)(f, first, together, last, MISSING);
  }
}
