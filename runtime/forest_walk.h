/* The part of forest.c that depends on the element type; included for each, with REAL and NAME. */

/* A leaf is its own successor and holds its number in place of a threshold. */
typedef struct {
  REAL threshold;
  uint32_t test;
  int32_t next[2];
} NAME(node);

/* Takes every walk `at[i]` along the row `x[i]` down to its leaf. */
static inline void NAME(descend)(const NAME(node) *nodes, int32_t *at, const REAL *const *x,
                                 const int plain) {
  uint32_t ended;
  do {
    for (int step = 0; step < STEPS; ++step) {
      UNROLLED
      for (int i = 0; i < WALKS; ++i) {
        const NAME(node) *n = &nodes[at[i]];
        const REAL value = x[i][n->test >> FEATURE_SHIFT];
        unsigned goes = value <= n->threshold;
        if (!plain) {
          goes = (n->test & EXACT) ? value == n->threshold : goes;
          goes |= (value != value) & ((n->test & NAN_PASSES) != 0);
        }
        at[i] = n->next[goes];
      }
    }
    ended = LEAF;
    UNROLLED
    for (int i = 0; i < WALKS; ++i) ended &= nodes[at[i]].test;
  } while (!ended);
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
static inline void NAME(rows_of)(const forest *f, int64_t begin, int64_t rows, const int plain) {
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
      NAME(descend)(nodes, at, from, plain);
      for (int i = 0; i < WALKS; ++i)
        NAME(add)(f, (int64_t)nodes[at[i]].threshold, out + (row + i) * f->columns);
    }
}

/* One row through WALKS trees at a time; the last tree stands in for those that are missing. */
static inline void NAME(trees_of)(const forest *f, int64_t row, const int plain) {
  const NAME(node) *nodes = f->nodes;
  const REAL *from[WALKS];
  for (int i = 0; i < WALKS; ++i) from[i] = (const REAL *)f->x + row * f->features;
  for (int64_t tree = 0; tree < f->trees; tree += WALKS) {
    int32_t at[WALKS];
    const int64_t left = f->trees - tree < WALKS ? f->trees - tree : WALKS;
    for (int i = 0; i < WALKS; ++i) at[i] = f->roots[tree + (i < left ? i : left - 1)];
    NAME(descend)(nodes, at, from, plain);
    for (int64_t i = 0; i < left; ++i)
      NAME(add)(f, (int64_t)nodes[at[i]].threshold, (REAL *)f->out + row * f->columns);
  }
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
    if (f->plain) {
      NAME(rows_of)(f, first, together, 1);
      for (int64_t row = first + together; row < last; ++row) NAME(trees_of)(f, row, 1);
    } else {
      NAME(rows_of)(f, first, together, 0);
      for (int64_t row = first + together; row < last; ++row) NAME(trees_of)(f, row, 0);
    }
  }
}
