/* Threads of one instance: they spin, then sleep on a futex. Every thread has its own slice of a job,
 * the same in every run, and takes what is left of other slices when it is through: the CPUs of a
 * shared machine are not equally fast. */
#include <dlfcn.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

/* A worker spins this long for its next slice before it sleeps: kernels that run on one thread alone
 * are shorter, and waking a sleeper takes long where the system must wake the CPU too. */
enum { SPIN_NANOSECONDS = 300000, PAUSES_PER_CLOCK = 32, CACHE_LINE = 64 };

/* When other programs hold the CPUs, spinning keeps the system from running the thread that is
 * waited for: after a wait longer than the work itself, so many jobs are done without spinning. */
enum { CROWDED_JOBS = 64 };

/* A thread takes half of what is left of a slice, but not less than this share of the slice. */
enum { LEAST_SHARE = 8 };

/* In `ts_pool.state`, beside the number of workers that are at the job: no more may begin. */
#define CLOSED 0x80000000u

typedef struct {
  _Alignas(CACHE_LINE) _Atomic int64_t next; /* first iteration that nobody has taken */
  int64_t end, least;
} ts_slice;

typedef struct {
  ts_pool *pool;
  int32_t index; /* slice of this thread; 0 is the caller's */
  pthread_t thread;
} ts_worker;

struct ts_pool {
  int32_t threads;
  int enough_cpus;
  int parks; /* between runs */
  int crowded; /* jobs left to do without spinning */
  pid_t process;
  int started;
  void (*fn)(void *, int64_t, int64_t, int64_t);
  void *args;
  atomic_int stop, running, may_spin;
  _Alignas(CACHE_LINE) atomic_uint generation; /* counts jobs; workers sleep on it */
  _Alignas(CACHE_LINE) atomic_uint state;      /* the caller sleeps on it */
  _Alignas(CACHE_LINE) atomic_int sleepers, caller_sleeps;
  ts_worker *workers;
  ts_slice *slices;
};

