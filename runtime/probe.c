/* What a machine does with a model when all of it is at work, or calls come by chance: several
 * instances behind one queue. */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "program.h"

enum {
  QUANTILES = 400,          /* of the times that are printed */
  SPIN_NANOSECONDS = 60000, /* before a call arrives its instance no longer sleeps */
  MOST_ARRIVALS = 50000000,
  STREAM_BYTES = 64 << 20 /* that each core reads, to find what the memory delivers */
};

typedef struct ts_probe ts_probe;

/* One instance, with its own times and slices. */
typedef struct {
  ts_probe *all;
  pthread_t thread;
  ts_instance *instance;
  DLTensor *slices, *outputs;
  int64_t (*shapes)[MAX_DIMS + 1];
  int64_t *nanoseconds;
  int64_t calls, capacity, spun;
  double bytes_per_second;
} prober;

struct ts_probe {
  const ts_model *model;
  const options *chosen;
  const ts_options *settings;
  const array *inputs;
  cut *cuts;
  int64_t runs, arrivals, begin, deadline;
  int64_t *due; /* of each call, from the beginning; NULL: one behind the other */
  _Atomic int64_t next;
  pthread_barrier_t ready;
  ts_counters first; /* before the clock ran */
  prober *probers;
  int32_t instances;
};

static void run_sample(prober *p, int64_t number) {
  const ts_probe *all = p->all;
  const ts_model *model = all->model;
  for (int32_t i = 0; i < model->input_count; ++i) {
    const int64_t run = runs_of(all->cuts[i]) == 1 ? 0 : number % all->runs;
    p->slices[i] = slice_of(&all->inputs[i].tensor, all->cuts[i], run, p->shapes[i]);
  }
  memset(p->outputs, 0, (size_t)model->output_count * sizeof *p->outputs);
  check(ts_run(p->instance, p->slices, model->input_count, p->outputs, model->output_count),
        p->instance);
}

static void note(prober *p, int64_t nanoseconds) {
  if (p->calls == p->capacity) {
    p->capacity = p->capacity ? 2 * p->capacity : 4096;
    p->nanoseconds = realloc(p->nanoseconds, (size_t)p->capacity * sizeof *p->nanoseconds);
    if (!p->nanoseconds) die(EXIT_RUN, "no memory for the measurements");
  }
  p->nanoseconds[p->calls++] = nanoseconds;
}

