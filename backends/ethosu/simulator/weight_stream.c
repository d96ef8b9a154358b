/* Decodes the compressed weights of the Ethos-U: slices of alternating Golomb-Rice codes.
 *
 * A slice has a header (how zero runs and weights are coded, how many weights, a palette) and
 * chunks. A chunk holds the unary parts of up to 12 weights and up to 12 zero runs; the remainders
 * follow in the next chunk. Source of the format: the codec in the package ethos-u-vela 5.2.
 */
#include <stdint.h>

enum { UNDERRUN = -1, DAMAGED = -2, TOO_LONG = -3 };
enum { NO_ZERO_RUNS = 6, END = 7, UNCOMPRESSED = 7, SYMBOLS = 12, MOST = 1 << 15 };

struct bits {
  const uint8_t *data;
  int64_t at, end; /* in bits */
  int failed;
};

struct palette {
  int values[32], size, bits, offset;
};

struct slice {
  int zero_divisor, weight_divisor, uncompressed, truncated, new_palette, weights, zeros;
};

struct unary { /* what is known of symbols whose remainders follow */
  int quotients[SYMBOLS], count, carried;
};

static uint32_t get(struct bits *b, int count) {
  uint32_t value = 0;
  if (b->at + count > b->end) {
    b->failed = 1;
    b->at = b->end;
    return 0;
  }
  for (int done = 0; done < count;) {
    int inside = (int)(b->at & 7), taken = 8 - inside < count - done ? 8 - inside : count - done;
    value |= (uint32_t)(b->data[b->at >> 3] >> inside & ((1 << taken) - 1)) << done;
    done += taken;
    b->at += taken;
  }
  return value;
}

/* The first three bits of the next slice, past what fills bytes; END where there is none. */
static int begin(struct bits *b) {
  while (b->end - b->at >= 3) {
    int divisor = (int)get(b, 3);
    if (divisor != END)
      return divisor;
    b->at = (b->at + 7) & ~(int64_t)7;
  }
  return END;
}

static int read_header(struct bits *b, struct slice *s, struct palette *p, int first) {
  s->weights = (int)get(b, 15) + 1;
  s->weight_divisor = (int)get(b, 3);
  s->truncated = (int)get(b, 1);
  s->new_palette = (int)get(b, 1);
  s->uncompressed = s->weight_divisor == UNCOMPRESSED;
  if (s->new_palette) {
    p->offset = (int)get(b, 5);
    p->size = (int)get(b, 5);
    p->size += p->size > 0;
    p->bits = (int)get(b, 3) + 2;
    for (int i = 0; i < p->size; i++)
      p->values[i] = (int)get(b, p->bits);
  }
  if (s->uncompressed) {
    s->weight_divisor = p->size ? 0 : p->bits;
    while (p->size && 1 << s->weight_divisor < p->size)
      s->weight_divisor++;
  }
  s->zeros = s->weights + s->new_palette;
  int known = s->zero_divisor < 4 || s->zero_divisor == NO_ZERO_RUNS;
  return known && (s->uncompressed || s->weight_divisor < 6) && (s->new_palette || !first);
}

static void zero_unary(struct bits *b, const struct slice *s, struct unary *u) {
  int length = s->zero_divisor < 3 ? 12 : 8;
  uint32_t code = get(b, length);
  u->count = 0;
  for (int i = 0; i < length; i++) {
    if (code >> i & 1)
      u->carried++;
    else {
      u->quotients[u->count++] = u->carried;
      u->carried = 0;
    }
  }
}

static void weight_unary(struct bits *b, const struct slice *s, uint32_t first, int left,
                         struct unary *u) {
  int symbols = s->uncompressed && s->weight_divisor > 5 ? 8 : SYMBOLS;
  uint32_t second = get(b, __builtin_popcount(first));
  u->count = 0;
  for (int i = 0; i < symbols && u->count < left; i++) {
    int code = 0;
    if (first >> i & 1) {
      code = 1 + (int)(second & 1);
      second >>= 1;
    }
    u->carried += code;
    if (code < 2 || s->truncated) {
      u->quotients[u->count++] = u->carried;
      u->carried = 0;
    }
  }
}

static int remainders(struct bits *b, const struct unary *u, int divisor, int *values, int at,
                      int most) {
  for (int i = 0; i < u->count && at < most; i++)
    values[at++] = (int)((uint32_t)u->quotients[i] << divisor) + (int)get(b, divisor);
  return at;
}

/* The chunks of a slice: indices of weights, and lengths of the zero runs between them. */
static int read_chunks(struct bits *b, const struct slice *s, int *weights, int *zeros) {
  struct unary w = {.count = 0}, z = {.count = 0};
  int runs = s->zero_divisor != NO_ZERO_RUNS;
  int w_at = 0, z_at = 0, w_done = 0, z_done = 0, w_before = 0, z_before = 0;
  do {
    struct unary w_last = w, z_last = z;
    int ahead = runs ? w_at - z_at : 0;
    int w_now = (ahead < 8 || !runs) && w_at < s->weights;
    int z_now = runs && ahead >= 0 && z_at < s->zeros;
    uint32_t first = w_now && !s->uncompressed ? get(b, SYMBOLS) : 0;
    if (z_now) {
      zero_unary(b, s, &z);
      z_at += z.count;
    }
    if (w_now) {
      weight_unary(b, s, first, s->weights - w_at, &w);
      w_at += w.count;
    }
    if (w_before)
      w_done = remainders(b, &w_last, s->weight_divisor, weights, w_done, s->weights);
    if (z_before)
      z_done = remainders(b, &z_last, s->zero_divisor, zeros, z_done, s->zeros);
    w_before = w_now;
    z_before = z_now;
  } while (!b->failed && (w_before || z_before));
  return !b->failed && w_done == s->weights && (!runs || z_done == s->zeros);
}

static int weight_of(const struct palette *p, int index) {
  int folded = index < p->size ? p->values[index] : index - p->size + p->offset;
  return folded & 1 ? -(folded >> 1) : folded >> 1;
}

/* Decode `bytes` of a stream into at most `room` weights. Returns how many there are, UNDERRUN
 * where it ends inside a slice, DAMAGED where it is no stream, TOO_LONG where they do not fit. */
int64_t tensmith_decode_weights(const uint8_t *data, int64_t bytes, int16_t *out, int64_t room) {
  static _Thread_local int weights[MOST], zeros[MOST + 1];
  struct bits b = {data, 0, 8 * bytes, 0};
  struct palette palette = {.size = 0};
  struct slice s;
  int64_t made = 0;
  for (int first = 1; (s.zero_divisor = begin(&b)) != END; first = 0) {
    int known = read_header(&b, &s, &palette, first);
    if (b.failed || !known)
      return b.failed ? UNDERRUN : DAMAGED;
    if (!read_chunks(&b, &s, weights, zeros))
      return UNDERRUN;
    int runs = s.zero_divisor != NO_ZERO_RUNS;
    for (int i = -1; i < s.weights; i++) {
      int zero = i + s.new_palette;
      int64_t gap = runs && zero >= 0 ? zeros[zero] : 0;
      if (made + (i >= 0) + gap > room)
        return TOO_LONG;
      if (i >= 0)
        out[made++] = (int16_t)weight_of(&palette, weights[i]);
      for (int64_t j = 0; j < gap; j++)
        out[made++] = 0;
    }
  }
  return made;
}