static void futex_wait(atomic_uint *word, unsigned expected) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word, int count) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static void pause_cpu(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#endif
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* Spins while *word == value (want_equal: until it equals it); 0 when the time ran out. */
static int spin(const ts_pool *pool, const atomic_uint *word, unsigned value, int want_equal) {
  int64_t deadline = 0;
  for (;;) {
    for (int i = 0; i < PAUSES_PER_CLOCK; ++i) {
      const unsigned current = atomic_load_explicit(word, memory_order_acquire);
      if ((current == value) == want_equal) return 1;
      if (!atomic_load_explicit(&pool->may_spin, memory_order_relaxed)) return 0;
      pause_cpu();
    }
    if (!deadline) deadline = now() + SPIN_NANOSECONDS;
    else if (now() > deadline) return 0;
  }
}

/* Takes a part of a slice; 0 when nothing is left of it. */
static int take(ts_slice *slice, int64_t *begin, int64_t *end) {
  int64_t at = atomic_load_explicit(&slice->next, memory_order_relaxed);
  while (at < slice->end) {
    const int64_t left = slice->end - at;
    int64_t part = left / 2 > slice->least ? left / 2 : slice->least;
    if (part > left) part = left;
    if (atomic_compare_exchange_weak(&slice->next, &at, at + part)) {
      *begin = at;
      *end = at + part;
      return 1;
    }
  }
  return 0;
}

/* Does the thread's own slice, then the rest of others. */
static void run_slices(const ts_pool *pool, int32_t thread) {
  int64_t begin, end;
  for (int32_t i = 0; i < pool->threads; ++i) {
    ts_slice *slice = &pool->slices[(thread + i) % pool->threads];
    while (take(slice, &begin, &end)) pool->fn(pool->args, begin, end, thread);
  }
}

/* Whether the worker may be at the job: the caller does not wait for one that comes late. */
static int enter(ts_pool *pool) {
  unsigned state = atomic_load(&pool->state);
  while (!(state & CLOSED))
    if (atomic_compare_exchange_weak(&pool->state, &state, state + 1)) return 1;
  return 0;
}

static void *work(void *argument) {
  const ts_worker *self = argument;
  ts_pool *pool = self->pool;
  unsigned seen = 0;
  ts_fp_flush();
  for (;;) {
    if (!spin(pool, &pool->generation, seen, 0)) {
      atomic_fetch_add(&pool->sleepers, 1);
      while (atomic_load(&pool->generation) == seen) futex_wait(&pool->generation, seen);
      atomic_fetch_sub(&pool->sleepers, 1);
    }
    seen = atomic_load(&pool->generation);
    if (atomic_load(&pool->stop)) return NULL;
    if (!enter(pool)) continue;
    run_slices(pool, self->index);
    if (atomic_fetch_sub(&pool->state, 1) == (CLOSED | 1) && atomic_load(&pool->caller_sleeps))
      futex_wake(&pool->state, 1);
  }
}

static void publish(ts_pool *pool) {
  atomic_fetch_add(&pool->generation, 1);
  if (atomic_load(&pool->sleepers)) futex_wake(&pool->generation, INT_MAX);
}

static void wait_for_workers(ts_pool *pool) {
  atomic_store(&pool->caller_sleeps, 1);
  unsigned state;
  while ((state = atomic_load(&pool->state)) != CLOSED) futex_wait(&pool->state, state);
  atomic_store(&pool->caller_sleeps, 0);
}

static void cut(ts_pool *pool, int64_t count) {
  const int64_t share = count / pool->threads, extra = count % pool->threads;
  int64_t begin = 0;
  for (int32_t i = 0; i < pool->threads; ++i) {
    const int64_t size = share + (i < extra), least = size / LEAST_SHARE;
    atomic_store_explicit(&pool->slices[i].next, begin, memory_order_relaxed);
    pool->slices[i].end = begin += size;
    pool->slices[i].least = least > 0 ? least : 1;
  }
}

static void run_job(ts_pool *pool, int64_t count) {
  const int64_t begin = now();
  cut(pool, count);
  atomic_store(&pool->state, 0);
  publish(pool);
  run_slices(pool, 0);
  atomic_fetch_or(&pool->state, CLOSED);
  if (pool->crowded) {
    if (!spin(pool, &pool->state, CLOSED, 1)) wait_for_workers(pool);
    if (--pool->crowded == 0) atomic_store(&pool->may_spin, pool->enough_cpus);
    return;
  }
  const int64_t middle = now();
  if (spin(pool, &pool->state, CLOSED, 1)) return;
  wait_for_workers(pool);
  if (now() - middle > middle - begin) {
    pool->crowded = CROWDED_JOBS;
    atomic_store(&pool->may_spin, 0);
  }
}

void ts_pool_run(ts_pool *pool, void (*fn)(void *, int64_t, int64_t, int64_t), void *args,
                 int64_t count) {
  if (atomic_exchange(&pool->running, 1)) { /* called from inside fn */
    fn(args, 0, count, 0);
    return;
  }
  pool->fn = fn;
  pool->args = args;
  run_job(pool, count);
  atomic_store(&pool->running, 0);
}

void ts_pool_park(ts_pool *pool) {
  pool->parks = 1;
  atomic_store(&pool->may_spin, 0);
}

void ts_pool_begin(ts_pool *pool) {
  if (pool->parks) atomic_store(&pool->may_spin, pool->enough_cpus && !pool->crowded);
}

void ts_pool_end(ts_pool *pool) {
  if (pool->parks) atomic_store(&pool->may_spin, 0);
}

/* Before 2.34 glibc has these in a library of their own, which a binary that runs on one thread is
 * not to need. Returns other than 0 where they are not found. */
static int (*create_thread)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
static int (*join_thread)(pthread_t, void **);

static int find_threads(void) {
#ifdef TS_STATIC
  create_thread = pthread_create;
  join_thread = pthread_join;
#else
  void *library = RTLD_DEFAULT;
  if (!dlsym(library, "pthread_create") && !(library = dlopen("libpthread.so.0", RTLD_NOW)))
    return -1;
  *(void **)&create_thread = dlsym(library, "pthread_create");
  *(void **)&join_thread = dlsym(library, "pthread_join");
#endif
  return create_thread && join_thread ? 0 : -1;
}

int ts_pool_orphaned(const ts_pool *pool) { return pool->process != getpid(); }

ts_pool *ts_pool_create(int32_t threads) {
  ts_pool *pool;
  if (find_threads()) return NULL;
  if (posix_memalign((void **)&pool, CACHE_LINE, sizeof *pool)) return NULL;
  const int enough = threads <= ts_cpu_count();
  *pool = (ts_pool){
      .threads = threads, .enough_cpus = enough, .may_spin = enough, .process = getpid()};
  atomic_store(&pool->state, CLOSED);
  pool->workers = calloc((size_t)threads, sizeof *pool->workers);
  void *slices = NULL;
  if (!posix_memalign(&slices, CACHE_LINE, (size_t)threads * sizeof *pool->slices))
    pool->slices = memset(slices, 0, (size_t)threads * sizeof *pool->slices);
  if (!pool->workers || !pool->slices) {
    ts_pool_destroy(pool);
    return NULL;
  }
  for (int32_t i = 0; i < threads - 1; ++i) {
    ts_worker *worker = &pool->workers[i];
    *worker = (ts_worker){.pool = pool, .index = i + 1};
    if (create_thread(&worker->thread, NULL, work, worker)) {
      ts_pool_destroy(pool);
      return NULL;
    }
    ++pool->started;
  }
  return pool;
}

void ts_pool_destroy(ts_pool *pool) {
  if (!pool) return;
  if (!ts_pool_orphaned(pool)) {
    atomic_store(&pool->stop, 1);
    publish(pool);
    for (int i = 0; i < pool->started; ++i) join_thread(pool->workers[i].thread, NULL);
  }
  free(pool->workers);
  free(pool->slices);
  free(pool);
}
