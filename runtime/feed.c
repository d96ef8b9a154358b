/* The inputs of a job: from files, or random. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "program.h"

/* "path:array" -> path and array; the whole text is the path if such a file exists. */
static char *split_member(const char *text, const char **member) {
  char *path = allocate(strlen(text) + 1);
  strcpy(path, text);
  char *colon = strrchr(path, ':');
  if (!colon || !access(path, F_OK)) return path;
  *colon = '\0';
  *member = text + (colon - path) + 1;
  return path;
}

static void parse_shape_option(const char *text, const ts_tensor_info *info, int64_t *dims) {
  const char *at = text;
  if (*at == '[') ++at;
  int32_t d = 0;
  for (; d < info->ndim; ++d) {
    char *end;
    const long long size = strtoll(at, &end, 10);
    if (end == at || size < 0) break;
    dims[d] = size;
    at = end;
    if (*at == 'x' || *at == ',') ++at;
    while (*at == ' ') ++at;
  }
  if (*at == ']') ++at;
  if (d != info->ndim || *at)
    die(EXIT_USAGE, "--shape %s:%s: expected %d sizes such as 1x3x224x224", info->name, text,
        info->ndim);
}

/* Sizes of one input as far as they are known without a file; -1 for the others. */
static void known_dims(int64_t *dims, const ts_model *model, int32_t index,
                       const options *chosen) {
  const ts_tensor_info *info = &model->inputs[index];
  if (info->ndim) memcpy(dims, info->dims, (size_t)info->ndim * sizeof *dims);
  for (int32_t i = 0; i < chosen->shape_count; ++i)
    if (chosen->shapes[i].name == info->name)
      parse_shape_option(chosen->shapes[i].value, info, dims);
}

static void load_one(array *out, const ts_model *model, int32_t index, const options *chosen,
                     const char *path, const char *member) {
  int64_t dims[MAX_DIMS];
  const ts_tensor_info *info = &model->inputs[index];
  known_dims(dims, model, index, chosen);
  read_array(out, path, member ? member : info->name, info, dims);
}

static void load_files(array *inputs, const ts_model *model, const options *chosen) {
  for (int32_t i = 0; i < chosen->input_count; ++i) {
    const binding *given = &chosen->inputs[i];
    const char *member = NULL;
    char *path = split_member(given->value, &member);
    if (given->name) {
      const int32_t index =
          find_tensor(model->inputs, model->input_count, given->name, strlen(given->name));
      load_one(&inputs[index], model, index, chosen, path, member);
    } else if (model->input_count == 1) {
      load_one(&inputs[0], model, 0, chosen, path, member);
    } else if (is_npz(path)) {
      for (int32_t k = 0; k < model->input_count; ++k)
        if (npz_has(path, model->inputs[k].name))
          load_one(&inputs[k], model, k, chosen, path, NULL);
    } else {
      die(EXIT_USAGE, "--input %s: say which input: --input NAME=%s", given->value, given->value);
    }
    free(path);
  }
}

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(uint64_t *state) {
  uint64_t value = *state += 0x9e3779b97f4a7c15u;
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
  value = (value ^ value >> 27) * 0x94d049bb133111ebu;
  return value ^ value >> 31;
}

static void fill_random(array *out, int64_t count, uint64_t *state) {
  const DLDataType dtype = out->tensor.dtype;
  char *data = out->memory;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t random = next_random(state);
    const float single = (float)(random >> 40) * 0x1p-24f;
    const double wide = (double)(random >> 11) * 0x1p-53;
    const _Float16 half = (_Float16)((float)(random >> 53) * 0x1p-11f);
    const uint64_t integer = random >> 63;
    uint32_t pattern;
    memcpy(&pattern, &single, sizeof pattern);
    const uint16_t brain = (uint16_t)(pattern >> 16);
    const void *value = dtype.code == kDLBfloat ? (const void *)&brain
                        : dtype.code != kDLFloat ? (const void *)&integer
                        : dtype.bits == 64 ? (const void *)&wide
                        : dtype.bits == 32 ? (const void *)&single : (const void *)&half;
    const size_t bytes = ts_item_bytes(dtype);
    memcpy(data, value, bytes);
    data += bytes;
  }
}

/* A size of a random input: fixed, of --shape, of a symbol that another input binds, or 1. */
static int64_t random_dim(const array *inputs, const ts_model *model, int32_t index, int32_t axis,
                          int64_t known) {
  if (known >= 0) return known;
  for (int32_t i = 0; i < model->input_count; ++i)
    for (int32_t d = 0; d < model->inputs[i].ndim && d < inputs[i].tensor.ndim; ++d)
      if (model->input_symbols[i][d] == model->input_symbols[index][axis])
        return inputs[i].shape[d];
  return 1;
}

static void make_random(array *out, const array *inputs, const ts_model *model, int32_t index,
                        const options *chosen, uint64_t *state) {
  int64_t dims[MAX_DIMS];
  const ts_tensor_info *info = &model->inputs[index];
  known_dims(dims, model, index, chosen);
  for (int32_t d = 0; d < info->ndim; ++d)
    dims[d] = random_dim(inputs, model, index, d, dims[d]);
  memcpy(out->shape, dims, (size_t)info->ndim * sizeof *dims);
  out->tensor = (DLTensor){
      .device = {kDLCPU, 0}, .ndim = info->ndim, .dtype = info->dtype, .shape = out->shape};
  const int64_t bytes = ts_tensor_bytes(info->dtype, info->ndim, dims);
  if (bytes < 0) die(EXIT_USAGE, "--shape %s: the size overflows", info->name);
  out->memory = out->tensor.data = allocate((size_t)bytes + 1);
  fill_random(out, bytes / (int64_t)ts_item_bytes(info->dtype), state);
}

void load_inputs(array *inputs, const ts_model *model, const options *chosen) {
  load_files(inputs, model, chosen);
  uint64_t state = chosen->seed;
  for (int32_t i = 0; i < model->input_count; ++i) {
    if (inputs[i].memory || ts_input_is_optional(model, i)) continue;
    if (!chosen->random)
      die(EXIT_USAGE, "input '%s' is missing: --input %s=FILE, or --random SEED",
          model->inputs[i].name, model->inputs[i].name);
    make_random(&inputs[i], inputs, model, i, chosen, &state);
  }
}
