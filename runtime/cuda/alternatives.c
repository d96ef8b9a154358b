/* A file may hold several codes of one part of a kernel, of which the first run takes the fastest: each is
 * launched several times between two events, on the tensors of that run, in its place. All compute
 * the same from operands that they leave as they are, so that what the last one leaves is the result.
 *
 * What was found counts for all instances on GPUs of that name. TENSMITH_GPU_CHOICES names a file that
 * keeps it for other processes, or is "off": then nothing is timed, and the first of all is taken. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"

#define driver ts_cuda_driver
#define VARIABLE "TENSMITH_GPU_CHOICES"

enum { ROUNDS = 3, REPEATS = 5, LINE_BYTES = 512 };

typedef struct choice {
  char gpu[NAME_BYTES];
  const char *digest; /* of the model's device code */
  int32_t part, alternative;
  struct choice *next;
} choice;

static choice *known;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int is_of(const choice *found, const gpu *device, const struct ts_device_code *code,
                 int32_t part) {
  return found->part == part && !strcmp(found->digest, code->digest) &&
         !strcmp(found->gpu, device->name);
}

/* Where choices are kept beside this process; NULL: nowhere. off: whether nothing is to be timed. */
static const char *kept_in(int *off) {
  const char *path = getenv(VARIABLE);
  *off = path && !strcmp(path, "off");
  return path && *path && !*off ? path : NULL;
}

/* The choice for a part, or -1: it was not timed. */
static int32_t recalled(const gpu *device, const struct ts_device_code *code, int32_t part) {
  int off = 0;
  const char *path = kept_in(&off);
  int32_t found = off ? 0 : -1;
  pthread_mutex_lock(&lock);
  for (const choice *at = known; at && found < 0; at = at->next)
    if (is_of(at, device, code, part)) found = at->alternative;
  pthread_mutex_unlock(&lock);
  FILE *file = found < 0 && path ? fopen(path, "r") : NULL;
  if (!file) return found;
  char line[LINE_BYTES], digest[LINE_BYTES], name[LINE_BYTES];
  int own, alternative;
  while (found < 0 && fgets(line, sizeof line, file))
    if (sscanf(line, "%511s %d %d %511[^\n]", digest, &own, &alternative, name) == 4 &&
        own == part && !strcmp(digest, code->digest) && !strcmp(name, device->name))
      found = alternative;
  fclose(file);
  return found;
}

/* Keeps a choice. Where there is no memory, or the file cannot be written, others time anew. */
static void remember(const gpu *device, const struct ts_device_code *code, int32_t part,
                     int32_t alternative) {
  int off = 0;
  const char *path = kept_in(&off);
  choice *made = calloc(1, sizeof *made);
  pthread_mutex_lock(&lock);
  if (made) {
    *made = (choice){.digest = code->digest, .part = part, .alternative = alternative, .next = known};
    snprintf(made->gpu, sizeof made->gpu, "%s", device->name);
    known = made;
  }
  FILE *file = path ? fopen(path, "a") : NULL;
  if (file) {
    fprintf(file, "%s %d %d %s\n", code->digest, (int)part, (int)alternative, device->name);
    fclose(file);
  }
  pthread_mutex_unlock(&lock);
}

/* Has one alternative compute a part. */
static void take(gpu *device, const struct ts_device_code *code, int32_t part, int32_t alternative) {
  for (int32_t f = 0; f < code->function_count; ++f)
    if (code->functions[f].part == part && code->functions[f].alternative != alternative)
      device->images[f] = NULL;
}

/* Whether a part has several alternatives on this GPU. */
static int is_open(const gpu *device, const struct ts_device_code *code, int32_t part) {
  int32_t first = -1;
  for (int32_t f = 0; f < code->function_count; ++f) {
    const ts_function *function = &code->functions[f];
    if (function->part != part || !device->images[f]) continue;
    if (first < 0) first = function->alternative;
    if (function->alternative != first) return 1;
  }
  return 0;
}

