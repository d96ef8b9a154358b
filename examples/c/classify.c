/* Classifies raw float images from standard input with a compiled model, linked into the program.
 *
 *   tensmith compile digits.onnx --emit lib -o libdigits.a
 *   cc -O2 classify.c libdigits.a -lm -lpthread -ldl -o classify
 *   ./classify < images.f32
 *
 * The model takes one float tensor; sizes that are not fixed (the batch) are taken as 1.
 */
#include <stdio.h>
#include <stdlib.h>

#include "digits.h"

static int fail(const ts_instance *instance) {
  fprintf(stderr, "error: %s\n", ts_last_error(instance));
  return 1;
}

static int64_t largest(const float *scores, int64_t count) {
  int64_t best = 0;
  for (int64_t i = 1; i < count; ++i)
    if (scores[i] > scores[best]) best = i;
  return best;
}

int main(void) {
  const ts_model *model = ts_model_digits();
  const ts_tensor_info *info = ts_input_info(model, 0);
  ts_instance *instance;
  if (ts_create(model, NULL, &instance) != TS_OK) return fail(instance);

  int64_t *shape = malloc((size_t)(info->ndim + 1) * sizeof *shape);
  size_t count = 1;
  for (int32_t d = 0; d < info->ndim; ++d) {
    shape[d] = info->dims[d] < 0 ? 1 : info->dims[d];
    count *= (size_t)shape[d];
  }
  float *image = malloc(count * sizeof *image);
  if (!image) return 1;

  DLTensor input = {0};
  input.data = image;
  input.device.device_type = kDLCPU;
  input.ndim = info->ndim;
  input.dtype = info->dtype;
  input.shape = shape;

  while (fread(image, sizeof *image, count, stdin) == count) {
    DLTensor output = {0}; /* data is NULL: the instance owns the result until its next run */
    if (ts_run(instance, &input, 1, &output, 1) != TS_OK) return fail(instance);
    int64_t classes = 1;
    for (int32_t d = 0; d < output.ndim; ++d) classes *= output.shape[d];
    const float *scores = output.data;
    const int64_t best = largest(scores, classes);
    printf("%lld %.4f\n", (long long)best, scores[best]);
  }
  free(image);
  free(shape);
  ts_destroy(instance);
  return 0;
}
