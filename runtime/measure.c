/* The measuring program; see measure.h.
 *
 *   measure machine                               facts about this machine
 *   measure check FOLDER TIMEOUT_MS               each candidate against the first
 *   measure time FOLDER LOCK NANOSECONDS NUMBER... candidates in this order, each for about so long
 *
 * A line on standard output for each result; messages on standard error, and an exit code other
 * than 0, where there are none. */
#include "measure.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

/* Readings of the clock for one candidate; a call that is shorter than SHORT_NS is repeated where
 * caches stay as they are, so that a reading is not mostly the clock's own time. */
enum { MOST = 4000, LEAST = 5, SHORT_NS = 20000, LINE = 64 };

static volatile uint8_t sink;

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void touch(const uint8_t *start, int64_t bytes) {
  uint8_t sum = 0;
  for (int64_t i = 0; i < bytes; i += LINE) sum += start[i];
  sink = sum;
}

static int ascending(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static void part(void *args, int64_t begin, int64_t end, int64_t thread) {
  const ts_call *call = args;
  const ts_candidate *c = call->candidate;
  c->run(call->operands, call->scratch + thread * c->scratch_bytes, begin, end);
}

static void run(const ts_call *call, ts_pool *pool) {
  const ts_candidate *c = call->candidate;
  if (pool && c->divided && c->end > 1) ts_pool_run(pool, part, (void *)call, c->end);
  else c->run(call->operands, call->scratch, 0, c->end);
}

/* What lies between two calls of a kernel in a model's run: other memory is read, which takes the
 * place of what was near, and the addresses of pages are forgotten. `gone`: so much is read that
 * constants come from memory again; they are thrown out of all caches, which leaves them as they
 * would be if it all were read, in a tenth of the time. */
typedef struct {
  uint8_t *other, *pages;
  int64_t other_bytes, page_bytes;
  int any, gone;
} between;

enum { PAGE = 4096, MOST_PAGES = 8192 }; /* as many as processors remember the addresses of */

#if defined(__x86_64__)
__attribute__((target("clflushopt"))) static void throw_out(const uint8_t *start, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += LINE) __builtin_ia32_clflushopt(start + i);
  __builtin_ia32_mfence();
}
static int can_throw_out(void) {
  static const char *const needed[] = {"clflushopt"};
  return !ts_cpu_missing(needed, 1);
}
#else
static void throw_out(const uint8_t *start, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += LINE) __asm__ volatile("dc civac, %0" ::"r"(start + i));
  __asm__ volatile("dsb ish" ::: "memory");
}
static int can_throw_out(void) { return 1; } /* Linux lets programs do so (SCTLR_EL1.UCI) */
#endif

static between between_calls(int64_t evicted) {
  between found = {.any = evicted > 0};
  if (!evicted) return found;
  const int64_t largest = ts_largest_cache(), second = ts_cache_bytes(2);
  found.gone = evicted > largest && can_throw_out();
  const int64_t most = found.gone || (second && second < largest) ? second : largest;
  found.other_bytes = most && 2 * most < evicted ? 2 * most : evicted;
  found.page_bytes = evicted / PAGE < MOST_PAGES ? evicted : (int64_t)MOST_PAGES * PAGE;
  found.other = ts_memory(found.other_bytes);
  memset(found.other, 1, (size_t)found.other_bytes);
  found.pages = ts_small_pages(found.page_bytes);
  memset(found.pages, 1, (size_t)found.page_bytes);
  return found;
}

/* Memory as in the middle of a model's run: steps before have made what is not constant. */
static void as_deployed(const ts_batch *b, const ts_call *call, const between *other) {
  const ts_candidate *c = call->candidate;
  for (int i = 0; i < c->operand_count && other->gone; i++) {
    const ts_piece *p = &b->pieces[c->operands[i]];
    if (p->kind == WEIGHTS || p->kind == PACKED) throw_out(p->memory, p->bytes);
  }
  touch(other->other, other->other_bytes);
  uint8_t sum = 0;
  for (int64_t i = 0; i < other->page_bytes / PAGE; i++)
    sum += other->pages[i * PAGE + i % (PAGE / LINE) * LINE];
  sink = sum;
  for (int i = 0; i < c->operand_count; i++) {
    const ts_piece *p = &b->pieces[c->operands[i]];
    if (p->kind == INPUT || p->kind == OUTPUT) touch(p->memory, p->bytes);
  }
}

