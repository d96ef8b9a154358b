/* The order of the elements of a row. */
#ifndef TENSMITH_ORDERING_H_
#define TENSMITH_ORDERING_H_

#include <stdint.h>

#include "plan_abi.h"

/* Bytes of memory, aligned as items are, that ordering rows of `length` elements takes. */
TS_LOCAL int64_t ts_order_bytes(int64_t length);

/* Which `count` <= length elements of a row come first, least or greatest, in order; equal ones
 * keep theirs, and NaN is the largest. */
TS_LOCAL void ts_order(int64_t element, const void *row, int64_t length, int64_t count,
                       int64_t descending, void *memory, int64_t *order);

#endif /* TENSMITH_ORDERING_H_ */
