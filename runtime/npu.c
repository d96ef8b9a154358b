/* One run of a command stream: inputs into the arena, the driver, outputs out of it.
 *
 * The driver is Arm's (ethos-u-core-driver, ethosu_driver.h), which is linked with the program; it
 * keeps caches coherent itself. What is declared here is its interface, version 3.
 */
#include "npu.h"

#define WEAK __attribute__((weak, visibility("default")))

struct ethosu_driver;

extern WEAK struct ethosu_driver *ethosu_reserve_driver(void);
extern WEAK void ethosu_release_driver(struct ethosu_driver *driver);
extern WEAK int ethosu_invoke_v3(struct ethosu_driver *driver, const void *commands,
                                 const int bytes, uint64_t *const bases, const size_t *sizes,
                                 const int count, void *user);

/* Memory that only the processor uses (memory modes "Dedicated"): 16-byte aligned, the program's. */
extern WEAK void *tensmith_npu_fast_memory(size_t bytes);

enum { ERROR_DEVICE = 13 }; /* as TS_ERROR_DEVICE */

static int32_t drive(const ts_npu_segment *segment, uint64_t *bases, const size_t *sizes) {
  struct ethosu_driver *driver = ethosu_reserve_driver ? ethosu_reserve_driver() : NULL;
  if (ethosu_reserve_driver && !driver) return -1;
  const int status = ethosu_invoke_v3(driver, segment->commands, (int)segment->command_bytes,
                                      bases, sizes, TS_NPU_REGIONS, NULL);
  if (ethosu_release_driver) ethosu_release_driver(driver);
  return status;
}

int32_t ts_npu_invoke(ts_frame *frame, const ts_npu_segment *segment, void *const *places) {
  uint8_t *memory[TS_NPU_REGIONS] = {0};
  const int32_t count = segment->input_count + segment->output_count;
  if (!ethosu_invoke_v3)
    return ts_rt_fail(frame, ERROR_DEVICE, "no driver of an Ethos-U is linked with the program");
  memory[segment->weights_region] = (uint8_t *)segment->weights;
  memory[segment->scratch_region] = places[count];
  if (segment->fast_bytes) {
    void *fast = tensmith_npu_fast_memory ? tensmith_npu_fast_memory(segment->fast_bytes) : NULL;
    if (!fast)
      return ts_rt_fail(frame, ERROR_DEVICE,
                        "tensmith_npu_fast_memory() gives no memory for the Ethos-U alone");
    memory[segment->fast_region] = fast;
  }
  for (int32_t i = 0; i < segment->input_count; ++i) {
    const ts_npu_tensor *tensor = &segment->tensors[i];
    __builtin_memcpy(memory[tensor->region] + tensor->offset, places[i], tensor->bytes);
  }
  uint64_t bases[TS_NPU_REGIONS];
  size_t sizes[TS_NPU_REGIONS] = {0};
  for (int32_t region = 0; region < TS_NPU_REGIONS; ++region)
    bases[region] = (uint64_t)(uintptr_t)memory[region];
  if (segment->fast_bytes) sizes[segment->fast_region] = segment->fast_bytes;
  sizes[segment->weights_region] = segment->weight_bytes;
  sizes[segment->scratch_region] = segment->scratch_bytes;
  if (drive(segment, bases, sizes))
    return ts_rt_fail(frame, ERROR_DEVICE, "the Ethos-U ended the run with an error");
  for (int32_t i = 0; i < segment->output_count; ++i) {
    const ts_npu_tensor *tensor = &segment->tensors[segment->input_count + i];
    __builtin_memcpy(places[segment->input_count + i], memory[tensor->region] + tensor->offset,
                     tensor->bytes);
  }
  return 0;
}