static void measure(ts_batch *b, int number, int64_t limit_ns, ts_pool *pool,
                    const between *other) {
  static int64_t times[MOST];
  ts_call call;
  printf("begin %d\n", number);
  fflush(stdout);
  ts_call_prepare(b, number, NULL, &call);
  run(&call, pool);
  int64_t begin = now(), count = 0, calls = 1;
  if (!other->any) {
    run(&call, pool);
    const int64_t once = now() - begin;
    calls = once < SHORT_NS ? SHORT_NS / (once + 1) + 1 : 1;
  }
  begin = now();
  while (count < MOST && (count < LEAST || now() - begin < limit_ns)) {
    if (other->any) as_deployed(b, &call, other);
    const int64_t start = now();
    for (int64_t k = 0; k < calls; k++) run(&call, pool);
    times[count++] = (now() - start) * 1000 / calls;
  }
  qsort(times, (size_t)count, sizeof *times, ascending);
  printf("time %d %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "\n", number, times[0],
         times[count / 4], times[count / 2], count);
  fflush(stdout);
  ts_call_release(&call);
}

/* Kernels may multiply matrices (AMX), which Linux lets those do that ask (arch_prctl). */
static void lend_matrices(void) {
#if defined(__x86_64__)
  syscall(SYS_arch_prctl, 0x1023, 18);
#endif
}

/* Only one program measures at a time on a machine. */
static void wait_for_turn(const char *path) {
  int file = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (file < 0 && errno == ENOENT) {
    file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (file >= 0) fchmod(file, 0666); /* of other users, too */
  }
  if (file < 0 || flock(file, LOCK_EX)) ts_die("cannot lock '%s': %s", path, strerror(errno));
  printf("locked\n");
  fflush(stdout);
}

/* One thread stays where the system has put it. The core's number, or -1. */
static int stay(void) {
  const int core = sched_getcpu();
  cpu_set_t set;
  CPU_ZERO(&set);
  if (core < 0 || core >= CPU_SETSIZE) return -1;
  CPU_SET(core, &set);
  return sched_setaffinity(0, sizeof set, &set) ? -1 : core;
}

/* Clock ticks of a core (-1: of all) that another guest of the host had, and of all kinds. */
static void ticks(int core, int64_t *stolen, int64_t *all) {
  char line[512], name[16];
  *stolen = *all = 0;
  snprintf(name, sizeof name, core < 0 ? "cpu " : "cpu%d ", core);
  FILE *file = fopen("/proc/stat", "r");
  while (file && fgets(line, sizeof line, file)) {
    if (strncmp(line, name, strlen(name))) continue;
    char *at = line + strlen(name);
    for (int i = 0; i < 8; i++) {
      const int64_t value = strtoll(at, &at, 10);
      *all += value;
      if (i == 7) *stolen = value;
    }
    break;
  }
  if (file) fclose(file);
}

static int time_all(ts_batch *b, const char *lock, int64_t limit_ns, char **numbers, int count) {
  int64_t before, all_before, after, all_after;
  wait_for_turn(lock);
  const int core = b->threads > 1 ? -1 : stay();
  ts_pool *pool = b->threads > 1 ? ts_pool_create(b->threads) : NULL;
  if (b->threads > 1 && !pool) ts_die("cannot start %d threads", b->threads);
  ts_fp_flush();
  const between other = between_calls(b->evicted);
  ticks(core, &before, &all_before);
  for (int i = 0; i < count; i++) {
    const int number = atoi(numbers[i]);
    if (number < 0 || number >= b->candidate_count || !b->candidates[number].present)
      ts_die("there is no candidate %s", numbers[i]);
    measure(b, number, limit_ns, pool, &other);
  }
  ticks(core, &after, &all_after);
  printf("stolen %" PRId64 " %" PRId64 "\n", after - before, all_after - all_before);
  ts_pool_destroy(pool);
  return 0;
}

int main(int argc, char **argv) {
  static ts_batch batch;
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody reads what is measured then */
  lend_matrices();
  if (argc == 2 && !strcmp(argv[1], "machine")) return ts_machine();
  if (argc == 4 && !strcmp(argv[1], "check")) {
    ts_batch_read(&batch, argv[2]);
    return ts_check(&batch, atoll(argv[3]));
  }
  if (argc >= 6 && !strcmp(argv[1], "time")) {
    ts_batch_read(&batch, argv[2]);
    return time_all(&batch, argv[3], atoll(argv[4]), argv + 5, argc - 5);
  }
  fprintf(stderr, "usage: measure machine | check FOLDER TIMEOUT_MS | "
                  "time FOLDER LOCK NANOSECONDS NUMBER...\n");
  return 2;
}
