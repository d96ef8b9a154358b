/* Elements of every type as numbers and as keys whose integer order is theirs. */
#ifndef TENSMITH_ELEMENTS_H_
#define TENSMITH_ELEMENTS_H_

#include <stdint.h>

#include "plan_abi.h"

TS_LOCAL int64_t ts_element_bytes(int64_t element);

/* An order-preserving key: unsigned comparison of keys is that of the elements; -0 equals 0, and
 * every NaN is the same and the largest. */
TS_LOCAL uint64_t ts_key(int64_t element, const void *data, int64_t index);

/* A floating-point element as a number, and back. */
TS_LOCAL double ts_read_float(int64_t element, const void *data, int64_t index);
TS_LOCAL void ts_write_float(int64_t element, void *data, int64_t index, double value);

#endif /* TENSMITH_ELEMENTS_H_ */
