/* Files that hold many samples along their first axis, cut into runs. */
#include <inttypes.h>
#include <string.h>

#include "program.h"

static cut cut_input(const ts_model *model, const array *inputs, int64_t batch, int32_t index) {
  const ts_tensor_info *info = &model->inputs[index];
  const DLTensor *tensor = &inputs[index].tensor;
  if (tensor->ndim == info->ndim + 1) return (cut){1, tensor->shape[0], 1};
  if (tensor->ndim != info->ndim || !info->ndim) return (cut){0, 1, 0};
  if (info->dims[0] < 0) return (cut){batch, tensor->shape[0], 0};
  if (info->dims[0] == tensor->shape[0]) return (cut){0, 1, 0};
  if (info->dims[0] == 0 || tensor->shape[0] % info->dims[0])
    die(EXIT_USAGE, "input '%s': %" PRId64 " samples are not a multiple of the model's %" PRId64,
        info->name, tensor->shape[0], info->dims[0]);
  return (cut){info->dims[0], tensor->shape[0], 0};
}

int64_t runs_of(cut c) { return c.step ? (c.count + c.step - 1) / c.step : 1; }

int64_t plan_cuts(const ts_model *model, const array *inputs, int64_t batch, cut *cuts) {
  int64_t runs = 1;
  const char *first = "";
  for (int32_t i = 0; i < model->input_count; ++i) {
    cuts[i] = cut_input(model, inputs, batch, i);
    const int64_t own = runs_of(cuts[i]);
    if (own == 0) die(EXIT_USAGE, "input '%s' holds no samples", model->inputs[i].name);
    if (own != 1 && runs != 1 && own != runs)
      die(EXIT_USAGE, "input '%s' holds %" PRId64 " runs, input '%s' %" PRId64,
          model->inputs[i].name, own, first, runs);
    if (own == 1) continue;
    runs = own;
    first = model->inputs[i].name;
  }
  return runs;
}

DLTensor slice_of(const DLTensor *whole, cut c, int64_t run, int64_t *shape) {
  DLTensor part = *whole;
  if (!c.step) return part;
  const int64_t begin = run * c.step;
  const int64_t size = c.count - begin < c.step ? c.count - begin : c.step;
  int64_t stride = 1;
  for (int32_t d = 1; d < whole->ndim; ++d) stride *= whole->shape[d];
  if (whole->strides) stride = whole->strides[0];
  part.byte_offset = (uint64_t)(begin * stride) * ts_item_bytes(whole->dtype);
  memcpy(shape, whole->shape, (size_t)whole->ndim * sizeof *shape);
  shape[0] = size;
  part.shape = shape + c.drop;
  part.ndim -= c.drop;
  if (part.strides) part.strides += c.drop;
  return part;
}
