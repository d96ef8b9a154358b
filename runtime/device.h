/* What generated code and the runtime know of a device beside the host: services of the plan. */
#ifndef TENSMITH_DEVICE_H_
#define TENSMITH_DEVICE_H_

#include <stdint.h>

#include "plan_abi.h"

/* Addresses of the device are handed over as pointers; only the device reads and writes there.
 * What these functions ask of it happens one behind the other, in the order of the calls. Where they
 * fail they record the error and return NULL or a number other than 0. */

/* The scratch memory of a run on the device: one call per run, 256-byte aligned. */
TS_LOCAL void *ts_dev_arena(ts_frame *frame, int64_t bytes);

/* More memory of the device, valid until the end of the run; alignment as ts_dev_arena. */
TS_LOCAL void *ts_dev_alloc(ts_frame *frame, int64_t bytes);

/* The model's weights in the device's memory, laid out as those of the host. */
TS_LOCAL void *ts_dev_weights(ts_frame *frame);

/* Where an input lies on the device: the caller's tensor, or a copy of it at `staging`. */
TS_LOCAL void *ts_dev_input(ts_frame *frame, int64_t index, void *staging, int64_t bytes);

/* Where an output that is open is to be made on the device: the caller's tensor, or `staging`. */
TS_LOCAL void *ts_dev_output(ts_frame *frame, int64_t index, void *staging);

/* Hands an output over to the caller, in whichever memory that wants it. device: where the device
 * has it; NULL: it is in the host's memory. The run's end waits for it. */
TS_LOCAL int32_t ts_dev_deliver(ts_frame *frame, int64_t index, const void *device, int64_t bytes);

/* Copies from the host to the device, from the device to the host (and waits until that is done),
 * and inside of the device. */
TS_LOCAL int32_t ts_dev_upload(ts_frame *frame, void *device, const void *host, int64_t bytes);
TS_LOCAL int32_t ts_dev_download(ts_frame *frame, void *host, const void *device, int64_t bytes);
TS_LOCAL int32_t ts_dev_copy(ts_frame *frame, void *to, const void *from, int64_t bytes);

/* Runs `programs` programs of a function of the model's device code on tensors and numbers. */
TS_LOCAL int32_t ts_dev_launch(ts_frame *frame, int64_t function, int64_t programs,
                               void *const *places, const int64_t *sizes);

#endif /* TENSMITH_DEVICE_H_ */
