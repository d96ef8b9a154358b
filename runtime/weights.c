/* Where the weights are: linked in, or in a file that is mapped read-only: a side file, or the
 * binary itself (weights_file is empty), behind what was linked.
 *
 * Such a file ends with the data, which begins on a page, then (little-endian) "TSWEIGHT", the
 * data's size as u64, its SHA-256.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

enum { PATH_BYTES = 4096, FIRST_PAGE = 4096 };

typedef struct {
  char magic[8];
  uint64_t bytes;
  uint8_t tag[WEIGHTS_TAG_BYTES];
} ts_trailer;

/* Path of the shared library or program that holds the model. */
static int binary_path(const ts_model *model, char *path, size_t size) {
  const ssize_t length = readlink("/proc/self/exe", path, size - 1);
  path[length > 0 ? length : 0] = '\0';
#if !defined(TS_STATIC)
  /* The program itself is left out: it is listed by its argv[0], whatever that is relative to. */
  Dl_info info;
  const uintptr_t headers = getauxval(AT_PHDR);
  if (dladdr(model, &info) && info.dli_fname &&
      headers - (uintptr_t)info.dli_fbase >= (uintptr_t)FIRST_PAGE)
    return snprintf(path, size, "%s", info.dli_fname) < (int)size;
#endif
  (void)model;
  return length > 0;
}

static ts_status map_file(ts_instance *instance, const char *path) {
  const ts_model *model = instance->model;
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0)
    return ts_error(instance, TS_ERROR_WEIGHTS, "weights file '%s': %s", path, strerror(errno));
  ts_trailer trailer;
  struct stat status;
  const off_t bytes = (off_t)model->weights_bytes;
  off_t start = -1;
  ts_status result = TS_OK;
  if (!fstat(file, &status)) start = status.st_size - bytes - (off_t)sizeof trailer;
  if (start < 0 || start % (off_t)sysconf(_SC_PAGESIZE) ||
      pread(file, &trailer, sizeof trailer, start + bytes) != (ssize_t)sizeof trailer ||
      memcmp(trailer.magic, "TSWEIGHT", sizeof trailer.magic) ||
      trailer.bytes != model->weights_bytes ||
      memcmp(trailer.tag, model->weights_tag, sizeof trailer.tag)) {
    result = ts_error(instance, TS_ERROR_WEIGHTS,
                      "weights file '%s' is truncated or belongs to another build of model '%s'",
                      path, model->name);
  } else {
    void *mapping = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, file, start);
    if (mapping == MAP_FAILED) {
      result = ts_error(instance, TS_ERROR_WEIGHTS, "weights file '%s': %s", path, strerror(errno));
    } else {
      instance->mapping = mapping;
      instance->mapping_bytes = (size_t)bytes;
      instance->weights = mapping;
    }
  }
  close(file);
  return result;
}

static int is_folder(const char *path) {
  struct stat status;
  return !stat(path, &status) && S_ISDIR(status.st_mode);
}

ts_status ts_weights_open(ts_instance *instance, const char *path) {
  const ts_model *model = instance->model;
  instance->weights = model->weights;
  if (!model->weights_file) return TS_OK;
  char found[PATH_BYTES];
  const char *name = model->weights_file;
  int length;
  if (!name[0]) {
    if (binary_path(model, found, sizeof found)) return map_file(instance, found);
    return ts_error(instance, TS_ERROR_WEIGHTS, "cannot tell where the binary with the weights is");
  }
  if (path && !is_folder(path)) return map_file(instance, path);
  if (path) {
    length = snprintf(found, sizeof found, "%s/%s", path, name);
  } else {
    char binary[PATH_BYTES];
    if (!binary_path(model, binary, sizeof binary))
      return ts_error(instance, TS_ERROR_WEIGHTS,
                      "cannot tell where weights file '%s' is; give ts_options.weights_path", name);
    /* Under the binary's present name, or under the name it was linked with. */
    length = snprintf(found, sizeof found, "%s.weights", binary);
    if (length < PATH_BYTES && access(found, R_OK)) {
      const char *slash = strrchr(binary, '/');
      const int folder = slash ? (int)(slash - binary) + 1 : 0;
      length = snprintf(found, sizeof found, "%.*s%s", folder, binary, name);
    }
  }
  if (length >= PATH_BYTES)
    return ts_error(instance, TS_ERROR_WEIGHTS, "the path of weights file '%s' is too long", name);
  return map_file(instance, found);
}

void ts_weights_close(ts_instance *instance) {
  if (instance->mapping) munmap(instance->mapping, instance->mapping_bytes);
}
