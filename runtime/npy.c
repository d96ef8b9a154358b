/* Reads .npy and .npz files (numpy/lib/format.py; ZIP: APPNOTE.TXT 4.3), and raw ones. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

typedef struct {
  uint8_t *data;
  size_t bytes;
} file_bytes;

typedef struct {
  const uint8_t *name;
  size_t name_bytes;
  uint16_t method;
  uint32_t crc;
  uint64_t packed, unpacked, offset;
} zip_entry;

static file_bytes read_stream(const char *path, FILE *file) {
  if (!file) die(EXIT_USAGE, "cannot read '%s': %s", path, strerror(errno));
  file_bytes out = {NULL, 0};
  size_t capacity = 1 << 16, got;
  do {
    capacity *= 2;
    out.data = realloc(out.data, capacity);
    if (!out.data) die(EXIT_RUN, "no memory for '%s'", path);
    got = fread(out.data + out.bytes, 1, capacity - out.bytes, file);
    out.bytes += got;
  } while (out.bytes == capacity);
  if (ferror(file)) die(EXIT_USAGE, "cannot read '%s': %s", path, strerror(errno));
  fclose(file);
  return out;
}

/* What standard input holds: it can be read once, but is asked for several times. */
static const file_bytes *standard_input(void) {
  static file_bytes kept;
  if (!kept.data) kept = read_stream("standard input", stdin);
  return &kept;
}

/* Git LFS leaves a few lines of text where it did not fetch a file. */
static void refuse_pointer(const char *path, const file_bytes *file) {
  static const char mark[] = "version https://git-lfs.github.com/spec";
  if (file->bytes < sizeof mark || file->bytes > 1024) return;
  if (!memcmp(file->data, mark, sizeof mark - 1))
    die(EXIT_USAGE, "'%s' is a pointer of Git LFS to the file: run `git lfs pull`", path);
}

static file_bytes read_file(const char *path) {
  if (strcmp(path, "-")) {
    const file_bytes file = read_stream(path, fopen(path, "rb"));
    refuse_pointer(path, &file);
    return file;
  }
  const file_bytes *kept = standard_input();
  file_bytes out = {allocate(kept->bytes), kept->bytes};
  memcpy(out.data, kept->data, kept->bytes);
  return out;
}

static uint64_t little(const uint8_t *at, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; ++i) value |= (uint64_t)at[i] << 8 * i;
  return value;
}

/* ---- ZIP ------------------------------------------------------------------------------------- */

/* Replaces the 32-bit sizes that say "see the ZIP64 extra field". */
static void read_zip64(zip_entry *entry, const uint8_t *extra, size_t bytes) {
  while (bytes >= 4) {
    const size_t kind = little(extra, 2), size = little(extra + 2, 2);
    if (size > bytes - 4) return;
    if (kind == 1) {
      const uint8_t *at = extra + 4, *end = at + size;
      uint64_t *fields[] = {&entry->unpacked, &entry->packed, &entry->offset};
      for (int i = 0; i < 3; ++i)
        if (*fields[i] == 0xffffffffu && end - at >= 8) {
          *fields[i] = little(at, 8);
          at += 8;
        }
    }
    extra += 4 + size;
    bytes -= 4 + size;
  }
}

/* Where the central directory starts and how many entries it has. */
static uint64_t find_directory(const char *path, const file_bytes *zip, uint64_t *count) {
  for (size_t back = 22; back <= zip->bytes && back < 22 + 65536; ++back) {
    const uint8_t *end = zip->data + zip->bytes - back;
    if (memcmp(end, "PK\5\6", 4)) continue;
    uint64_t offset = little(end + 16, 4);
    *count = little(end + 10, 2);
    if (offset == 0xffffffffu || *count == 0xffff) {
      const uint64_t locator = zip->bytes - back - 20;
      if (back + 20 > zip->bytes || memcmp(zip->data + locator, "PK\6\7", 4)) break;
      const uint64_t record = little(zip->data + locator + 8, 8);
      if (record > zip->bytes - 56 || memcmp(zip->data + record, "PK\6\6", 4)) break;
      *count = little(zip->data + record + 32, 8);
      offset = little(zip->data + record + 48, 8);
    }
    if (offset <= zip->bytes) return offset;
  }
  die(EXIT_USAGE, "'%s' is not a complete .npz file", path);
}

static int same_name(const zip_entry *entry, const char *member) {
  const size_t length = strlen(member);
  return entry->name_bytes == length + 4 && !memcmp(entry->name, member, length) &&
         !memcmp(entry->name + length, ".npy", 4);
}

