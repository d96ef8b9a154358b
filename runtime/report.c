/* What a compiled program prints. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

enum { MOST_VALUES = 1000, EDGE_VALUES = 3 };

static double half_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                      : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                     : ldexp(fraction, -24);
  return bits >> 15 ? -size : size;
}

/* An element of a floating-point tensor. */
static double float_at(const DLTensor *tensor, int64_t index) {
  const char *at = (const char *)tensor->data + (size_t)index * ts_item_bytes(tensor->dtype);
  double wide;
  float single;
  uint16_t half;
  if (tensor->dtype.bits == 64) return memcpy(&wide, at, sizeof wide), wide;
  if (tensor->dtype.bits == 32) return memcpy(&single, at, sizeof single), (double)single;
  memcpy(&half, at, sizeof half);
  if (tensor->dtype.code == kDLFloat) return half_value(half);
  const uint32_t pattern = (uint32_t)half << 16;
  memcpy(&single, &pattern, sizeof single);
  return single;
}

/* An element of an integer or boolean tensor; u64 wraps. */
static int64_t int_at(const DLTensor *tensor, int64_t index) {
  const size_t bytes = ts_item_bytes(tensor->dtype);
  uint64_t bits = 0;
  memcpy(&bits, (const char *)tensor->data + (size_t)index * bytes, bytes);
  if (tensor->dtype.code != kDLInt || bytes == 8) return (int64_t)bits;
  const int unused = 64 - 8 * (int)bytes;
  return (int64_t)(bits << unused) >> unused;
}

static int is_float(const DLTensor *tensor) {
  return tensor->dtype.code == kDLFloat || tensor->dtype.code == kDLBfloat;
}

static void print_value(const DLTensor *tensor, int64_t index, int json) {
  if (is_float(tensor)) {
    const double value = float_at(tensor, index);
    if (json && !isfinite(value)) printf("null");
    else printf("%.*g", tensor->dtype.bits == 64 ? 17 : 9, value);
  } else if (tensor->dtype.code == kDLBool) {
    printf("%s", int_at(tensor, index) ? "true" : "false");
  } else if (tensor->dtype.code == kDLUInt) {
    printf("%" PRIu64, (uint64_t)int_at(tensor, index));
  } else {
    printf("%" PRId64, int_at(tensor, index));
  }
}

static int64_t element_count(const DLTensor *tensor) {
  return ts_tensor_bytes(tensor->dtype, tensor->ndim, tensor->shape) /
         (int64_t)ts_item_bytes(tensor->dtype);
}

void print_json_string(const char *text) {
  putchar('"');
  for (; *text; ++text) {
    if (*text == '"' || *text == '\\') printf("\\%c", *text);
    else if ((unsigned char)*text < 32) printf("\\u%04x", *text);
    else putchar(*text);
  }
  putchar('"');
}

static void print_output(const ts_tensor_info *info, const DLTensor *tensor) {
  char shape[512];
  const int64_t count = element_count(tensor);
  ts_shape_text(shape, sizeof shape, tensor->ndim, tensor->shape, NULL);
  printf("%s: %s%s\n ", info->name, ts_dtype_name(tensor->dtype), shape);
  for (int64_t i = 0; i < count; ++i) {
    if (count > MOST_VALUES && i == EDGE_VALUES) {
      printf(" ...");
      i = count - EDGE_VALUES;
    }
    putchar(' ');
    print_value(tensor, i, 0);
  }
  putchar('\n');
}

static void print_output_json(const ts_tensor_info *info, const DLTensor *tensor, int values) {
  printf("{\"name\": ");
  print_json_string(info->name);
  printf(", \"dtype\": \"%s\", \"shape\": ", ts_dtype_name(tensor->dtype));
  char shape[512];
  ts_shape_text(shape, sizeof shape, tensor->ndim, tensor->shape, NULL);
  printf("%s", shape);
  const int64_t count = element_count(tensor);
  if (values && count <= MOST_VALUES) {
    printf(", \"values\": [");
    for (int64_t i = 0; i < count; ++i) {
      if (i) printf(", ");
      print_value(tensor, i, 1);
    }
    putchar(']');
  }
  putchar('}');
}

/* ---- --info ---------------------------------------------------------------------------------- */

/* optional: of which model these are the inputs, NULL for outputs. */
static void print_interface(const char *role, const ts_tensor_info *infos, int32_t count, int json,
                            const ts_model *optional) {
  if (json) printf(", \"%ss\": [", role);
  for (int32_t i = 0; i < count; ++i) {
    const ts_tensor_info *info = &infos[i];
    if (!json) {
      char shape[512];
      ts_shape_text(shape, sizeof shape, info->ndim, info->dims, info->dim_names);
      printf("%s %s: %s%s%s\n", role, info->name, ts_dtype_name(info->dtype), shape,
             optional && ts_input_is_optional(optional, i) ? " (has a default)" : "");
      continue;
    }
    printf("%s{\"name\": ", i ? ", " : "");
    print_json_string(info->name);
    printf(", \"dtype\": \"%s\", \"dims\": [", ts_dtype_name(info->dtype));
    for (int32_t d = 0; d < info->ndim; ++d) {
      if (d) printf(", ");
      if (info->dims[d] >= 0) printf("%" PRId64, info->dims[d]);
      else print_json_string(info->dim_names[d]);
    }
    printf("]}");
  }
  if (json) putchar(']');
}

