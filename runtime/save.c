/* Writes .npy and .npz files (numpy/lib/format.py; ZIP: APPNOTE.TXT 4.3) and raw ones. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program.h"

enum { HEADER_BYTES = MAX_DIMS * 24 + 192 };

typedef struct {
  FILE *file;
  const char *path; /* as the user wrote it */
  char *target;     /* where the file is to be; NULL: it is written in place */
  char *new_path;   /* where it is until it is complete */
  uint64_t written;
} sink;

/* ---- Files that appear when they are complete ------------------------------------------------ */

static _Noreturn void fail(const sink *to, int code, int error) {
  if (to->target) unlink(to->new_path);
  die(code, "cannot write '%s': %s", to->path, strerror(error));
}

static sink open_sink(const char *path) {
  sink to = {.path = path};
  signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error to report */
  if (!strcmp(path, "-")) {
    to.file = stdout;
    return to;
  }
  struct stat status;
  const int exists = !stat(path, &status);
  if (!exists || S_ISREG(status.st_mode)) {
    char *resolved = exists ? realpath(path, NULL) : NULL; /* a link stays one */
    const size_t length = strlen(resolved ? resolved : path);
    to.target = allocate(length + 1);
    memcpy(to.target, resolved ? resolved : path, length);
    free(resolved);
    const char *slash = strrchr(to.target, '/');
    to.new_path = allocate(length + 64);
    sprintf(to.new_path, "%.*s.tensmith-%ld", slash ? (int)(slash - to.target) + 1 : 0, to.target,
            (long)getpid());
    to.file = fopen(to.new_path, "wb");
    if (to.file || !exists) {
      if (!to.file) die(EXIT_USAGE, "cannot write '%s': %s", path, strerror(errno));
      return to;
    }
    free(to.target); /* a file that may be written in a folder that may not */
    free(to.new_path);
    to.target = to.new_path = NULL;
  }
  to.file = fopen(path, "wb");
  if (!to.file) die(EXIT_USAGE, "cannot write '%s': %s", path, strerror(errno));
  return to;
}

static void put(sink *to, const void *data, size_t bytes) {
  if (fwrite(data, 1, bytes, to->file) != bytes) fail(to, EXIT_RUN, errno);
  to->written += bytes;
}

static void close_sink(sink *to) {
  if (to->file == stdout ? fflush(stdout) : fclose(to->file)) fail(to, EXIT_RUN, errno);
  if (!to->target) return;
  if (rename(to->new_path, to->target)) fail(to, EXIT_RUN, errno);
  free(to->target);
  free(to->new_path);
}

/* ---- NPY ------------------------------------------------------------------------------------- */

static size_t tensor_bytes(const DLTensor *tensor) {
  return (size_t)ts_tensor_bytes(tensor->dtype, tensor->ndim, tensor->shape);
}

/* The header of a .npy; returns its size. */
static size_t npy_header(char *to, const DLTensor *tensor) {
  const size_t item = ts_item_bytes(tensor->dtype);
  const char kind = tensor->dtype.bits < 8 ? 'V'
                    : tensor->dtype.code == kDLFloat ? 'f'
                    : tensor->dtype.code == kDLInt ? 'i'
                    : tensor->dtype.code == kDLBool ? 'b'
                    : tensor->dtype.code == kDLUInt ? 'u' : 'V';
  char *text = to + 10;
  int used = sprintf(text, "{'descr': '%c%c%zu', 'fortran_order': False, 'shape': (",
                     item == 1 ? '|' : '<', kind, item);
  for (int32_t d = 0; d < tensor->ndim; ++d)
    used += sprintf(text + used, "%" PRId64 "%s", tensor->shape[d],
                    d + 1 < tensor->ndim ? ", " : tensor->ndim == 1 ? "," : "");
  used += sprintf(text + used, "), }");
  while ((used + 11) % 64) text[used++] = ' ';
  text[used++] = '\n';
  const uint8_t prefix[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)used,
                              (uint8_t)(used >> 8)};
  memcpy(to, prefix, sizeof prefix);
  return (size_t)used + sizeof prefix;
}

/* ---- NPZ: a ZIP archive of stored members, with 64-bit sizes throughout ---------------------- */

typedef struct {
  uint8_t bytes[128];
  size_t used;
} record;

static void field(record *r, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) r->bytes[r->used++] = (uint8_t)(value >> 8 * i);
}

typedef struct {
  const char *name;
  uint32_t crc;
  uint64_t bytes, offset;
} member;

