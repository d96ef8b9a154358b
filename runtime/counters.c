/* What an instance has done: calls, and rows by the stage of a cascade that answered them. */
#include <string.h>

#include "internal.h"

static void add(_Atomic int64_t *counter, int64_t amount) {
  atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
}

static int64_t value(const _Atomic int64_t *counter) {
  return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Number `row` of bool, u8, i32 or i64. */
static int64_t stage_at(const char *data, size_t bytes, int64_t row) {
  int32_t narrow;
  int64_t wide;
  if (bytes == 1) return data[row];
  if (bytes == 4) return memcpy(&narrow, data + row * 4, 4), narrow;
  return memcpy(&wide, data + row * 8, 8), wide;
}

void ts_count_run(ts_instance *instance) {
  const ts_model *model = instance->model;
  add(&instance->calls, 1);
  if (!model->stages) return;
  const DLTensor *told = instance->outputs[model->stage_output].tensor;
  if (told->device.device_type == kDLCUDA) return;
  const char *data = (const char *)told->data + told->byte_offset;
  int64_t rows = 1, found[TS_MOST_STAGES] = {0};
  for (int32_t d = 0; d < told->ndim; ++d) rows *= told->shape[d];
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t stage = stage_at(data, ts_item_bytes(told->dtype), row);
    if (stage >= 0 && stage < model->stages) ++found[stage];
  }
  add(&instance->rows, rows);
  for (int32_t stage = 0; stage < model->stages; ++stage)
    if (found[stage]) add(&instance->answered[stage], found[stage]);
}

ts_status ts_read_counters(const ts_instance *instance, ts_counters *counters) {
  if (!instance || !counters) return TS_ERROR_ARGUMENT;
  if (counters->size != sizeof *counters) return TS_ERROR_VERSION;
  if (!instance->model) return instance->status;
  *counters = (ts_counters){.size = sizeof *counters,
                            .stages = instance->model->stages,
                            .calls = value(&instance->calls),
                            .rows = value(&instance->rows)};
  for (int32_t stage = 0; stage < counters->stages; ++stage) {
    counters->answered[stage] = value(&instance->answered[stage]);
    if (stage) counters->deferred += counters->answered[stage];
  }
  return TS_OK;
}