static void pause_cpu(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/* Waits for a moment: asleep, but for its end. What is spun is no work. */
static void wait_until(prober *p, int64_t moment) {
  const int64_t asleep = moment - SPIN_NANOSECONDS;
  if (now() < asleep) {
    const struct timespec until = {asleep / INT64_C(1000000000), asleep % INT64_C(1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL)) {}
  }
  const int64_t begin = now();
  int64_t at = begin;
  while (at < moment) {
    pause_cpu();
    at = now();
  }
  p->spun += at - begin;
}

/* Takes the next call that nobody has taken, when it has arrived. */
static void serve(prober *p) {
  ts_probe *all = p->all;
  for (;;) {
    const int64_t number = atomic_fetch_add(&all->next, 1);
    if (number >= all->arrivals) return;
    const int64_t arrived = all->begin + all->due[number];
    wait_until(p, arrived);
    run_sample(p, number);
    note(p, now() - arrived);
  }
}

static void run_in_turns(prober *p) {
  ts_probe *all = p->all;
  int64_t last = now();
  do {
    run_sample(p, atomic_fetch_add(&all->next, 1));
    const int64_t end = now();
    note(p, end - last);
    last = end;
  } while (last < all->deadline);
}

/* Bytes that this core reads per second while all others do the same. */
static double read_stream(void) {
  const size_t count = STREAM_BYTES / sizeof(uint64_t);
  uint64_t *data = allocate(STREAM_BYTES);
  for (size_t i = 0; i < count; ++i) data[i] = i;
  double best = 0;
  volatile uint64_t sink = 0;
  for (int round = 0; round < 3; ++round) {
    uint64_t sums[8] = {0};
    const int64_t begin = now();
    for (size_t i = 0; i < count; i += 8)
      for (size_t k = 0; k < 8; ++k) sums[k] += data[i + k];
    const double rate = (double)STREAM_BYTES / ((double)(now() - begin) * 1e-9);
    for (size_t k = 0; k < 8; ++k) sink += sums[k];
    if (rate > best) best = rate;
  }
  free(data);
  return best;
}

static void *work(void *argument) {
  prober *p = argument;
  ts_probe *all = p->all;
  const size_t inputs = (size_t)all->model->input_count;
  check(ts_create(all->model, all->settings, &p->instance), p->instance);
  p->slices = allocate(inputs * sizeof *p->slices);
  p->shapes = allocate(inputs * sizeof *p->shapes);
  p->outputs = allocate((size_t)all->model->output_count * sizeof *p->outputs);
  const int64_t warmup = all->chosen->warmup ? all->chosen->warmup : 3;
  for (int64_t i = 0; i < warmup; ++i) run_sample(p, i);
  pthread_barrier_wait(&all->ready); /* everybody is ready */
  pthread_barrier_wait(&all->ready); /* the clock runs */
  if (all->due) serve(p);
  else run_in_turns(p);
  pthread_barrier_wait(&all->ready); /* everybody is through */
  pthread_barrier_wait(&all->ready); /* what it took has been read */
  if (!all->due) p->bytes_per_second = read_stream();
  return NULL;
}

/* Moments at which calls come by chance: exponential gaps (splitmix64). */
static void plan_arrivals(ts_probe *all) {
  const double wanted = all->chosen->load * all->chosen->duration;
  if (!(wanted <= MOST_ARRIVALS)) die(EXIT_USAGE, "--load: too many calls in --duration");
  uint64_t state = all->chosen->seed;
  double at = 0;
  all->arrivals = wanted < 1 ? 1 : (int64_t)wanted;
  all->due = allocate((size_t)all->arrivals * sizeof *all->due);
  for (int64_t i = 0; i < all->arrivals; ++i) {
    uint64_t value = state += 0x9e3779b97f4a7c15u;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    value ^= value >> 31;
    at -= log(((double)(value >> 11) + 0.5) * 0x1p-53) / all->chosen->load;
    all->due[i] = (int64_t)(at * 1e9);
  }
}

static double cpu_seconds(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

static int64_t peak_bytes(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return (int64_t)used.ru_maxrss * 1024;
}

/* Of all instances together. */
static ts_counters sum_counters(const ts_probe *all) {
  ts_counters sum = {sizeof sum};
  for (int32_t i = 0; i < all->instances; ++i) {
    ts_counters own = {sizeof own};
    check(ts_read_counters(all->probers[i].instance, &own), all->probers[i].instance);
    sum.stages = own.stages;
    sum.rows += own.rows;
    sum.deferred += own.deferred;
    for (int32_t stage = 0; stage < own.stages; ++stage) sum.answered[stage] += own.answered[stage];
  }
  return sum;
}

/* What a cascade has deferred since the clock ran. */
static ts_counters counted(const ts_probe *all) {
  ts_counters found = sum_counters(all);
  found.rows -= all->first.rows;
  found.deferred -= all->first.deferred;
  for (int32_t stage = 0; stage < found.stages; ++stage)
    found.answered[stage] -= all->first.answered[stage];
  return found;
}

static void print_machine(void) {
  char line[512], name[256] = "";
  struct utsname names;
  FILE *file = fopen("/proc/cpuinfo", "r");
  while (file && !*name && fgets(line, sizeof line, file)) {
    char *colon = strchr(line, ':');
    if (!colon || strncmp(line, "model name", 10)) continue;
    colon[1 + strcspn(colon + 1, "\n")] = 0;
    snprintf(name, sizeof name, "%s", colon + 1 + strspn(colon + 1, " "));
  }
  if (file) fclose(file);
  if (uname(&names)) memset(&names, 0, sizeof names);
  printf("\"machine\": {\"processor\": ");
  print_json_string(*name ? name : names.machine);
  printf(", \"cores\": %d, \"architecture\": ", ts_cpu_count());
  print_json_string(names.machine);
  printf("}");
}

typedef struct {
  int64_t *nanoseconds, calls, peak;
  double wall, cpu, joules, bytes_per_second;
  const char *no_energy;
  ts_counters counters;
} findings;

static findings gather(const ts_probe *all) {
  findings found = {0};
  for (int32_t i = 0; i < all->instances; ++i) found.calls += all->probers[i].calls;
  found.nanoseconds = allocate((size_t)found.calls * sizeof *found.nanoseconds);
  int64_t at = 0;
  for (int32_t i = 0; i < all->instances; ++i) {
    const prober *p = &all->probers[i];
    if (p->calls) memcpy(found.nanoseconds + at, p->nanoseconds, (size_t)p->calls * sizeof(int64_t));
    at += p->calls;
    found.cpu -= (double)p->spun * 1e-9;
    found.bytes_per_second += p->bytes_per_second;
  }
  sort_times(found.nanoseconds, found.calls);
  return found;
}

static void print_cascade(const ts_counters *counters) {
  printf(", \"cascade\": ");
  if (!counters->stages) {
    printf("null");
    return;
  }
  printf("{\"rows\": %" PRId64 ", \"deferred\": %" PRId64 ", \"answered\": [", counters->rows,
         counters->deferred);
  for (int32_t stage = 0; stage < counters->stages; ++stage)
    printf("%s%" PRId64, stage ? ", " : "", counters->answered[stage]);
  printf("]}");
}

static void print_json(const ts_probe *all, const findings *found) {
  const int64_t *sorted = found->nanoseconds, calls = found->calls;
  double total = 0;
  for (int64_t i = 0; i < calls; ++i) total += (double)sorted[i] * 1e-9;
  printf("{\"schema\": \"tensmith-probe/1\", \"model\": ");
  print_json_string(all->model->name);
  printf(", ");
  print_machine();
  printf(", \"instances\": %d, \"threads\": %d, \"batch\": %" PRId64 ", \"load\": ", all->instances,
         ts_threads(all->probers[0].instance), all->chosen->batch ? all->chosen->batch : 1);
  if (all->due) printf("%.9g", all->chosen->load);
  else printf("null");
  printf(", \"calls\": %" PRId64 ", \"wall_seconds\": %.9g, \"cpu_seconds_per_call\": %.9g, "
         "\"peak_bytes\": %" PRId64 ", \"memory_bytes_per_second\": ",
         calls, found->wall, found->cpu / (double)calls, found->peak);
  if (found->bytes_per_second > 0) printf("%.6g", found->bytes_per_second);
  else printf("null");
  printf(", \"joules\": ");
  if (*found->no_energy) printf("null, \"no_energy\": ");
  else printf("%.9g, \"no_energy\": ", found->joules);
  print_json_string(found->no_energy);
  print_cascade(&found->counters);
  print_cache_json(all->settings->cache);
  printf(", \"seconds\": {\"mean\": %.9g, \"p50\": %.9g, \"p90\": %.9g, \"p99\": %.9g, \"min\": %.9g, "
         "\"max\": %.9g, \"quantiles\": [",
         total / (double)calls, percentile(sorted, calls, 50), percentile(sorted, calls, 90),
         percentile(sorted, calls, 99), (double)sorted[0] * 1e-9, (double)sorted[calls - 1] * 1e-9);
  for (int i = 0; i < QUANTILES; ++i)
    printf("%s%.6g", i ? ", " : "", percentile(sorted, calls, (i + 0.5) * 100 / QUANTILES));
  printf("]}}\n");
}

static void print_text(const ts_probe *all, const findings *found) {
  const int64_t *sorted = found->nanoseconds, calls = found->calls;
  printf("%s %" PRId64 " calls in %.3g s, %d instance(s) of %d thread(s)\n",
         all->due ? "served" : "ran", calls, found->wall, all->instances,
         ts_threads(all->probers[0].instance));
  printf("%s: median %.6g ms, p90 %.6g ms, p99 %.6g ms\n", all->due ? "wait and run" : "a run",
         percentile(sorted, calls, 50) * 1e3, percentile(sorted, calls, 90) * 1e3,
         percentile(sorted, calls, 99) * 1e3);
  printf("processor time %.6g ms a call, memory %.4g MB at most\n",
         found->cpu / (double)calls * 1e3, (double)found->peak * 1e-6);
  const ts_counters *counters = &found->counters;
  if (counters->stages && !counters->rows) printf("cascade: no rows\n");
  else if (counters->stages)
    printf("cascade: %" PRId64 " of %" PRId64 " rows deferred (%.3g %%)\n", counters->deferred,
           counters->rows, 100.0 * (double)counters->deferred / (double)counters->rows);
  if (*found->no_energy) printf("energy: %s\n", found->no_energy);
  else printf("energy %.6g mJ a call, of the whole processor\n", found->joules / (double)calls * 1e3);
}

static void measure(ts_probe *all) {
  energy before, after;
  pthread_barrier_wait(&all->ready);
  all->first = sum_counters(all);
  const double cpu = cpu_seconds();
  read_energy(&before);
  all->begin = now();
  all->deadline = all->begin + (int64_t)(all->chosen->duration * 1e9);
  pthread_barrier_wait(&all->ready);
  pthread_barrier_wait(&all->ready);
  const double wall = (double)(now() - all->begin) * 1e-9, used = cpu_seconds() - cpu;
  const int64_t peak = peak_bytes();
  read_energy(&after);
  const ts_counters counters = counted(all);
  pthread_barrier_wait(&all->ready);
  for (int32_t i = 0; i < all->instances; ++i) pthread_join(all->probers[i].thread, NULL);
  findings found = gather(all);
  found.wall = wall;
  found.counters = counters;
  found.peak = peak;
  found.cpu += used;
  found.joules = joules_between(&before, &after);
  found.no_energy = after.reason;
  if (all->chosen->json) print_json(all, &found);
  else print_text(all, &found);
  free(found.nanoseconds);
}

void probe(const ts_model *model, const options *given, const ts_options *settings,
           const array *inputs) {
  options chosen = *given;
  if (!chosen.batch) chosen.batch = 1;
  if (chosen.duration <= 0) chosen.duration = 1;
  const int32_t threads = chosen.threads ? chosen.threads : ts_cpu_count();
  const int32_t fitting = ts_cpu_count() / threads;
  ts_probe all = {.model = model, .chosen = &chosen, .settings = settings, .inputs = inputs};
  all.instances = chosen.instances ? chosen.instances : fitting ? fitting : 1;
  all.cuts = allocate((size_t)model->input_count * sizeof *all.cuts);
  all.runs = plan_cuts(model, inputs, chosen.batch, all.cuts);
  if (chosen.load > 0) plan_arrivals(&all);
  all.probers = allocate((size_t)all.instances * sizeof *all.probers);
  pthread_barrier_init(&all.ready, NULL, (unsigned)all.instances + 1);
  for (int32_t i = 0; i < all.instances; ++i) {
    prober *p = &all.probers[i];
    p->all = &all;
    if (pthread_create(&p->thread, NULL, work, p)) die(EXIT_RUN, "threads could not be started");
  }
  measure(&all);
  for (int32_t i = 0; i < all.instances; ++i) {
    prober *p = &all.probers[i];
    ts_destroy(p->instance);
    free(p->slices);
    free(p->shapes);
    free(p->outputs);
    free(p->nanoseconds);
  }
  pthread_barrier_destroy(&all.ready);
  free(all.probers);
  free(all.cuts);
  free(all.due);
}
