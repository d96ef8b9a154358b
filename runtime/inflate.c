/* DEFLATE decompression (RFC 1951), for arrays in compressed .npz files. */
#include <string.h>

#include "program.h"

enum { MAX_BITS = 15, LITERALS = 288, DISTANCES = 30, END_OF_BLOCK = 256 };

typedef struct {
  const uint8_t *from;
  size_t from_bytes, position;
  uint32_t buffer;
  int buffered, failed;
  uint8_t *to;
  size_t to_bytes, written;
} stream;

/* Canonical Huffman code: how many codes have each length, and the symbols in code order. */
typedef struct {
  uint16_t count[MAX_BITS + 1], symbol[LITERALS];
} huffman;

static uint32_t take_bits(stream *s, int count) {
  while (s->buffered < count) {
    if (s->position == s->from_bytes) {
      s->failed = 1;
      return 0;
    }
    s->buffer |= (uint32_t)s->from[s->position++] << s->buffered;
    s->buffered += 8;
  }
  const uint32_t bits = s->buffer & ((1u << count) - 1);
  s->buffer >>= count;
  s->buffered -= count;
  return bits;
}

static void build(huffman *code, const uint8_t *lengths, int symbols) {
  memset(code->count, 0, sizeof code->count);
  for (int i = 0; i < symbols; ++i) ++code->count[lengths[i]];
  uint16_t offsets[MAX_BITS + 2] = {0};
  for (int bits = 1; bits <= MAX_BITS; ++bits)
    offsets[bits + 1] = (uint16_t)(offsets[bits] + code->count[bits]);
  for (int i = 0; i < symbols; ++i)
    if (lengths[i]) code->symbol[offsets[lengths[i]]++] = (uint16_t)i;
}

static int decode(stream *s, const huffman *code) {
  int value = 0, first = 0, index = 0;
  for (int bits = 1; bits <= MAX_BITS && !s->failed; ++bits) {
    value |= (int)take_bits(s, 1);
    const int count = code->count[bits];
    if (value - first < count) return code->symbol[index + value - first];
    index += count;
    first = (first + count) << 1;
    value <<= 1;
  }
  s->failed = 1;
  return END_OF_BLOCK;
}

static void copy_match(stream *s, int symbol, const huffman *distances) {
  static const uint16_t length_base[] = {3,  4,  5,  6,  7,  8,  9,  10,  11,  13,
                                         15, 17, 19, 23, 27, 31, 35, 43,  51,  59,
                                         67, 83, 99, 115, 131, 163, 195, 227, 258};
  static const uint8_t length_extra[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                         2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
  static const uint16_t distance_base[] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,
                                           33,  49,  65,  97,  129, 193,  257,  385,  513,  769,
                                           1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385,
                                           24577};
  if (symbol >= (int)sizeof length_extra) {
    s->failed = 1;
    return;
  }
  const size_t length = length_base[symbol] + take_bits(s, length_extra[symbol]);
  const int code = decode(s, distances);
  if (s->failed || code >= DISTANCES) {
    s->failed = 1;
    return;
  }
  const size_t distance = distance_base[code] + take_bits(s, code < 4 ? 0 : code / 2 - 1);
  if (s->failed || distance > s->written || length > s->to_bytes - s->written) {
    s->failed = 1;
    return;
  }
  for (size_t i = 0; i < length; ++i, ++s->written)
    s->to[s->written] = s->to[s->written - distance];
}

static void compressed_block(stream *s, const huffman *literals, const huffman *distances) {
  while (!s->failed) {
    const int symbol = decode(s, literals);
    if (symbol == END_OF_BLOCK) return;
    if (symbol > END_OF_BLOCK) {
      copy_match(s, symbol - END_OF_BLOCK - 1, distances);
    } else if (s->written == s->to_bytes) {
      s->failed = 1;
    } else {
      s->to[s->written++] = (uint8_t)symbol;
    }
  }
}

static void stored_block(stream *s) {
  s->buffer = 0;
  s->buffered = 0;
  const uint32_t length = take_bits(s, 16), inverse = take_bits(s, 16);
  if (s->failed || (length ^ inverse) != 0xffff || length > s->from_bytes - s->position ||
      length > s->to_bytes - s->written) {
    s->failed = 1;
    return;
  }
  memcpy(s->to + s->written, s->from + s->position, length);
  s->written += length;
  s->position += length;
}

static void fixed_block(stream *s) {
  uint8_t lengths[LITERALS], ones[DISTANCES];
  for (int i = 0; i < LITERALS; ++i) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
  memset(ones, 5, sizeof ones);
  huffman literals, distances;
  build(&literals, lengths, LITERALS);
  build(&distances, ones, DISTANCES);
  compressed_block(s, &literals, &distances);
}

static void dynamic_block(stream *s) {
  static const uint8_t order[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
  uint8_t lengths[LITERALS + DISTANCES + 2] = {0};
  const int literal_count = (int)take_bits(s, 5) + 257;
  const int distance_count = (int)take_bits(s, 5) + 1;
  const int order_count = (int)take_bits(s, 4) + 4;
  if (literal_count > 286 || distance_count > DISTANCES) {
    s->failed = 1;
    return;
  }
  for (int i = 0; i < order_count; ++i) lengths[order[i]] = (uint8_t)take_bits(s, 3);
  huffman literals, distances;
  build(&literals, lengths, (int)sizeof order);
  memset(lengths, 0, sizeof lengths);
  for (int i = 0; i < literal_count + distance_count;) {
    const int symbol = decode(s, &literals);
    if (s->failed) return;
    if (symbol < 16) {
      lengths[i++] = (uint8_t)symbol;
      continue;
    }
    const uint8_t value = symbol == 16 && i ? lengths[i - 1] : 0;
    int repeat = symbol == 16   ? 3 + (int)take_bits(s, 2)
                 : symbol == 17 ? 3 + (int)take_bits(s, 3)
                                : 11 + (int)take_bits(s, 7);
    if ((symbol == 16 && !i) || i + repeat > literal_count + distance_count) {
      s->failed = 1;
      return;
    }
    while (repeat--) lengths[i++] = value;
  }
  build(&literals, lengths, literal_count);
  build(&distances, lengths + literal_count, distance_count);
  compressed_block(s, &literals, &distances);
}

int inflate_raw(const uint8_t *from, size_t from_bytes, uint8_t *to, size_t to_bytes) {
  stream s = {.from = from, .from_bytes = from_bytes, .to = to, .to_bytes = to_bytes};
  int last = 0;
  while (!last && !s.failed) {
    last = (int)take_bits(&s, 1);
    const uint32_t kind = take_bits(&s, 2);
    if (s.failed || kind == 3) return -1;
    if (kind == 0) stored_block(&s);
    else if (kind == 1) fixed_block(&s);
    else dynamic_block(&s);
  }
  return s.failed || s.written != to_bytes ? -1 : 0;
}

uint32_t crc32_of(uint32_t before, const uint8_t *data, size_t bytes) {
  uint32_t table[256], crc = ~before;
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0);
    table[i] = value;
  }
  for (size_t i = 0; i < bytes; ++i) crc = table[(crc ^ data[i]) & 255] ^ crc >> 8;
  return ~crc;
}
