/* Floats as text, and text as numbers: exact, and the same in every locale. A float is compared
 * with the decimal digits of the number halfway to the next one, of which it has finitely many. */
#include <string.h>

#include "elements.h"
#include "internal.h"

enum {
  LIMB = 1000000000, /* decimal digits of numbers lie by nine in a limb */
  LIMB_DIGITS = 9,
  LIMBS = 88, /* of 2^54 * 5^1075, the longest number halfway between two f64 */
  KEPT = 19,  /* digits that a u64 holds, whichever they are */
  FAR = 400,  /* 10^FAR is beyond every f64, 10^-FAR is zero */
  BESIDE_DIGITS = 7, /* characters: two signs, the point, the letter and digits of the exponent */
};

typedef struct {
  uint32_t limbs[LIMBS]; /* the lowest first */
  int count;
} natural;

static void multiply(natural *n, uint32_t factor) {
  uint64_t carry = 0;
  for (int i = 0; i < n->count; ++i) {
    carry += (uint64_t)n->limbs[i] * factor;
    n->limbs[i] = (uint32_t)(carry % LIMB);
    carry /= LIMB;
  }
  if (carry) n->limbs[n->count++] = (uint32_t)carry;
}

/* n times base^exponent; `most` factors fit a limb. */
static void multiply_power(natural *n, uint32_t base, int exponent, int most) {
  for (; exponent > 0; exponent -= most) {
    uint32_t factor = 1;
    for (int i = 0; i < most && i < exponent; ++i) factor *= base;
    multiply(n, factor);
  }
}

/* The digits, as characters, of mantissa * 2^exponent; mantissa in [1, 2^54]. The number is
 * 0.digits times 10^*power. Returns how many they are. */
static int digits_of(uint64_t mantissa, int exponent, char *digits, int *power) {
  for (; exponent < 0 && mantissa % 2 == 0; ++exponent) mantissa /= 2;
  natural n = {{(uint32_t)(mantissa % LIMB), (uint32_t)(mantissa / LIMB)}, mantissa < LIMB ? 1 : 2};
  if (exponent < 0) multiply_power(&n, 5, -exponent, 12);
  else multiply_power(&n, 2, exponent, 29);
  int count = 0;
  for (int i = n.count; i-- > 0;) {
    uint32_t rest = n.limbs[i];
    int length = LIMB_DIGITS;
    if (i == n.count - 1)
      for (uint32_t size = LIMB / 10; size > rest; size /= 10) --length;
    for (int at = length; at-- > 0; rest /= 10) digits[count + at] = (char)('0' + rest % 10);
    count += length;
  }
  *power = count + (exponent < 0 ? exponent : 0);
  return count;
}

/* Rounds to `most` digits, ties to even. Returns how many are left, without zeros at the end. */
static int round_digits(char *digits, int count, int most, int *power) {
  if (count > most) {
    int beyond = digits[most] > '5';
    for (int i = most + 1; digits[most] == '5' && i < count; ++i) beyond |= digits[i] != '0';
    const int odd = (digits[most - 1] - '0') % 2;
    count = most;
    if (beyond || (digits[most] == '5' && odd)) {
      while (count && digits[count - 1] == '9') --count;
      if (count) {
        ++digits[count - 1];
      } else {
        digits[count++] = '1';
        ++*power;
      }
    }
  }
  while (count > 1 && digits[count - 1] == '0') --count;
  return count;
}

/* As `%g` writes them: 0.digits times 10^power, in which `most` digits were asked for. */
static void put_general(char *out, const char *digits, int count, int power, int most) {
  const int exponent = power - 1;
  if (exponent < -4 || exponent >= most) {
    *out++ = digits[0];
    if (count > 1) *out++ = '.';
    for (int i = 1; i < count; ++i) *out++ = digits[i];
    const int size = exponent < 0 ? -exponent : exponent;
    *out++ = 'e';
    *out++ = exponent < 0 ? '-' : '+';
    for (int u = size < 100 ? 10 : 100; u; u /= 10) *out++ = (char)('0' + size / u % 10);
    return;
  }
  if (power <= 0) {
    *out++ = '0';
    *out++ = '.';
    for (int i = power; i < 0; ++i) *out++ = '0';
  }
  for (int i = 0; i < count || i < power; ++i) {
    if (i == power && i) *out++ = '.';
    *out++ = i < count ? digits[i] : '0';
  }
}