/* What local headers and the central directory say alike: from the version to the name's size. */
static void describe(record *r, const member *m) {
  field(r, 45, 2);          /* version that is needed */
  field(r, 1 << 11, 2);     /* names are UTF-8 */
  field(r, 0, 2);           /* stored */
  field(r, 0x00210000, 4);  /* 1980-01-01: the same arrays give the same bytes */
  field(r, m->crc, 4);
  field(r, UINT32_MAX, 4);  /* sizes: in the extra field */
  field(r, UINT32_MAX, 4);
  field(r, strlen(m->name) + 4, 2);
}

static void put_name(sink *to, const member *m) {
  put(to, m->name, strlen(m->name));
  put(to, ".npy", 4);
}

static void put_member(sink *to, member *m, const DLTensor *tensor) {
  char header[HEADER_BYTES];
  const size_t header_bytes = npy_header(header, tensor), bytes = tensor_bytes(tensor);
  m->crc = crc32_of(0, (const uint8_t *)header, header_bytes);
  m->crc = crc32_of(m->crc, tensor->data, bytes);
  m->bytes = header_bytes + bytes;
  m->offset = to->written;
  record r = {.used = 0};
  field(&r, 0x04034b50, 4);
  describe(&r, m);
  field(&r, 20, 2); /* size of the extra field */
  put(to, r.bytes, r.used);
  put_name(to, m);
  r.used = 0;
  field(&r, 1, 2);
  field(&r, 16, 2);
  field(&r, m->bytes, 8);
  field(&r, m->bytes, 8);
  put(to, r.bytes, r.used);
  put(to, header, header_bytes);
  put(to, tensor->data, bytes);
}

static void put_entry(sink *to, const member *m) {
  record r = {.used = 0};
  field(&r, 0x02014b50, 4);
  field(&r, 3 << 8 | 45, 2); /* made on Unix */
  describe(&r, m);
  field(&r, 28, 2);
  field(&r, 0, 6); /* no comment, first disk, no attributes within */
  field(&r, UINT64_C(0100600) << 16, 4); /* a file of its owner */
  field(&r, UINT32_MAX, 4);
  put(to, r.bytes, r.used);
  put_name(to, m);
  r.used = 0;
  field(&r, 1, 2);
  field(&r, 24, 2);
  field(&r, m->bytes, 8);
  field(&r, m->bytes, 8);
  field(&r, m->offset, 8);
  put(to, r.bytes, r.used);
}

static void put_npz(sink *to, const char *const *names, const DLTensor *const *tensors,
                    int32_t count) {
  member *members = allocate((size_t)count * sizeof *members);
  for (int32_t i = 0; i < count; ++i) {
    members[i].name = names[i];
    put_member(to, &members[i], tensors[i]);
  }
  const uint64_t directory = to->written;
  for (int32_t i = 0; i < count; ++i) put_entry(to, &members[i]);
  const uint64_t end = to->written;
  record r = {.used = 0};
  field(&r, 0x06064b50, 4);
  field(&r, 44, 8);
  field(&r, 45 | 45 << 16, 4);
  field(&r, 0, 8); /* disks */
  field(&r, (uint64_t)count, 8);
  field(&r, (uint64_t)count, 8);
  field(&r, end - directory, 8);
  field(&r, directory, 8);
  field(&r, 0x07064b50, 4); /* locator */
  field(&r, 0, 4);
  field(&r, end, 8);
  field(&r, 1, 4);
  field(&r, 0x06054b50, 4); /* end of the directory: see above */
  field(&r, 0, 4);
  field(&r, UINT32_MAX, 4);
  field(&r, UINT32_MAX, 4);
  field(&r, UINT32_MAX, 4);
  field(&r, 0, 2);
  put(to, r.bytes, r.used);
  free(members);
}

/* ---- Outputs --------------------------------------------------------------------------------- */

static int ends_with(const char *path, const char *suffix) {
  const size_t length = strlen(path), wanted = strlen(suffix);
  return length >= wanted && !strcmp(path + length - wanted, suffix);
}

int names_npz(const char *path) { return ends_with(path, ".npz"); }

void write_arrays(const char *path, const char *const *names, const DLTensor *const *tensors,
                  int32_t count) {
  sink to = open_sink(path);
  if (names_npz(path)) {
    put_npz(&to, names, tensors, count);
  } else {
    char header[HEADER_BYTES];
    if (to.file == stdout || ends_with(path, ".npy"))
      put(&to, header, npy_header(header, tensors[0]));
    put(&to, tensors[0]->data, tensor_bytes(tensors[0]));
  }
  close_sink(&to);
}
