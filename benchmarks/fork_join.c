/* How long two threads of the runtime's pool take for a job that does nothing:
 *
 *   gcc -O2 -std=gnu11 -Iruntime benchmarks/fork_join.c runtime/pool.c -lpthread -o fork_join
 *   taskset -c 0,1 ./fork_join
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "internal.h"

enum { WARM_UP = 2000, JOBS = 200000 };

uint64_t ts_fp_flush(void) { return 0; }
int32_t ts_cpu_count(void) { return 2; }

static void nothing(void *args, int64_t begin, int64_t end, int64_t thread) {
  (void)args, (void)begin, (void)end, (void)thread;
}

static double microseconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e6 + (double)time.tv_nsec * 1e-3;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

int main(void) {
  static double times[JOBS];
  ts_pool *pool = ts_pool_create(2);
  if (!pool) return 1;
  for (int i = 0; i < WARM_UP; ++i) ts_pool_run(pool, nothing, NULL, 2);
  for (int i = 0; i < JOBS; ++i) {
    const double begin = microseconds();
    ts_pool_run(pool, nothing, NULL, 2);
    times[i] = microseconds() - begin;
  }
  qsort(times, JOBS, sizeof *times, ascending);
  printf("median %.2f us, p90 %.2f us, p99 %.2f us\n", times[JOBS / 2], times[JOBS / 10 * 9],
         times[JOBS / 100 * 99]);
  ts_pool_destroy(pool);
  return 0;
}