/* What an element of some type is: fraction and exponent as they are stored, by integers alone, to
 * which denormals are no zeros. */
typedef struct {
  int bits;    /* of the mantissa, the hidden one included */
  int largest; /* exponent of infinity and NaN */
  uint64_t stored;
} element_bits;

static element_bits bits_of(int64_t element, const void *data, int64_t i) {
  switch (element) {
    case TS_F64: return (element_bits){53, 2047, ((const uint64_t *)data)[i]};
    case TS_F32: return (element_bits){24, 255, ((const uint32_t *)data)[i]};
    case TS_BF16: return (element_bits){8, 255, ((const uint16_t *)data)[i]};
    default: return (element_bits){11, 31, ((const uint16_t *)data)[i]};
  }
}

static void put_float(char *out, element_bits x, int most) {
  const uint64_t hidden = (uint64_t)1 << (x.bits - 1), fraction = x.stored & (hidden - 1);
  const int exponent = (int)(x.stored >> (x.bits - 1)) & x.largest;
  const int minus = (int)(x.stored / hidden) > x.largest;
  if (exponent == x.largest && fraction) {
    memcpy(out, "NaN", 3);
    return;
  }
  if (minus) *out++ = '-';
  if (exponent == x.largest) {
    memcpy(out, "INF", 3);
  } else if (!exponent && !fraction) {
    *out = '0';
  } else {
    char digits[LIMBS * LIMB_DIGITS];
    int power;
    const int unit = (exponent ? exponent : 1) - x.largest / 2 - x.bits + 1;
    int count = digits_of(fraction | (exponent ? hidden : 0), unit, digits, &power);
    count = round_digits(digits, count, most, &power);
    put_general(out, digits, count, power, most);
  }
}

int32_t ts_op_write_floats(ts_frame *frame, void *const *places, const int64_t *arguments) {
  (void)frame;
  const int64_t element = arguments[0], count = arguments[1];
  const int most = (int)arguments[2];
  const size_t width = (size_t)most + BESIDE_DIGITS;
  char *rows = places[1];
  memset(rows, 0, (size_t)count * width);
  for (int64_t i = 0; i < count; ++i)
    put_float(rows + (size_t)i * width, bits_of(element, places[0], i), most);
  return 0;
}

typedef struct {
  const uint8_t *at, *end; /* a byte of zero ends a text, too */
} text;

static int next(const text *t) { return t->at < t->end ? *t->at : 0; }
static int digit(int c) { return c >= '0' && c <= '9' ? c - '0' : -1; }

static int hex_digit(int c) {
  const int lower = c | 32;
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : digit(c);
}

/* Passes spaces. */
static void skip_spaces(text *t) {
  while (next(t) == ' ' || (next(t) >= '\t' && next(t) <= '\r')) ++t->at;
}

/* Passes a sign; whether it is a minus. */
static int take_sign(text *t) {
  const int sign = next(t);
  if (sign == '-' || sign == '+') ++t->at;
  return sign == '-';
}

/* Passes a word in any case; whether it was there. */
static int take_word(text *t, const char *word) {
  text ahead = *t;
  for (; *word; ++word, ++ahead.at)
    if (next(&ahead) != *word && (*word < 'a' || next(&ahead) != *word - 32)) return 0;
  *t = ahead;
  return 1;
}

/* An exponent behind its letter, or 0 where no digits follow: then the letter is no part of the
 * number. */
static int64_t take_exponent(text *t, int letter) {
  text ahead = *t;
  int64_t size = 0;
  if ((next(&ahead) | 32) != letter) return 0;
  ++ahead.at;
  const int minus = take_sign(&ahead);
  if (digit(next(&ahead)) < 0) return 0;
  for (; digit(next(&ahead)) >= 0; ++ahead.at)
    if (size < (int64_t)1 << 40) size = size * 10 + digit(next(&ahead));
  *t = ahead;
  return minus ? -size : size;
}