/* The entry of a member; of the only one if `member` is NULL. */
static int find_entry(const char *path, const file_bytes *zip, const char *member,
                      zip_entry *found) {
  uint64_t count, at = find_directory(path, zip, &count);
  if (!member && count != 1) return 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint8_t *p = zip->data + at;
    if (zip->bytes - at < 46 || memcmp(p, "PK\1\2", 4)) break;
    const size_t name = little(p + 28, 2), extra = little(p + 30, 2), comment = little(p + 32, 2);
    if (zip->bytes - at - 46 < name + extra + comment) break;
    *found = (zip_entry){.name = p + 46,
                         .name_bytes = name,
                         .method = (uint16_t)little(p + 10, 2),
                         .crc = (uint32_t)little(p + 16, 4),
                         .packed = little(p + 20, 4),
                         .unpacked = little(p + 24, 4),
                         .offset = little(p + 42, 4)};
    read_zip64(found, p + 46 + name, extra);
    if (!member || same_name(found, member)) return 1;
    at += 46 + name + extra + comment;
  }
  return 0;
}

static file_bytes unpack(const char *path, const file_bytes *zip, const zip_entry *entry) {
  const uint64_t head = entry->offset;
  if (head > zip->bytes || zip->bytes - head < 30 || memcmp(zip->data + head, "PK\3\4", 4))
    die(EXIT_USAGE, "'%s' is damaged", path);
  const uint64_t start =
      head + 30 + little(zip->data + head + 26, 2) + little(zip->data + head + 28, 2);
  if (start > zip->bytes || zip->bytes - start < entry->packed)
    die(EXIT_USAGE, "'%s' is truncated", path);
  /* DEFLATE packs at most 1032 to 1: a size beyond that is a lie. */
  if (entry->unpacked / 1032 > entry->packed) die(EXIT_USAGE, "'%s' is damaged", path);
  file_bytes out = {allocate(entry->unpacked + 1), entry->unpacked};
  const uint8_t *from = zip->data + start;
  if (entry->method == 0 && entry->packed == entry->unpacked)
    memcpy(out.data, from, out.bytes);
  else if (entry->method != 8 || inflate_raw(from, entry->packed, out.data, out.bytes))
    die(EXIT_USAGE, "'%s': a member is damaged or packed by method %d (stored and deflate work)",
        path, entry->method);
  if (crc32_of(0, out.data, out.bytes) != entry->crc)
    die(EXIT_USAGE, "'%s': a member has a wrong checksum", path);
  return out;
}

static int looks_like(const char *path, const char *magic, size_t bytes) {
  uint8_t start[8] = {0};
  if (!strcmp(path, "-")) {
    const file_bytes *kept = standard_input();
    return kept->bytes >= bytes && !memcmp(kept->data, magic, bytes);
  }
  FILE *file = fopen(path, "rb");
  if (!file) return 0;
  const size_t got = fread(start, 1, bytes, file);
  fclose(file);
  return got == bytes && !memcmp(start, magic, bytes);
}

int is_npz(const char *path) { return looks_like(path, "PK\3\4", 4); }

int npz_has(const char *path, const char *member) {
  file_bytes zip = read_file(path);
  zip_entry entry;
  const int found = find_entry(path, &zip, member, &entry);
  free(zip.data);
  return found;
}

/* ---- NPY ------------------------------------------------------------------------------------- */

/* The type that a .npy names; bytes without a type are what `info` takes, if that has one that numpy
 * does not know. */
static DLDataType parse_type(const char *path, const char *text, const ts_tensor_info *info) {
  static const struct {
    char name[3];
    uint8_t code, bits;
  } types[] = {{"f8", kDLFloat, 64}, {"f4", kDLFloat, 32},  {"f2", kDLFloat, 16},
               {"i8", kDLInt, 64},   {"i4", kDLInt, 32},    {"i2", kDLInt, 16},
               {"i1", kDLInt, 8},    {"u8", kDLUInt, 64},   {"u4", kDLUInt, 32},
               {"u2", kDLUInt, 16},  {"u1", kDLUInt, 8},    {"b1", kDLBool, 8},
               {"V2", kDLBfloat, 16}};
  if (text[1] == 'S') return (DLDataType){kDLUInt, 8, 1};
  if (text[1] == 'U')
    die(EXIT_USAGE, "'%s': strings are read as bytes: save the array as numpy's type 'S'", path);
  if (!strncmp(text + 1, "V1'", 3) && info && ts_item_bytes(info->dtype) == 1 &&
      info->dtype.code != kDLBool && (info->dtype.bits < 8 || info->dtype.code > kDLBool))
    return info->dtype;
  for (size_t i = 0; i < sizeof types / sizeof types[0]; ++i)
    if (!strncmp(text + 1, types[i].name, 2) && text[3] == '\'')
      return (DLDataType){types[i].code, types[i].bits, 1};
  die(EXIT_USAGE, "'%s': elements of type '%.8s' are not supported", path, text);
}

static const char *header_value(const char *path, const char *header, const char *key) {
  const char *at = strstr(header, key);
  if (!at) die(EXIT_USAGE, "'%s': the .npy header lacks %s", path, key);
  at += strlen(key);
  while (*at == ' ' || *at == ':') ++at;
  return at;
}

