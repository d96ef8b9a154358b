/* A file may hold several codes of one part of a kernel, of which the first run takes the fastest: each is
 * launched several times between two events, on the tensors of that run, in its place. All compute
 * the same from operands that they leave as they are, so that what the last one leaves is the result.
 *
 * What was found counts for all instances of the process on GPUs of that name. TENSMITH_GPU_CHOICES names a file that
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

__attribute__((destructor)) static void forget(void) {
  for (choice *next; known; known = next) {
    next = known->next;
    free(known);
  }
}

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

/* What this process has found for a part, or -1. The lock is held. */
static int32_t known_for(const gpu *device, const struct ts_device_code *code, int32_t part) {
  for (const choice *at = known; at; at = at->next)
    if (is_of(at, device, code, part)) return at->alternative;
  return -1;
}

/* The choice for a part of this process, or of the file at a path (NULL: there is none), whose last
 * line on it counts; -1: it was not timed. */
static int32_t recalled(const gpu *device, const struct ts_device_code *code, int32_t part,
                        const char *path) {
  pthread_mutex_lock(&lock);
  int32_t found = known_for(device, code, part);
  pthread_mutex_unlock(&lock);
  FILE *file = found < 0 && path ? fopen(path, "r") : NULL;
  if (!file) return found;
  char line[LINE_BYTES], digest[LINE_BYTES], name[LINE_BYTES];
  int own, alternative;
  while (fgets(line, sizeof line, file))
    if (sscanf(line, "%511s %d %d %511[^\n]", digest, &own, &alternative, name) == 4 &&
        own == part && !strcmp(digest, code->digest) && !strcmp(name, device->name))
      found = alternative;
  fclose(file);
  return found;
}

/* Keeps a choice, unless another instance has made one meanwhile; returns what is kept. Where there is
 * no memory, or the file cannot be written, others time anew. */
static int32_t remember(const gpu *device, const struct ts_device_code *code, int32_t part,
                        int32_t alternative) {
  int off = 0;
  const char *path = kept_in(&off);
  pthread_mutex_lock(&lock);
  const int32_t before = known_for(device, code, part);
  choice *made = before < 0 ? calloc(1, sizeof *made) : NULL;
  if (made) {
    *made = (choice){.digest = code->digest, .part = part, .alternative = alternative, .next = known};
    snprintf(made->gpu, sizeof made->gpu, "%s", device->name);
    known = made;
  }
  FILE *file = before < 0 && path ? fopen(path, "a") : NULL;
  if (file) {
    fprintf(file, "%s %d %d %s\n", code->digest, (int)part, (int)alternative, device->name);
    fclose(file);
  }
  pthread_mutex_unlock(&lock);
  return before < 0 ? alternative : before;
}

/* The first alternative of a part that there is on this GPU, or -1. */
static int32_t first_of(const gpu *device, const struct ts_device_code *code, int32_t part) {
  int32_t first = -1;
  for (int32_t f = 0; f < code->function_count; ++f) {
    const ts_function *function = &code->functions[f];
    if (function->part == part && device->images[f] && (first < 0 || function->alternative < first))
      first = function->alternative;
  }
  return first;
}

/* Has one alternative compute a part, if there is that on this GPU; whether there is. */
static int take(gpu *device, const struct ts_device_code *code, int32_t part, int32_t alternative) {
  int there = 0;
  for (int32_t f = 0; f < code->function_count; ++f)
    there |= device->images[f] && code->functions[f].part == part &&
             code->functions[f].alternative == alternative;
  for (int32_t f = 0; there && f < code->function_count; ++f)
    if (code->functions[f].part == part && code->functions[f].alternative != alternative)
      device->images[f] = NULL;
  return there;
}