/* The number that a text begins with, in two's complement; 0 where there is none that fits. */
static int read_integer(text t, int has_sign, uint64_t *value) {
  skip_spaces(&t);
  const int minus = take_sign(&t);
  uint64_t most = has_sign ? ((uint64_t)1 << 63) - !minus : UINT64_MAX, size = 0;
  if (digit(next(&t)) < 0) return 0;
  for (; digit(next(&t)) >= 0; ++t.at) {
    const uint64_t unit = (uint64_t)digit(next(&t));
    if (size > (most - unit) / 10) return 0;
    size = size * 10 + unit;
  }
  *value = minus ? -size : size;
  return 1;
}

enum {
  BITS = 53,     /* of the mantissa of an f64, the hidden one included */
  LEAST = -1074, /* exponent of two of the smallest f64 */
  NEAR = 64,     /* at most 40 roundings, each by half a unit, are this far from none */
};
static const uint64_t HIDDEN = (uint64_t)1 << 52, INFINITE = (uint64_t)2047 << 52;

/* The number of some bits as *mantissa * 2^(returned exponent). */
static int unpacked(uint64_t bits, uint64_t *mantissa) {
  const int exponent = (int)(bits >> 52);
  *mantissa = (bits & (HIDDEN - 1)) | (exponent ? HIDDEN : 0);
  return LEAST + (exponent ? exponent - 1 : 0);
}

/* Decimal digits, of which the first is not 0, and a point somewhere between them: 0.digits times
 * 10^power. */
typedef struct {
  const uint8_t *at, *end;
  int64_t power;
} decimal;

/* Whether a decimal is above (1), below (-1) or at (0) mantissa * 2^exponent. */
static int compared(const decimal *d, uint64_t mantissa, int exponent) {
  char digits[LIMBS * LIMB_DIGITS];
  int power, i = 0;
  const int count = digits_of(mantissa, exponent, digits, &power);
  if (d->power != power) return d->power > power ? 1 : -1;
  for (const uint8_t *at = d->at; at < d->end; ++at) {
    if (*at == '.') continue;
    const int known = i < count ? digits[i] : '0';
    if (*at != known) return *at > known ? 1 : -1;
    ++i;
  }
  for (; i < count; ++i)
    if (digits[i] != '0') return -1;
  return 0;
}

/* The bits of a number that is at most NEAR numbers away, or 0 for one that is denormal, or all but
 * that: a run makes zeros of those. */
static uint64_t guessed(const decimal *d) {
  uint64_t first = 0, bits;
  int kept = 0;
  for (const uint8_t *at = d->at; at < d->end && kept < KEPT; ++at) {
    if (*at == '.') continue;
    first = first * 10 + (uint64_t)(*at - '0');
    ++kept;
  }
  double value = (double)first;
  int64_t power = d->power - kept;
  for (; power >= 22; power -= 22) value *= 1e22;
  for (; power <= -22; power += 22) value /= 1e22;
  for (; power > 0; --power) value *= 10;
  for (; power < 0; ++power) value /= 10;
  memcpy(&bits, &value, sizeof bits);
  if (bits < HIDDEN + NEAR) return 0;
  return bits < INFINITE ? bits : INFINITE;
}

/* The bits of the nearest number, ties to even: of the least whose middle between it and the next
 * one is not below. */
static uint64_t nearest(const decimal *d) {
  if (d->at == d->end || d->power < -FAR) return 0;
  if (d->power > FAR) return INFINITE;
  const uint64_t guess = guessed(d);
  uint64_t low = guess ? guess - NEAR : 0, high = guess ? guess + NEAR : HIDDEN + 2 * NEAR;
  if (high > INFINITE) high = INFINITE;
  while (low < high) {
    const uint64_t bits = low + (high - low) / 2;
    uint64_t mantissa;
    const int exponent = unpacked(bits, &mantissa);
    const int side = compared(d, 2 * mantissa + 1, exponent - 1);
    if (side < 0 || (side == 0 && bits % 2 == 0)) high = bits;
    else low = bits + 1;
  }
  return low;
}