int ts_cuda_is_untimed(const gpu *device, const struct ts_device_code *code) {
  for (int32_t f = 0; f < code->function_count; ++f)
    if (is_open(device, code, code->functions[f].part)) return 1;
  return 0;
}

void ts_cuda_recall(gpu *device, const struct ts_device_code *code) {
  for (int32_t f = 0; f < code->function_count; ++f) {
    const int32_t part = code->functions[f].part;
    if (!is_open(device, code, part)) continue;
    const int32_t chosen = recalled(device, code, part);
    int there = 0;
    for (int32_t g = 0; g < code->function_count; ++g)
      there |= device->images[g] && code->functions[g].part == part &&
               code->functions[g].alternative == chosen;
    if (there) take(device, code, part, chosen);
  }
  device->untimed = ts_cuda_is_untimed(device, code);
}

/* ---- Timing ---------------------------------------------------------------------------------- */

/* Launches those functions of items that are of an alternative, one behind the other. */
static CUresult launch_all(gpu *device, const struct ts_device_code *code, int64_t *words,
                           size_t count, int32_t alternative, CUstream stream) {
  for (size_t at = 0; at < count; at += ts_cuda_launch_words(code, &words[at])) {
    if (code->functions[words[at]].alternative != alternative) continue;
    const CUresult error = ts_cuda_launch(device, code, &words[at], 0, stream);
    if (error) return error;
  }
  return 0;
}

/* The least time of several rounds, in milliseconds for all their launches. */
static CUresult timed(gpu *device, const struct ts_device_code *code, int64_t *words, size_t count,
                      int32_t alternative, CUevent *events, CUstream stream, float *least) {
  CUresult error = launch_all(device, code, words, count, alternative, stream);
  for (int round = 0; round < ROUNDS && !error; ++round) {
    float took = 0;
    error = driver.event_record(events[0], stream);
    for (int i = 0; i < REPEATS && !error; ++i)
      error = launch_all(device, code, words, count, alternative, stream);
    if (!error) error = driver.event_record(events[1], stream);
    if (!error) error = driver.event_wait(events[1]);
    if (!error) error = driver.event_elapsed(&took, events[0], events[1]);
    if (!round || took < *least) *least = took;
  }
  return error;
}

/* The words of the alternatives of one call that begin a record; 0: they begin with no such part. */
static size_t words_of_call(const gpu *device, const struct ts_device_code *code,
                            const int64_t *words, size_t count) {
  if (words[0] < 0) return 0;
  const int32_t part = code->functions[words[0]].part;
  if (!is_open(device, code, part)) return 0;
  size_t at = 0;
  for (int32_t last = 0; at < count && words[at] >= 0; at += ts_cuda_launch_words(code, &words[at])) {
    const ts_function *function = &code->functions[words[at]];
    if (function->part != part || function->alternative < last) break;
    last = function->alternative;
  }
  return at;
}

CUresult ts_cuda_settle(gpu *device, const struct ts_device_code *code, int64_t *words, size_t count,
                        CUstream stream, size_t *used) {
  *used = words_of_call(device, code, words, count);
  if (!*used) return 0;
  const int32_t part = code->functions[words[0]].part;
  CUevent events[2] = {NULL, NULL};
  CUresult error = driver.event_create(&events[0], 0);
  if (error) events[0] = NULL;
  if (!error && (error = driver.event_create(&events[1], 0))) events[1] = NULL;
  int32_t best = 0, last = -1;
  float least = 0;
  for (size_t at = 0; at < *used && !error; at += ts_cuda_launch_words(code, &words[at])) {
    const int32_t alternative = code->functions[words[at]].alternative;
    if (alternative == last) continue;
    float took = 0;
    error = timed(device, code, words, *used, alternative, events, stream, &took);
    if (last < 0 || took < least) {
      best = alternative;
      least = took;
    }
    last = alternative;
  }
  for (int i = 0; i < 2; ++i)
    if (events[i]) driver.event_destroy(events[i]);
  if (error) return error;
  take(device, code, part, best);
  ++device->settled;
  remember(device, code, part, best);
  return 0;
}
