/* Memory of the device: memory of the host, poisoned. */
#define _GNU_SOURCE
#include "state.h"

#include <stdlib.h>

typedef struct block { CUdeviceptr address; size_t bytes; void *memory; struct block *next; } block;

static block *blocks;

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
  BEGIN(1);
  if (!bytes) return INVALID_VALUE;
  block *made = calloc(1, sizeof *made);
  const size_t whole = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (posix_memalign(&made->memory, ALIGNMENT, whole)) {
    free(made);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  memset(made->memory, POISON, whole);
  made->address = *address = (CUdeviceptr)(uintptr_t)made->memory;
  made->bytes = bytes;
  pthread_mutex_lock(&fake.lock);
  made->next = blocks;
  blocks = made;
  fake.live_bytes += bytes;
  pthread_mutex_unlock(&fake.lock);
  return 0;
}
EXPORT CUresult cuMemFree_v2(CUdeviceptr address) {
  BEGIN(1);
  CUresult error = INVALID_VALUE;
  pthread_mutex_lock(&fake.lock);
  for (block **at = &blocks; *at; at = &(*at)->next)
    if ((*at)->address == address) {
      block *found = *at;
      *at = found->next;
      fake.live_bytes -= found->bytes;
      free(found->memory);
      free(found);
      error = 0;
      break;
    }
  pthread_mutex_unlock(&fake.lock);
  return error;
}
int inside(CUdeviceptr address, size_t bytes) {
  int found = 0;
  pthread_mutex_lock(&fake.lock);
  for (block *at = blocks; at && !found; at = at->next)
    found = address >= at->address && address - at->address <= at->bytes &&
            bytes <= at->bytes - (address - at->address);
  pthread_mutex_unlock(&fake.lock);
  return found;
}
EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
  BEGIN(1);
  if (!stream) return INVALID_HANDLE;
  if (stream->capturing) return CAPTURING;
  if (!inside(to, bytes)) return INVALID_VALUE;
  memcpy((void *)(uintptr_t)to, from, bytes);
  return 0;
}
EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  BEGIN(1);
  if (!stream) return INVALID_HANDLE;
  if (stream->capturing) return CAPTURING;
  if (!inside(from, bytes)) return INVALID_VALUE;
  memcpy(to, (const void *)(uintptr_t)from, bytes);
  return 0;
}
