/* Orders of rows. A few elements are kept while the others pass by. More are selected by one digit of
 * their keys after the other, from the highest on, and sorted by all, from the lowest on: where keys
 * fit 32 bits, which make one number with the index, so that no two are equal. Others are merged. */
#include "ordering.h"

#include <string.h>

#include "elements.h"

enum {
  INDEX_BITS = 32,
  DIGIT_BITS = 8,
  DIGITS = 1 << DIGIT_BITS,
  KEY_DIGITS = 4,
  FEW = 128,  /* so many are kept in order while the others pass by */
  BLOCK = 16, /* of elements that pass by together if none comes before those that are kept */
  OFTEN = 8,  /* where one of so many is kept for a while, sorting is faster */
  SHORT = 48, /* rows of so many are sorted by insertion: counting digits costs more */
  COUNTS = KEY_DIGITS * DIGITS, /* u32: how many items have each digit at each place */
};
static const uint32_t TOP = (uint32_t)1 << 31;

typedef struct wide_item {
  uint64_t key;
  int64_t index;
} wide_item;

static uint64_t packed(uint32_t key, int64_t index) {
  return (uint64_t)key << INDEX_BITS | (uint64_t)index;
}

static int digit_of(uint64_t item, int digit) {
  return item >> (INDEX_BITS + digit * DIGIT_BITS) & (DIGITS - 1);
}

static uint32_t float_key(float value) {
  uint32_t bits;
  if (value != value) return UINT32_MAX;
  memcpy(&bits, &value, sizeof bits);
  if (value == 0) bits = 0; /* the sign of zero does not count */
  return bits & TOP ? ~bits : bits | TOP;
}

/* The least of some numbers if none is more than 32 bits above it; 0 tells that one is. */
static int low_of(const int64_t *row, int64_t length, uint64_t *low) {
  int64_t least = row[0], greatest = row[0];
  for (int64_t i = 1; i < length; ++i) {
    if (row[i] < least) least = row[i];
    if (row[i] > greatest) greatest = row[i];
  }
  *low = (uint64_t)least;
  return (uint64_t)greatest - (uint64_t)least <= UINT32_MAX;
}

/* Items of a row, their keys inverted by `flip`; 0 where keys need more bits. */
static int pack(int64_t element, const void *row, int64_t length, uint32_t flip, uint64_t *items) {
#define PACK(type, key)                                         \
  for (int64_t i = 0; i < length; ++i) {                        \
    const type value = ((const type *)row)[i];                  \
    items[i] = packed((uint32_t)(key) ^ flip, i);               \
  }                                                             \
  return 1
  uint64_t low;
  if (length > UINT32_MAX) return 0;
  switch (element) {
    case TS_F32: PACK(float, float_key(value));
    case TS_I32: PACK(int32_t, (uint32_t)value ^ TOP);
    case TS_I16: PACK(int16_t, (uint32_t)value ^ TOP);
    case TS_I8: PACK(int8_t, (uint32_t)value ^ TOP);
    case TS_U32: PACK(uint32_t, value);
    case TS_U16: PACK(uint16_t, value);
    case TS_U8: PACK(uint8_t, value);
    case TS_I64:
      if (!low_of(row, length, &low)) return 0;
      PACK(int64_t, (uint64_t)value - low);
    case TS_F16:
    case TS_BF16:
      for (int64_t i = 0; i < length; ++i)
        items[i] = packed(float_key((float)ts_read_float(element, row, i)) ^ flip, i);
      return 1;
    default: return 0;
  }
#undef PACK
}

/* Whether an element of [begin, end) may come before the one at `last`. */
static int may_precede(int64_t element, const void *row, int64_t begin, int64_t end, int64_t last,
                       int64_t descending) {
#define ANY(type)                                                              \
  {                                                                            \
    const type *x = row, bound = x[last];                                      \
    int found = 0; /* NaN, which any number is not, is looked at */            \
    if (descending)                                                            \
      for (int64_t i = begin; i < end; ++i) found |= !(x[i] <= bound);         \
    else                                                                       \
      for (int64_t i = begin; i < end; ++i) found |= !(x[i] >= bound);         \
    return found;                                                              \
  }
  switch (element) {
    case TS_F32: ANY(float)
    case TS_F64: ANY(double)
    case TS_I64: ANY(int64_t)
    case TS_I32: ANY(int32_t)
    default: return 1;
  }
#undef ANY
}

/* The `count` elements that come first, in order; 0 where too many come before those that were kept
 * already. */
static int keep_few(int64_t element, const void *row, int64_t length, int64_t count,
                    int64_t descending, wide_item *kept) {
  int64_t held = 0, left = length / OFTEN + count;
  for (int64_t begin = 0; begin < length; begin += BLOCK) {
    const int64_t end = begin + BLOCK < length ? begin + BLOCK : length;
    if (held == count &&
        !may_precede(element, row, begin, end, kept[count - 1].index, descending))
      continue;
    for (int64_t i = begin; i < end; ++i) {
      const uint64_t plain = ts_key(element, row, i), key = descending ? ~plain : plain;
      if (held == count && key >= kept[count - 1].key) continue;
      if (!left--) return 0;
      int64_t at = held < count ? held++ : count - 1;
      for (; at && kept[at - 1].key > key; --at) kept[at] = kept[at - 1];
      kept[at] = (wide_item){key, i};
    }
  }
  return 1;
}