static void parse_shape(const char *path, const char *text, array *out) {
  int32_t ndim = 0;
  if (*text++ != '(') die(EXIT_USAGE, "'%s': malformed .npy shape", path);
  while (*text && *text != ')') {
    char *end;
    const long long size = strtoll(text, &end, 10);
    if (end == text || size < 0 || ndim == MAX_DIMS)
      die(EXIT_USAGE, "'%s': malformed .npy shape", path);
    out->shape[ndim++] = size;
    text = end;
    while (*text == ',' || *text == ' ') ++text;
  }
  out->tensor.ndim = ndim;
  out->tensor.shape = out->shape;
}

/* Bytes of strings are an axis of their own, behind the others. */
static void add_width(const char *path, int64_t width, array *out) {
  if (width < 0 || out->tensor.ndim == MAX_DIMS)
    die(EXIT_USAGE, "'%s': malformed .npy shape", path);
  out->shape[out->tensor.ndim++] = width;
}

/* Elements of a big-endian array. */
static void swap_bytes(uint8_t *data, size_t bytes, size_t item) {
  for (size_t at = 0; at < bytes; at += item)
    for (size_t i = 0; i < item / 2; ++i) {
      const uint8_t low = data[at + i];
      data[at + i] = data[at + item - 1 - i];
      data[at + item - 1 - i] = low;
    }
}

static void parse_npy(const char *path, array *out, file_bytes file, const ts_tensor_info *info) {
  const uint8_t *p = file.data;
  if (file.bytes < 12 || memcmp(p, "\x93NUMPY", 6))
    die(EXIT_USAGE, "'%s' is not a .npy file", path);
  const size_t prefix = p[6] == 1 ? 10 : 12, length = little(p + 8, p[6] == 1 ? 2 : 4);
  if (length > file.bytes - prefix) die(EXIT_USAGE, "'%s' is truncated", path);
  char *header = allocate(length + 1);
  memcpy(header, p + prefix, length);
  const char *type = header_value(path, header, "'descr'");
  if (*type++ != '\'' || strlen(type) < 4)
    die(EXIT_USAGE, "'%s': structured arrays are not supported", path);
  out->tensor = (DLTensor){.device = {kDLCPU, 0}, .dtype = parse_type(path, type, info)};
  parse_shape(path, header_value(path, header, "'shape'"), out);
  if (type[1] == 'S') add_width(path, strtoll(type + 2, NULL, 10), out);
  if (!strncmp(header_value(path, header, "'fortran_order'"), "True", 4)) {
    int64_t stride = 1;
    for (int32_t d = 0; d < out->tensor.ndim; stride *= out->shape[d++]) out->strides[d] = stride;
    out->tensor.strides = out->strides;
  }
  const int foreign = *type == '>';
  free(header);
  const int64_t bytes = ts_tensor_bytes(out->tensor.dtype, out->tensor.ndim, out->shape);
  if (bytes < 0 || (uint64_t)bytes > file.bytes - prefix - length)
    die(EXIT_USAGE, "'%s' is truncated", path);
  out->memory = file.data;
  out->tensor.data = file.data + prefix + length;
  if (foreign) swap_bytes(out->tensor.data, (size_t)bytes, ts_item_bytes(out->tensor.dtype));
}

static void parse_raw(const char *path, array *out, file_bytes file, const ts_tensor_info *info,
                      const int64_t *dims) {
  int64_t known = (int64_t)ts_item_bytes(info->dtype);
  int32_t unknown = -1;
  for (int32_t d = 0; d < info->ndim; ++d) {
    out->shape[d] = dims[d];
    if (dims[d] >= 0) known *= dims[d];
    else if (unknown < 0) unknown = d;
    else die(EXIT_USAGE, "'%s': say the shape: --shape %s:...", path, info->name);
  }
  if (unknown >= 0 && known && file.bytes % (uint64_t)known == 0) {
    out->shape[unknown] = (int64_t)file.bytes / known;
    known *= out->shape[unknown];
  }
  if ((uint64_t)known != file.bytes)
    die(EXIT_USAGE, "'%s' has %zu bytes, which is not the size of input '%s'", path, file.bytes,
        info->name);
  out->tensor = (DLTensor){.data = file.data,
                           .device = {kDLCPU, 0},
                           .ndim = info->ndim,
                           .dtype = info->dtype,
                           .shape = out->shape};
  out->memory = file.data;
}

void read_array(array *out, const char *path, const char *member, const ts_tensor_info *info,
                const int64_t *dims) {
  file_bytes file = read_file(path);
  if (is_npz(path)) {
    zip_entry entry;
    if (!find_entry(path, &file, member, &entry) && !find_entry(path, &file, NULL, &entry))
      die(EXIT_USAGE, "'%s' holds no array '%s'; choose one: %s=%s:ARRAY", path, member,
          info ? info->name : "NAME", path);
    file_bytes content = unpack(path, &file, &entry);
    free(file.data);
    parse_npy(path, out, content, info);
  } else if (looks_like(path, "\x93NUMPY", 6) || !info) {
    parse_npy(path, out, file, info);
  } else {
    parse_raw(path, out, file, info, dims);
  }
}
