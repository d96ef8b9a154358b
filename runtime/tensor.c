/* Sizes, strides, copies and texts of DLPack tensors. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

size_t ts_item_bytes(DLDataType dtype) { return ((size_t)dtype.bits * dtype.lanes + 7) / 8; }

int64_t ts_tensor_bytes(DLDataType dtype, int32_t ndim, const int64_t *shape) {
  int64_t bytes = (int64_t)ts_item_bytes(dtype);
  int empty = 0;
  for (int32_t d = 0; d < ndim; ++d) {
    if (shape[d] < 0) return -1;
    if (shape[d] == 0) empty = 1;
    else if (__builtin_mul_overflow(bytes, shape[d], &bytes)) return -1;
  }
  return empty ? 0 : bytes;
}

int ts_is_compact(const DLTensor *tensor) {
  if (!tensor->strides) return 1;
  int64_t expected = 1;
  for (int32_t d = tensor->ndim - 1; d >= 0; --d) {
    if (tensor->shape[d] == 0) return 1;
    if (tensor->shape[d] != 1 && tensor->strides[d] != expected) return 0;
    expected *= tensor->shape[d];
  }
  return 1;
}

static void copy_row(char *to, const char *from, int64_t count, int64_t step, size_t item) {
  if (step == (int64_t)item) {
    memcpy(to, from, (size_t)count * item);
    return;
  }
  for (int64_t i = 0; i < count; ++i) memcpy(to + (size_t)i * item, from + i * step, item);
}

static char *copy_axis(char *to, const char *from, const DLTensor *tensor, int32_t axis) {
  const size_t item = ts_item_bytes(tensor->dtype);
  if (axis == tensor->ndim) {
    memcpy(to, from, item);
    return to + item;
  }
  const int64_t count = tensor->shape[axis], step = tensor->strides[axis] * (int64_t)item;
  if (axis == tensor->ndim - 1) {
    copy_row(to, from, count, step, item);
    return to + (size_t)count * item;
  }
  for (int64_t i = 0; i < count; ++i) to = copy_axis(to, from + i * step, tensor, axis + 1);
  return to;
}

void ts_copy_compact(void *to, const DLTensor *from) {
  const char *data = (const char *)from->data + from->byte_offset;
  if (ts_is_compact(from))
    memcpy(to, data, (size_t)ts_tensor_bytes(from->dtype, from->ndim, from->shape));
  else
    copy_axis(to, data, from, 0);
}

const char *ts_dtype_name(DLDataType dtype) {
  static const struct {
    uint8_t code, bits;
    char name[12];
  } names[] = {{kDLFloat, 64, "f64"}, {kDLFloat, 32, "f32"}, {kDLFloat, 16, "f16"},
               {kDLBfloat, 16, "bf16"}, {kDLInt, 64, "i64"}, {kDLInt, 32, "i32"},
               {kDLInt, 16, "i16"}, {kDLInt, 8, "i8"}, {kDLUInt, 64, "u64"},
               {kDLUInt, 32, "u32"}, {kDLUInt, 16, "u16"}, {kDLUInt, 8, "u8"},
               {kDLBool, 8, "bool"}, {kDLFloat8_e4m3fn, 8, "f8e4m3fn"},
               {kDLFloat8_e4m3fnuz, 8, "f8e4m3fnuz"}, {kDLFloat8_e5m2, 8, "f8e5m2"},
               {kDLFloat8_e5m2fnuz, 8, "f8e5m2fnuz"}, {kDLFloat8_e8m0fnu, 8, "f8e8m0fnu"},
               {kDLFloat4_e2m1fn, 4, "f4e2m1fn"}, {kDLInt, 4, "i4"}, {kDLUInt, 4, "u4"},
               {kDLInt, 2, "i2"}, {kDLUInt, 2, "u2"}};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i)
    if (names[i].code == dtype.code && names[i].bits == dtype.bits && dtype.lanes == 1)
      return names[i].name;
  return "another type";
}

void ts_shape_text(char *text, size_t bytes, int32_t ndim, const int64_t *shape,
                   const char *const *names) {
  size_t used = (size_t)snprintf(text, bytes, "[");
  for (int32_t d = 0; d < ndim && used < bytes; ++d) {
    const char *comma = d ? ", " : "";
    int wrote = names && names[d]
                    ? snprintf(text + used, bytes - used, "%s%s", comma, names[d])
                    : snprintf(text + used, bytes - used, "%s%" PRId64, comma, shape[d]);
    used += (size_t)wrote;
  }
  if (used < bytes) snprintf(text + used, bytes - used, "]");
}