/* The bits of mantissa * 2^exponent, and a little more where `more`, rounded to nearest even. */
static uint64_t from_binary(uint64_t mantissa, int64_t exponent, int more) {
  if (!mantissa) return 0;
  for (; !(mantissa >> 63); --exponent) mantissa *= 2;
  int64_t drop = 64 - BITS;
  if (exponent + drop < LEAST) drop = LEAST - exponent;
  const int64_t steps = exponent + drop - LEAST + 1;
  if (drop > 64) return 0;
  if (steps >= (int64_t)(INFINITE >> 52)) return INFINITE;
  const uint64_t half = (uint64_t)1 << (drop - 1);
  const uint64_t kept = drop == 64 ? 0 : mantissa >> drop;
  const int up = (mantissa & half) && ((mantissa & (half - 1)) || more || kept % 2);
  const uint64_t biased = kept < HIDDEN ? 0 : (uint64_t)steps;
  return (biased << 52) + (kept & (HIDDEN - 1)) + (uint64_t)up;
}

/* A number in hexadecimal behind its `0x`. */
static uint64_t read_hexadecimal(text t) {
  uint64_t mantissa = 0;
  int64_t exponent = 0, more = 0, point = 0;
  for (; hex_digit(next(&t)) >= 0 || (next(&t) == '.' && !point); ++t.at) {
    if (next(&t) == '.') {
      point = 1;
    } else if (mantissa >> 60) {
      more |= hex_digit(next(&t)) > 0;
      exponent += point ? 0 : 4;
    } else {
      mantissa = mantissa * 16 + (uint64_t)hex_digit(next(&t));
      exponent -= point ? 4 : 0;
    }
  }
  return from_binary(mantissa, exponent + take_exponent(&t, 'p'), more != 0);
}

/* A decimal at the head of a text; 0 where there is none. */
static int read_decimal(text *t, decimal *d) {
  int64_t before = 0; /* digits in front of the point, from the first that is not 0 on */
  int point = 0, any = 0;
  *d = (decimal){t->end, t->end, 0};
  for (; digit(next(t)) >= 0 || (next(t) == '.' && !point); ++t->at) {
    if (next(t) == '.') {
      point = 1;
    } else if (d->at == t->end && next(t) == '0') {
      any = 1;
      before -= point;
    } else {
      any = 1;
      if (d->at == t->end) d->at = t->at;
      before += !point;
    }
  }
  d->end = t->at;
  if (d->at > d->end) d->at = d->end;
  d->power = before + (any ? take_exponent(t, 'e') : 0);
  return any;
}

/* Whether what stands behind `0x` is a number: a digit, a point before it or not. */
static int is_hexadecimal(const text *t) {
  text ahead = *t;
  if (!take_word(&ahead, "0x")) return 0;
  ahead.at += next(&ahead) == '.';
  return hex_digit(next(&ahead)) >= 0;
}

/* The bits of the f64 that a text begins with, rounded to nearest even; 0 where there is none, or
 * one that is too large. */
static int read_float(text t, uint64_t *bits) {
  skip_spaces(&t);
  const int minus = take_sign(&t);
  decimal d;
  int there = 1;
  if (take_word(&t, "inf")) {
    *bits = INFINITE;
  } else if (take_word(&t, "nan")) {
    *bits = INFINITE | HIDDEN >> 1;
  } else {
    if (is_hexadecimal(&t)) {
      t.at += 2;
      *bits = read_hexadecimal(t);
    } else {
      there = read_decimal(&t, &d);
      *bits = there ? nearest(&d) : 0;
    }
    there = there && *bits != INFINITE;
  }
  if (minus) *bits |= (uint64_t)1 << 63;
  return there;
}

int32_t ts_op_read_numbers(ts_frame *frame, void *const *places, const int64_t *arguments) {
  const int64_t element = arguments[0], rows = arguments[1], width = arguments[2];
  const uint8_t *data = places[0];
  uint64_t *numbers = places[1];
  for (int64_t i = 0; i < rows; ++i) {
    const text t = {data + i * width, data + (i + 1) * width};
    if (!(element == TS_F64 ? read_float(t, numbers + i)
                            : read_integer(t, element == TS_I64, numbers + i)))
      return ts_rt_fail(frame, TS_ERROR_MODEL, places[2]);
  }
  return 0;
}