/* The `count` least items, in order; `least` has room for as many. */
static void keep_least(const uint64_t *items, int64_t length, int64_t count, uint64_t *least) {
  int64_t kept = 0;
  for (int64_t i = 0; i < length; ++i) {
    const uint64_t item = items[i];
    if (kept == count && item > least[count - 1]) continue;
    int64_t at = kept < count ? kept++ : count - 1;
    for (; at && least[at - 1] > item; --at) least[at] = least[at - 1];
    least[at] = item;
  }
}

/* Moves the `count` < length least items to `least`, those of one key in their order; `least` has
 * room for length, `many` for DIGITS, and the items are destroyed. */
static void select_least(uint64_t *items, int64_t length, int64_t count, uint64_t *least,
                         uint32_t *many) {
  for (int place = KEY_DIGITS - 1; place >= 0 && count && count < length; --place) {
    memset(many, 0, DIGITS * sizeof *many);
    for (int64_t i = 0; i < length; ++i) ++many[digit_of(items[i], place)];
    int last = 0; /* of items with this digit some are wanted, of those with a lower one all */
    for (int64_t below = 0; below + many[last] <= count; ++last) below += many[last];
    int64_t moved = 0, left = 0;
    for (int64_t i = 0; i < length; ++i) {
      const uint64_t item = items[i];
      const int digit = digit_of(item, place);
      least[moved] = item;
      moved += digit < last;
      items[left] = item;
      left += digit == last;
    }
    least += moved;
    count -= moved;
    length = left;
  }
  memcpy(least, items, (size_t)count * sizeof *items);
}

/* Sorts items of which equal keys are in their order; returns where the sorted ones are. `many` has
 * room for COUNTS where there are more than SHORT. */
static uint64_t *sort_items(uint64_t *items, uint64_t *spare, int64_t length, uint32_t *many) {
  if (length <= SHORT) {
    keep_least(items, length, length, spare);
    return spare;
  }
  memset(many, 0, COUNTS * sizeof *many);
  for (int64_t i = 0; i < length; ++i)
    for (int place = 0; place < KEY_DIGITS; ++place)
      ++many[place * DIGITS + digit_of(items[i], place)];
  for (int place = 0; place < KEY_DIGITS; ++place) {
    uint32_t *next = many + place * DIGITS, first = 0;
    if (next[digit_of(items[0], place)] == length) continue;
    for (int digit = 0; digit < DIGITS; ++digit) {
      const uint32_t count = next[digit];
      next[digit] = first;
      first += count;
    }
    for (int64_t i = 0; i < length; ++i) spare[next[digit_of(items[i], place)]++] = items[i];
    uint64_t *swap = items;
    items = spare;
    spare = swap;
  }
  return items;
}

/* A run of items merged with the next one, from `from` to `to`. */
static void merge(const wide_item *from, wide_item *to, int64_t begin, int64_t middle,
                  int64_t end) {
  int64_t a = begin, b = middle;
  for (int64_t i = begin; i < end; ++i)
    to[i] = a < middle && (b >= end || from[a].key <= from[b].key) ? from[a++] : from[b++];
}

/* Sorts stably; `spare` has room for as many. Returns where the sorted items are. */
static wide_item *merge_items(wide_item *items, wide_item *spare, int64_t count) {
  for (int64_t width = 1; width < count; width *= 2) {
    for (int64_t begin = 0; begin < count; begin += 2 * width) {
      const int64_t middle = begin + width < count ? begin + width : count;
      merge(items, spare, begin, middle, middle + width < count ? middle + width : count);
    }
    wide_item *swap = items;
    items = spare;
    spare = swap;
  }
  return items;
}

int64_t ts_order_bytes(int64_t length) {
  const int64_t wide = 2 * length * (int64_t)sizeof(wide_item);
  const int64_t counts = length > SHORT ? COUNTS * (int64_t)sizeof(uint32_t) : 0;
  const int64_t packed = 2 * length * (int64_t)sizeof(uint64_t) + counts;
  return wide > packed ? wide : packed;
}

void ts_order(int64_t element, const void *row, int64_t length, int64_t count,
              int64_t descending, void *memory, int64_t *order) {
  if (!count) return;
  wide_item *wide = memory;
  if (count <= FEW && keep_few(element, row, length, count, descending, wide)) {
    for (int64_t i = 0; i < count; ++i) order[i] = wide[i].index;
    return;
  }
  uint64_t *items = memory, *spare = items + length;
  uint32_t *many = (uint32_t *)(spare + length);
  if (pack(element, row, length, descending ? UINT32_MAX : 0, items)) {
    if (length > SHORT && count < length / 2) {
      select_least(items, length, count, spare, many);
      items = sort_items(spare, items, count, many);
    } else {
      items = sort_items(items, spare, length, many);
    }
    for (int64_t i = 0; i < count; ++i) order[i] = (uint32_t)items[i];
    return;
  }
  for (int64_t i = 0; i < length; ++i) {
    const uint64_t key = ts_key(element, row, i);
    wide[i] = (wide_item){descending ? ~key : key, i};
  }
  wide = merge_items(wide, wide + length, length);
  for (int64_t i = 0; i < count; ++i) order[i] = wide[i].index;
}
