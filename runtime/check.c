/* What a caller hands to ts_run, checked before the model sees it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

enum { SHAPE_TEXT = 256, MAX_NDIM = 64 };
static int same_dtype(DLDataType given, DLDataType expected) {
  if (given.lanes != 1 || given.bits != expected.bits) return 0;
  if (given.code == expected.code) return 1;
  /* DLPack producers from before kDLBool describe booleans as 8-bit unsigned integers. */
  return expected.code == kDLBool && given.code == kDLUInt;
}

static int is_word(const char *name) {
  for (const char *c = name; *c; ++c) {
    const int letter = *c == '_' || ((*c | 32) >= 'a' && (*c | 32) <= 'z');
    if (!letter && (c == name || !(*c == '.' || (*c >= '0' && *c <= '9')))) return 0;
  }
  return *name != 0;
}

/* What --shape takes to compile a model of which one dimension of an input may have any size. */
static const char *loosened(char *text, const ts_tensor_info *info, int32_t axis) {
  int used = snprintf(text, SHAPE_TEXT, "; compile with --shape '%s:[", info->name);
  for (int32_t d = 0; d < info->ndim && used < SHAPE_TEXT; ++d) {
    const char *comma = d ? "," : "", *name = info->dim_names[d];
    const size_t room = (size_t)(SHAPE_TEXT - used);
    if (d == axis || (name && !is_word(name))) used += snprintf(text + used, room, "%s?", comma);
    else if (name) used += snprintf(text + used, room, "%s%s", comma, name);
    else used += snprintf(text + used, room, "%s%" PRId64, comma, info->dims[d]);
  }
  if (used < SHAPE_TEXT)
    used += snprintf(text + used, (size_t)(SHAPE_TEXT - used), "]' where any size is to be taken");
  return used < SHAPE_TEXT ? text : "; compile with ? for it in --shape";
}

static int is_on_host(const DLTensor *tensor) {
  return tensor->device.device_type == kDLCPU || tensor->device.device_type == kDLCUDAHost;
}

/* Type, device, rank and fixed dimensions of one input or output. */
static ts_status check_tensor(ts_instance *instance, ts_status status, const char *role,
                              const ts_tensor_info *info, const DLTensor *tensor) {
  const int on_gpu = tensor->device.device_type == kDLCUDA && instance->model->device;
  if (!is_on_host(tensor) && !on_gpu)
    return ts_error(instance, status, "%s '%s': expected a CPU tensor%s, got DLPack device type %d",
                    role, info->name, instance->model->device ? " or one of the GPU" : "",
                    (int)tensor->device.device_type);
  if (!same_dtype(tensor->dtype, info->dtype))
    return ts_error(instance, status,
                    "%s '%s': expected element type %s, got %s (code %d, %d bits)", role,
                    info->name, ts_dtype_name(info->dtype), ts_dtype_name(tensor->dtype),
                    tensor->dtype.code, tensor->dtype.bits);
  if (tensor->ndim != info->ndim || (info->ndim && !tensor->shape)) {
    char expected[SHAPE_TEXT], given[SHAPE_TEXT] = "no shape";
    ts_shape_text(expected, sizeof expected, info->ndim, info->dims, info->dim_names);
    if (tensor->ndim >= 0 && tensor->ndim <= MAX_NDIM && (tensor->shape || !tensor->ndim))
      ts_shape_text(given, sizeof given, tensor->ndim, tensor->shape, NULL);
    return ts_error(instance, status, "%s '%s': expected %d dimensions %s, got %d %s", role,
                    info->name, info->ndim, expected, tensor->ndim, given);
  }
  for (int32_t d = 0; d < info->ndim; ++d) {
    if (info->dims[d] < 0 ? tensor->shape[d] >= 0 : tensor->shape[d] == info->dims[d]) continue;
    char given[SHAPE_TEXT], argument[SHAPE_TEXT];
    ts_shape_text(given, sizeof given, tensor->ndim, tensor->shape, NULL);
    if (info->dims[d] < 0)
      return ts_error(instance, status, "%s '%s': dimension %d is negative: %s", role,
                      info->name, d, given);
    return ts_error(instance, status,
                    "%s '%s': dimension %d: expected %" PRId64 ", got %" PRId64 " (shape %s)%s",
                    role, info->name, d, info->dims[d], tensor->shape[d], given,
                    status == TS_ERROR_INPUT ? loosened(argument, info, d) : "");
  }
  if (ts_tensor_bytes(tensor->dtype, tensor->ndim, tensor->shape) < 0)
    return ts_error(instance, status, "%s '%s': its size overflows", role, info->name);
  return TS_OK;
}

/* The first input dimension that a symbol names, for messages. */
static void find_binding(const ts_model *model, int32_t symbol, int32_t *input, int32_t *axis) {
  for (*input = 0; *input < model->input_count; ++*input)
    for (*axis = 0; *axis < model->inputs[*input].ndim; ++*axis)
      if (model->input_symbols[*input][*axis] == symbol) return;
}

