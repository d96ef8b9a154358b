/* Command streams for an Ethos-U, and how the plan runs them by Arm's driver. */
#ifndef TENSMITH_NPU_H_
#define TENSMITH_NPU_H_

#include <stddef.h>
#include <stdint.h>

#include "plan_abi.h"

enum { TS_NPU_REGIONS = 3 }; /* of memory, that a stream may use */

typedef struct ts_npu_tensor { /* where an input or output lies */
  uint32_t region, offset, bytes;
} ts_npu_tensor;

typedef struct ts_npu_segment {
  const uint8_t *commands; /* the driver's payload; 16-byte aligned, as the weights are */
  uint32_t command_bytes;
  const uint8_t *weights;
  uint32_t weight_bytes, scratch_bytes, fast_bytes;
  uint8_t weights_region, scratch_region, fast_region;
  uint8_t input_count, output_count;
  const ts_npu_tensor *tensors; /* inputs, then outputs */
} ts_npu_segment;

/* Runs a segment. places: inputs, outputs, and scratch_bytes of memory, 16-byte aligned. */
TS_LOCAL int32_t ts_npu_invoke(ts_frame *frame, const ts_npu_segment *segment,
                               void *const *places);

#endif /* TENSMITH_NPU_H_ */
