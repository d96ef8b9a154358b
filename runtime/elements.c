#include "elements.h"

#include <math.h>
#include <string.h>

int64_t ts_element_bytes(int64_t element) {
  switch (element) {
    case TS_F64:
    case TS_I64:
    case TS_U64: return 8;
    case TS_F32:
    case TS_I32:
    case TS_U32: return 4;
    case TS_I8:
    case TS_U8: return 1;
    default: return 2;
  }
}

static float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

double ts_read_float(int64_t element, const void *data, int64_t index) {
  switch (element) {
    case TS_F64: return ((const double *)data)[index];
    case TS_F32: return (double)((const float *)data)[index];
    case TS_BF16: return (double)from_bits((uint32_t)((const uint16_t *)data)[index] << 16);
    default: break;
  }
  const uint16_t bits = ((const uint16_t *)data)[index];
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double size = ldexp(exponent ? 1024 + fraction : fraction, (exponent ? exponent : 1) - 25);
  if (exponent == 31) size = fraction ? (double)NAN : (double)INFINITY;
  return bits >> 15 ? -size : size;
}

static uint16_t half_bits(double value) {
  const uint16_t sign = signbit(value) ? 0x8000 : 0;
  const double size = fabs(value);
  if (isnan(value)) return 0x7e00;
  if (size >= 65520) return (uint16_t)(sign | 0x7c00);
  int exponent;
  frexp(size, &exponent);
  if (exponent < -13) exponent = -13;
  const long fraction = lrint(ldexp(size, 11 - exponent)); /* a carry goes to the exponent */
  return (uint16_t)(sign | (((long)(exponent + 13) << 10) + fraction));
}

static uint16_t bfloat_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (isnan(value)) return 0x7fc0;
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void ts_write_float(int64_t element, void *data, int64_t index, double value) {
  switch (element) {
    case TS_F64: ((double *)data)[index] = value; break;
    case TS_F32: ((float *)data)[index] = (float)value; break;
    case TS_BF16: ((uint16_t *)data)[index] = bfloat_bits((float)value); break;
    default: ((uint16_t *)data)[index] = half_bits(value); break;
  }
}

static uint64_t float_key(double value) {
  const uint64_t top = (uint64_t)1 << 63;
  uint64_t bits;
  if (isnan(value)) return ~(uint64_t)0;
  if (value == 0) value = 0; /* the sign of zero does not count */
  memcpy(&bits, &value, sizeof bits);
  return bits & top ? ~bits : bits | top;
}

static uint64_t signed_key(int64_t value) { return (uint64_t)value ^ (uint64_t)1 << 63; }

uint64_t ts_key(int64_t element, const void *data, int64_t index) {
  switch (element) {
    case TS_I64: return signed_key(((const int64_t *)data)[index]);
    case TS_I32: return signed_key(((const int32_t *)data)[index]);
    case TS_I16: return signed_key(((const int16_t *)data)[index]);
    case TS_I8: return signed_key(((const int8_t *)data)[index]);
    case TS_U64: return ((const uint64_t *)data)[index];
    case TS_U32: return ((const uint32_t *)data)[index];
    case TS_U16: return ((const uint16_t *)data)[index];
    case TS_U8: return ((const uint8_t *)data)[index];
    default: return float_key(ts_read_float(element, data, index));
  }
}