static ts_status bind_symbols(ts_instance *instance, int32_t index, const DLTensor *tensor) {
  const ts_model *model = instance->model;
  const ts_tensor_info *info = &model->inputs[index];
  for (int32_t d = 0; d < info->ndim; ++d) {
    const int32_t symbol = model->input_symbols[index][d];
    if (symbol < 0) continue;
    const ts_bounds *bounds = &model->symbol_bounds[symbol];
    if (tensor->shape[d] < bounds->least || tensor->shape[d] > bounds->most)
      return ts_error(instance, TS_ERROR_INPUT,
                      "input '%s': dimension %d (%s): expected %" PRId64 " to %" PRId64
                      ", got %" PRId64,
                      info->name, d, info->dim_names[d], bounds->least, bounds->most,
                      tensor->shape[d]);
    if (instance->symbols[symbol] < 0) instance->symbols[symbol] = tensor->shape[d];
    if (instance->symbols[symbol] == tensor->shape[d]) continue;
    int32_t input, axis;
    find_binding(model, symbol, &input, &axis);
    char argument[SHAPE_TEXT];
    return ts_error(instance, TS_ERROR_INPUT,
                    "input '%s': dimension %d (%s): expected %" PRId64
                    " as in dimension %d of input '%s', got %" PRId64 "%s",
                    info->name, d, info->dim_names[d], instance->symbols[symbol], axis,
                    model->inputs[input].name, tensor->shape[d],
                    loosened(argument, info, d));
  }
  return TS_OK;
}

/* Contiguous and aligned to the element size, copied if it is not. */
static ts_status input_data(ts_instance *instance, int32_t index, const DLTensor *tensor) {
  const int64_t bytes = ts_tensor_bytes(tensor->dtype, tensor->ndim, tensor->shape);
  const char *data = (const char *)tensor->data;
  if (!data && bytes)
    return ts_error(instance, TS_ERROR_INPUT, "input '%s': data is NULL",
                    instance->model->inputs[index].name);
  if (data) data += tensor->byte_offset;
  instance->input_data[index] = data;
  const int aligned = (uintptr_t)data % ts_item_bytes(tensor->dtype) == 0;
  if (!bytes || (aligned && ts_is_compact(tensor))) return TS_OK;
  ts_block *copy = &instance->inputs[index].copy;
  if (ts_block_reserve(copy, (size_t)bytes))
    return ts_error(instance, TS_ERROR_MEMORY,
                    "input '%s': no memory for a contiguous copy of %" PRId64 " bytes",
                    instance->model->inputs[index].name, bytes);
  ts_copy_compact(copy->data, tensor);
  instance->input_data[index] = copy->data;
  return TS_OK;
}

static int is_left_out(const DLTensor *tensor) {
  return !tensor->data && !tensor->dtype.lanes && !tensor->ndim;
}

static DLTensor default_of(const ts_instance *instance, int32_t index) {
  const ts_tensor_info *info = &instance->model->inputs[index];
  const ts_default *value = &instance->model->input_defaults[index];
  return (DLTensor){.data = (void *)(instance->weights + value->offset),
                    .device = {kDLCPU, 0},
                    .ndim = info->ndim,
                    .dtype = info->dtype,
                    .shape = (int64_t *)value->shape};
}

ts_status ts_bind_inputs(ts_instance *instance, const DLTensor *inputs, int32_t count) {
  const ts_model *model = instance->model;
  for (int32_t s = 0; s < model->symbol_count; ++s) instance->symbols[s] = -1;
  for (int32_t i = 0; i < model->input_count; ++i) {
    const int is_default =
        (i >= count || is_left_out(&inputs[i])) && ts_input_is_optional(model, i);
    const DLTensor tensor = is_default ? default_of(instance, i) : inputs[i];
    ts_status status = check_tensor(instance, TS_ERROR_INPUT, "input", &model->inputs[i], &tensor);
    if (!status) status = bind_symbols(instance, i, &tensor);
    if (!status && model->device) status = model->device->bind_input(instance, i, &tensor);
    if (!status && is_on_host(&tensor)) status = input_data(instance, i, &tensor);
    if (status) return status;
  }
  return TS_OK;
}

ts_status ts_bind_outputs(ts_instance *instance, DLTensor *outputs) {
  const ts_model *model = instance->model;
  for (int32_t i = 0; i < model->output_count; ++i) {
    const ts_tensor_info *info = &model->outputs[i];
    DLTensor *tensor = &outputs[i];
    instance->outputs[i].tensor = tensor;
    instance->outputs[i].done = 0;
    /* A descriptor that the last run filled in. */
    if (tensor->data == instance->outputs[i].copy.data) tensor->data = NULL;
    if (!tensor->data) continue;
    ts_status status = check_tensor(instance, TS_ERROR_OUTPUT, "output", info, tensor);
    if (status) return status;
    if (!ts_is_compact(tensor))
      return ts_error(instance, TS_ERROR_OUTPUT,
                      "output '%s': the buffer must be row-major and compact", info->name);
    if (((uintptr_t)tensor->data + tensor->byte_offset) % ts_item_bytes(info->dtype))
      return ts_error(instance, TS_ERROR_OUTPUT,
                      "output '%s': the buffer must be aligned to its element size", info->name);
    if (model->device) status = model->device->bind_output(instance, i, tensor);
    if (status) return status;
  }
  return TS_OK;
}