void print_info(const ts_model *model, int json) {
  if (json) {
    printf("{\"name\": ");
    print_json_string(model->name);
  } else {
    printf("model %s\n", model->name);
  }
  print_interface("input", model->inputs, model->input_count, json, model);
  print_interface("output", model->outputs, model->output_count, json, NULL);
  if (json) {
    printf(", \"weights_bytes\": %" PRIu64 ", \"manifest\": %s}\n", model->weights_bytes,
           model->manifest);
    return;
  }
  printf("weights %" PRIu64 " bytes%s\ncpu features", model->weights_bytes,
         model->weights_file ? (model->weights_file[0] ? " in a side file" : " behind the binary") : "");
  for (int32_t i = 0; i < model->feature_count; ++i) printf(" %s", model->features[i]);
  printf("%s\n", model->feature_count ? "" : " none");
}

void print_cache_json(ts_cache *cache) {
  ts_cache_counters found = {sizeof found};
  printf(", \"cache\": ");
  if (!cache || ts_cache_read(cache, &found)) {
    printf("null");
    return;
  }
  printf("{\"hits\": %" PRId64 ", \"misses\": %" PRId64 ", \"entries\": %" PRId64 ", \"bytes\": %" PRId64
         ", \"evicted\": %" PRId64 "}",
         found.hits, found.misses, found.entries, found.bytes, found.evicted);
}

/* ---- Results --------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

void sort_times(int64_t *nanoseconds, int64_t count) {
  qsort(nanoseconds, (size_t)count, sizeof *nanoseconds, by_size);
}

double percentile(const int64_t *sorted, int64_t count, double p) {
  const double at = p / 100 * (double)(count - 1);
  const int64_t below = (int64_t)at, above = below + 1 < count ? below + 1 : below;
  const double share = at - (double)below;
  return ((double)sorted[below] * (1 - share) + (double)sorted[above] * share) * 1e-9;
}

static void print_timing(const measurement *measured, int32_t threads, int json) {
  const int64_t *sorted = measured->nanoseconds, runs = measured->runs;
  double total = 0;
  for (int64_t i = 0; i < runs; ++i) total += (double)sorted[i] * 1e-9;
  const double median = percentile(sorted, runs, 50), p90 = percentile(sorted, runs, 90),
               p99 = percentile(sorted, runs, 99);
  const double per_second = total > 0 ? (double)measured->samples / total : 0;
  if (json) {
    printf("\"threads\": %d, \"runs\": %" PRId64 ", \"samples\": %" PRId64
           ", \"seconds\": {\"median\": %.9g, \"p90\": %.9g, \"p99\": %.9g, \"mean\": %.9g, "
           "\"min\": %.9g, \"max\": %.9g}, \"throughput\": %.9g",
           threads, runs, measured->samples, median, p90, p99, total / (double)runs,
           (double)sorted[0] * 1e-9, (double)sorted[runs - 1] * 1e-9, per_second);
    return;
  }
  printf("runs %" PRId64 ", threads %d: median %.6g ms, p90 %.6g ms, p99 %.6g ms, %.6g /s\n", runs,
         threads, median * 1e3, p90 * 1e3, p99 * 1e3, per_second);
}

void print_report(const ts_model *model, const options *chosen, int32_t threads,
                  measurement *measured, const DLTensor *outputs) {
  const int values =
      !chosen->quiet && !chosen->timed && !chosen->output_count && !chosen->labels;
  sort_times(measured->nanoseconds, measured->runs);
  if (chosen->json) {
    printf("{\"model\": ");
    print_json_string(model->name);
    printf(", ");
    print_timing(measured, threads, 1);
    if (measured->accuracy >= 0) printf(", \"accuracy\": %.9g", measured->accuracy);
    printf(", \"outputs\": [");
    for (int32_t i = 0; i < model->output_count; ++i) {
      if (i) printf(", ");
      print_output_json(&model->outputs[i], &outputs[i], values);
    }
    printf("]}\n");
    return;
  }
  for (int32_t i = 0; values && i < model->output_count; ++i)
    print_output(&model->outputs[i], &outputs[i]);
  if (measured->accuracy >= 0)
    printf("accuracy %.4f (%" PRId64 " samples)\n", measured->accuracy, measured->samples);
  if (chosen->timed || chosen->labels || chosen->batch) print_timing(measured, threads, 0);
}

double top1_accuracy(const DLTensor *scores, const DLTensor *labels) {
  const int64_t count = element_count(labels);
  const int64_t classes = count ? element_count(scores) / count : 0;
  if (!count || !classes || classes * count != element_count(scores) || is_float(labels))
    die(EXIT_USAGE, "--labels: expected one integer for each row of the first output");
  int64_t right = 0;
  for (int64_t row = 0; row < count; ++row) {
    int64_t best = row * classes;
    for (int64_t i = best + 1; i < (row + 1) * classes; ++i)
      if (is_float(scores) ? float_at(scores, i) > float_at(scores, best)
                           : int_at(scores, i) > int_at(scores, best))
        best = i;
    right += best - row * classes == int_at(labels, row);
  }
  return (double)right / (double)count;
}
