/* Where the weights are: in the binary, or in a side file that is mapped read-only.
 *
 * Side file: the data, then (little-endian) "TSWEIGHT", the data's size as u64, its SHA-256.
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
  ts_status result = TS_OK;
  if (fstat(file, &status) || status.st_size != bytes + (off_t)sizeof trailer ||
      pread(file, &trailer, sizeof trailer, bytes) != (ssize_t)sizeof trailer ||
      memcmp(trailer.magic, "TSWEIGHT", sizeof trailer.magic) ||
      trailer.bytes != model->weights_bytes ||
      memcmp(trailer.tag, model->weights_tag, sizeof trailer.tag)) {
    result = ts_error(instance, TS_ERROR_WEIGHTS,
                      "weights file '%s' is truncated or belongs to another build of model '%s'",
                      path, model->name);
  } else {
    void *mapping = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, file, 0);
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

ts_status ts_weights_open(ts_instance *instance, const char *path) {
  const ts_model *model = instance->model;
  instance->weights = model->weights;
  if (!model->weights_file) return TS_OK;
  if (path) return map_file(instance, path);
  char found[PATH_BYTES];
  if (!binary_path(model, found, sizeof found))
    return ts_error(instance, TS_ERROR_WEIGHTS,
                    "cannot tell where weights file '%s' is; give ts_options.weights_path",
                    model->weights_file);
  /* Beside the binary: under the binary's present name, or under the name it was linked with. */
  const size_t length = strlen(found);
  if (length + sizeof ".weights" <= sizeof found) {
    strcpy(found + length, ".weights");
    if (!access(found, R_OK)) return map_file(instance, found);
    found[length] = '\0';
  }
  const char *slash = strrchr(found, '/');
  const size_t folder = slash ? (size_t)(slash - found) + 1 : 0;
  if (folder + strlen(model->weights_file) >= sizeof found)
    return ts_error(instance, TS_ERROR_WEIGHTS, "the path of the weights file is too long");
  strcpy(found + folder, model->weights_file);
  return map_file(instance, found);
}

void ts_weights_close(ts_instance *instance) {
  if (instance->mapping) munmap(instance->mapping, instance->mapping_bytes);
}
