/* A stand-in for Arm's driver of an Ethos-U: command streams are handed to a function that the
 * process has set, which simulates them. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))
enum { ALIGNMENT = 16 };

struct ethosu_driver;
typedef int (*simulate_function)(const void *commands, int bytes, const uint64_t *bases,
                                 const size_t *sizes, int count);

static simulate_function simulated;
static _Thread_local void *fast_memory;
static _Thread_local size_t fast_bytes;

EXPORT void tensmith_simulated_npu(simulate_function function) { simulated = function; }

EXPORT int ethosu_invoke_v3(struct ethosu_driver *driver, const void *commands, const int bytes,
                            uint64_t *const bases, const size_t *sizes, const int count,
                            void *user) {
  (void)driver, (void)user;
  return simulated ? simulated(commands, bytes, bases, sizes, count) : -1;
}

EXPORT void *tensmith_npu_fast_memory(size_t bytes) {
  if (bytes > fast_bytes) {
    free(fast_memory);
    fast_memory = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    fast_bytes = fast_memory ? bytes : 0;
  }
  return fast_memory;
}