int32_t ts_cuda_fit(gpu *device, const struct ts_device_code *code, uint32_t shared) {
  for (int32_t f = code->function_count; f-- > 0;) {
    const ts_image *image = device->images[f];
    if (!image || image->shared <= shared) continue;
    const ts_function *large = &code->functions[f];
    for (int32_t g = 0; g < code->function_count; ++g)
      if (code->functions[g].part == large->part &&
          code->functions[g].alternative == large->alternative)
        device->images[g] = NULL;
    if (first_of(device, code, large->part) >= 0) continue;
    device->images[f] = image;
    return f;
  }
  return -1;
}

/* Whether a part has several alternatives on this GPU. */
static int is_open(const gpu *device, const struct ts_device_code *code, int32_t part) {
  const int32_t first = first_of(device, code, part);
  for (int32_t f = 0; f < code->function_count; ++f)
    if (code->functions[f].part == part && device->images[f] &&
        code->functions[f].alternative != first)
      return 1;
  return 0;
}

int ts_cuda_is_untimed(const gpu *device, const struct ts_device_code *code) {
  for (int32_t f = 0; f < code->function_count; ++f)
    if (is_open(device, code, code->functions[f].part)) return 1;
  return 0;
}

void ts_cuda_recall(gpu *device, const struct ts_device_code *code) {
  int off = 0;
  const char *path = kept_in(&off);
  for (int32_t f = 0; f < code->function_count; ++f) {
    const int32_t part = code->functions[f].part;
    if (!is_open(device, code, part)) continue;
    take(device, code, part,
         off ? first_of(device, code, part) : recalled(device, code, part, path));
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

/* Whether the driver refuses a launch for what it asks, and goes on with others. */
static int is_refused(CUresult error) {
  return error == CUDA_ERROR_INVALID_VALUE || error == CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
}

/* The least time of several rounds, in milliseconds for all their launches. */
static CUresult timed(gpu *device, const struct ts_device_code *code, int64_t *words, size_t count,
                      int32_t alternative, CUevent *events, CUstream stream, float *least) {
  CUresult error = 0;
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

/* Times the alternatives of a call; best: the fastest of those that the driver launches. Where it
 * refuses all, the error is that of the first. */
static CUresult time_all(gpu *device, const struct ts_device_code *code, int64_t *words, size_t count,
                         CUevent *events, CUstream stream, int32_t *best) {
  CUresult refused = 0;
  float least = 0;
  *best = -1;
  for (size_t at = 0, next; at < count; at = next) {
    const int32_t alternative = code->functions[words[at]].alternative;
    next = at;
    while (next < count && code->functions[words[next]].alternative == alternative)
      next += ts_cuda_launch_words(code, &words[next]);
    if (!device->images[words[at]]) continue;
    float took = 0;
    CUresult error = launch_all(device, code, words, count, alternative, stream);
    if (is_refused(error)) {
      if (!refused) refused = error;
      continue;
    }
    if (!error) error = timed(device, code, words, count, alternative, events, stream, &took);
    if (error) return error;
    if (*best < 0 || took < least) {
      *best = alternative;
      least = took;
    }
  }
  return *best < 0 ? refused : 0;
}

CUresult ts_cuda_settle(gpu *device, const struct ts_device_code *code, int64_t *words, size_t count,
                        CUstream stream, size_t *used) {
  *used = words_of_call(device, code, words, count);
  if (!*used) return 0;
  const int32_t part = code->functions[words[0]].part;
  int off = 0;
  const char *path = kept_in(&off);
  if (take(device, code, part, recalled(device, code, part, path))) {
    ++device->settled;
    *used = 0;
    return 0;
  }
  CUevent events[2] = {NULL, NULL};
  CUresult error = driver.event_create(&events[0], 0);
  if (error) events[0] = NULL;
  if (!error && (error = driver.event_create(&events[1], 0))) events[1] = NULL;
  int32_t best = -1;
  if (!error) error = time_all(device, code, words, *used, events, stream, &best);
  for (int i = 0; i < 2; ++i)
    if (events[i]) driver.event_destroy(events[i]);
  if (error) return error;
  if (!take(device, code, part, remember(device, code, part, best))) take(device, code, part, best);
  ++device->settled;
  return 0;
}
