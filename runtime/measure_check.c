/* Whether candidates compute what the first one does: each in a process of its own. */
#include "measure.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

enum { POISON = 0xff }; /* all bits set are NaN in every float */
enum { SAME, DIFFERS, BEYOND }; /* what a child finds */

typedef struct {
  int found, output;
  int64_t place;
  double got, wanted, largest;
} finding;

static uint8_t *shared(int64_t bytes) {
  void *found = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (found == MAP_FAILED) ts_die("no memory for %" PRId64 " bytes", bytes);
  return found;
}

/* The value of a float's bits of 8 or fewer exponent bits, by widening to f32. */
static double half(uint16_t bits) {
  const int sign = bits >> 15, exponent = bits >> 10 & 31, mantissa = bits & 1023;
  if (exponent == 31) return mantissa ? NAN : sign ? -INFINITY : INFINITY;
  const double size = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
  return sign ? -size : size;
}

static double element(const char *type, const uint8_t *start, int64_t place) {
  if (!strcmp(type, "f64")) return ((const double *)start)[place];
  if (!strcmp(type, "f32")) return ((const float *)start)[place];
  if (!strcmp(type, "f16")) return half(((const uint16_t *)start)[place]);
  if (!strcmp(type, "bf16")) {
    const uint32_t wide = (uint32_t)((const uint16_t *)start)[place] << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
  }
  return start[place];
}

static int64_t width(const char *type) {
  return !strcmp(type, "f64") ? 8 : !strcmp(type, "f32") ? 4 : !strcmp(type, "b") ? 1 : 2;
}

static finding compare(const ts_candidate *c, const ts_piece *p, const uint8_t *got,
                       const uint8_t *wanted) {
  finding found = {SAME, 0, 0, 0, 0, 0};
  const int64_t count = p->bytes / width(p->type);
  for (int64_t i = 0; i < count; i++) {
    const double size = fabs(element(p->type, wanted, i));
    if (isfinite(size) && size > found.largest) found.largest = size;
  }
  const int bytes = !strcmp(p->type, "b");
  const double limit = c->exact ? 0 : bytes ? 1 : c->tolerance * found.largest;
  for (int64_t i = 0; i < count; i++) {
    const int64_t at = i * width(p->type);
    if (!memcmp(got + at, wanted + at, (size_t)width(p->type))) continue;
    found.got = element(p->type, got, i), found.wanted = element(p->type, wanted, i);
    const int nans = isnan(found.got) && isnan(found.wanted);
    if (!c->exact && (nans || found.got == found.wanted ||
                      fabs(found.got - found.wanted) <= limit))
      continue;
    found.found = DIFFERS;
    found.place = i;
    return found;
  }
  for (int64_t i = 0; i < SLACK; i++)
    if (got[p->bytes + i] != POISON) found.found = BEYOND;
  return found;
}

static void run_in_parts(const ts_batch *b, const ts_call *call) {
  const ts_candidate *c = call->candidate;
  const int parts = c->divided && b->threads > 1 ? b->threads : 1;
  ts_fp_flush();
  for (int i = 0; i < parts; i++) {
    const int64_t begin = c->end * i / parts, end = c->end * (i + 1) / parts;
    c->run(call->operands, call->scratch, begin, end);
  }
}

/* What a child does: the candidate on poisoned outputs, which it compares with those of the base. */
static void child(ts_batch *b, int number, uint8_t *const *base, finding *result) {
  static uint8_t *outputs[MOST_PIECES];
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (int i = 0; i < b->piece_count; i++) {
    if (b->pieces[i].kind != OUTPUT) continue;
    outputs[i] = number ? ts_memory(b->pieces[i].bytes) : base[i];
    memset(outputs[i], POISON, (size_t)b->pieces[i].bytes + SLACK);
  }
  ts_call call;
  ts_call_prepare(b, number, outputs, &call);
  run_in_parts(b, &call);
  const ts_candidate *c = call.candidate;
  for (int i = 0, output = 0; number && i < c->operand_count; i++) {
    const int piece = c->operands[i];
    if (b->pieces[piece].kind != OUTPUT) continue;
    *result = compare(c, &b->pieces[piece], outputs[piece], base[piece]);
    result->output = output++;
    if (result->found != SAME) return;
  }
}

static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Waits for a child; 0 when it did not end in time and was ended. */
static int ended(pid_t process, int64_t timeout_ms, int *status) {
  const int64_t limit = now_ms() + timeout_ms;
  for (useconds_t pause = 100; waitpid(process, status, WNOHANG) == 0; usleep(pause)) {
    if (pause < 5000) pause *= 2;
    if (now_ms() < limit) continue;
    kill(process, SIGKILL);
    waitpid(process, status, 0);
    return 0;
  }
  return 1;
}

static int tell(int number, int in_time, int status, const finding *result) {
  if (!in_time) printf("check %d hang\n", number);
  else if (WIFSIGNALED(status)) printf("check %d signal %d\n", number, WTERMSIG(status));
  else if (WEXITSTATUS(status)) printf("check %d exit %d\n", number, WEXITSTATUS(status));
  else if (result->found == BEYOND) printf("check %d beyond %d\n", number, result->output);
  else if (result->found == DIFFERS)
    printf("check %d differs %d %" PRId64 " %.9g %.9g %.9g\n", number, result->output,
           result->place, result->got, result->wanted, result->largest);
  else printf("check %d same\n", number);
  fflush(stdout);
  return in_time && !status;
}

int ts_check(ts_batch *b, int64_t timeout_ms) {
  static uint8_t *base[MOST_PIECES];
  for (int i = 0; i < b->piece_count; i++)
    if (b->pieces[i].kind == OUTPUT) base[i] = shared(b->pieces[i].bytes + SLACK);
  finding *result = (finding *)shared(sizeof *result);
  for (int i = 0; i < b->candidate_count; i++) {
    if (!b->candidates[i].present) continue;
    memset(result, 0, sizeof *result);
    fflush(stdout);
    const pid_t process = fork();
    if (process < 0) ts_die("cannot start a process");
    if (!process) {
      child(b, i, base, result);
      _exit(0);
    }
    int status = 0;
    const int in_time = ended(process, timeout_ms, &status);
    if (!tell(i, in_time, status, result) && i == 0) break; /* nothing to compare with */
  }
  return 0;
}
