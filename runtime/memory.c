/* Aligned blocks that only grow. */
#include <stdlib.h>
#include <sys/mman.h>

#include "internal.h"

enum { HUGE_PAGE = 2 << 20 };

int ts_block_reserve(ts_block *block, size_t bytes) {
  if (block->data && block->capacity >= bytes) return 0;
  size_t alignment = bytes >= 2 * (size_t)HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
  if (bytes > SIZE_MAX / 2) return -1;
  size_t capacity = bytes ? (bytes + alignment - 1) / alignment * alignment : ALIGNMENT;
  ts_block_free(block);
  if (posix_memalign(&block->data, alignment, capacity)) {
    block->data = NULL;
    return -1;
  }
  /* Fewer page faults and TLB misses; without effect where the system does not offer it. */
  if (alignment == HUGE_PAGE) madvise(block->data, capacity, MADV_HUGEPAGE);
  block->capacity = capacity;
  return 0;
}

void ts_block_free(ts_block *block) {
  free(block->data);
  block->data = NULL;
  block->capacity = 0;
}
