/* Reads batches, and makes the memory that their candidates work on. */
#include "measure.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void ts_die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(3);
}

uint8_t *ts_memory(int64_t bytes) {
  void *found = NULL;
  if (bytes < 0 || posix_memalign(&found, 64, (size_t)bytes + SLACK))
    ts_die("no memory for %" PRId64 " bytes", bytes);
  memset(found, 0, (size_t)bytes + SLACK);
  return found;
}

uint8_t *ts_small_pages(int64_t bytes) {
  void *found = mmap(NULL, (size_t)bytes + SLACK, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (found == MAP_FAILED) ts_die("no memory for %" PRId64 " bytes", bytes);
  madvise(found, (size_t)bytes + SLACK, MADV_NOHUGEPAGE); /* not known to every kernel */
  return found;
}

static int read_piece(ts_piece *p, const char *line) {
  if (sscanf(line, "input %" SCNd64 " %" SCNd64, &p->bytes, &p->offset) == 2) p->kind = INPUT;
  else if (sscanf(line, "weights %" SCNd64 " %" SCNd64, &p->bytes, &p->offset) == 2)
    p->kind = WEIGHTS;
  else if (sscanf(line,
                  "packed %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64
                  " %" SCNd64,
                  &p->bytes, &p->offset, &p->element, &p->rows, &p->columns, &p->width,
                  &p->matrices) == 7)
    p->kind = PACKED;
  else if (sscanf(line, "output %" SCNd64 " %7s", &p->bytes, p->type) == 2) p->kind = OUTPUT;
  else return 0;
  return 1;
}

static int read_candidate(ts_candidate *c, const char *line) {
  int used = 0;
  if (!strncmp(line, "absent", 6)) return 1;
  if (sscanf(line, "candidate %63s %d %lf %" SCNd64 " %" SCNd64 " %d%n", c->symbol, &c->exact,
             &c->tolerance, &c->scratch_bytes, &c->end, &c->divided, &used) != 6)
    return 0;
  c->present = 1;
  for (char *end, *rest = (char *)line + used; c->operand_count < MOST_OPERANDS; rest = end) {
    const long number = strtol(rest, &end, 10);
    if (end == rest) break;
    c->operands[c->operand_count++] = (int)number;
  }
  return 1;
}

static void check_sizes(const ts_batch *b) {
  for (int i = 0; i < b->piece_count; i++) {
    const ts_piece *p = &b->pieces[i];
    int64_t bytes = p->kind == OUTPUT ? 0 : p->bytes;
    if (p->kind == PACKED) bytes = p->element * p->rows * p->columns * p->matrices;
    if (p->offset < 0 || bytes < 0 || p->offset + bytes > b->data_bytes)
      ts_die("data.bin ends before operand %d", i);
  }
  for (int i = 0; i < b->candidate_count; i++)
    for (int k = 0; k < b->candidates[i].operand_count; k++)
      if (b->candidates[i].operands[k] < 0 || b->candidates[i].operands[k] >= b->piece_count)
        ts_die("candidate %d has an operand that there is not", i);
}

static void map_data(ts_batch *b, const char *path) {
  struct stat status;
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0 || fstat(file, &status)) ts_die("cannot read '%s'", path);
  b->data_bytes = status.st_size;
  if (b->data_bytes) {
    b->data = mmap(NULL, (size_t)b->data_bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (b->data == MAP_FAILED) ts_die("cannot map '%s'", path);
  }
  close(file);
}

static void load_code(ts_batch *b, const char *path) {
  void *code = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!code) ts_die("%s", dlerror());
  for (int i = 0; i < b->candidate_count; i++) {
    ts_candidate *c = &b->candidates[i];
    if (!c->present) continue;
    *(void **)&c->run = dlsym(code, c->symbol);
    if (!c->run) ts_die("code.so has no '%s'", c->symbol);
  }
}

void ts_batch_read(ts_batch *b, const char *folder) {
  static char path[4096], line[4096];
  snprintf(path, sizeof path, "%s/batch.txt", folder);
  FILE *file = fopen(path, "r");
  if (!file) ts_die("cannot read '%s'", path);
  memset(b, 0, sizeof *b);
  if (!fgets(line, sizeof line, file) ||
      sscanf(line, "batch 1 %d %" SCNd64, &b->threads, &b->evicted) != 2)
    ts_die("'%s' is no batch that this program knows", path);
  while (fgets(line, sizeof line, file)) {
    if (b->piece_count == MOST_PIECES || b->candidate_count == MOST_CANDIDATES)
      ts_die("'%s' is too large", path);
    if (read_piece(&b->pieces[b->piece_count], line)) b->piece_count++;
    else if (read_candidate(&b->candidates[b->candidate_count], line)) b->candidate_count++;
    else ts_die("'%s' has a line that this program does not know: %s", path, line);
  }
  fclose(file);
  snprintf(path, sizeof path, "%s/data.bin", folder);
  map_data(b, path);
  check_sizes(b);
  snprintf(path, sizeof path, "%s/code.so", folder);
  load_code(b, path);
}

static void pack(const ts_piece *p, const uint8_t *from, uint8_t *to) {
  const int64_t panels = (p->columns + p->width - 1) / p->width;
  for (int64_t m = 0; m < p->matrices; m++)
    for (int64_t panel = 0; panel < panels; panel++) {
      const int64_t first = panel * p->width, left = p->columns - first;
      const int64_t count = left < p->width ? left : p->width;
      for (int64_t row = 0; row < p->rows; row++) {
        const int64_t target = ((m * panels + panel) * p->rows + row) * p->width;
        const int64_t source = (m * p->rows + row) * p->columns + first;
        memcpy(to + target * p->element, from + source * p->element,
               (size_t)(count * p->element));
      }
    }
}

static uint8_t *filled(const ts_batch *b, const ts_piece *p) {
  uint8_t *memory = p->kind == WEIGHTS || p->kind == PACKED ? ts_small_pages(p->bytes)
                                                            : ts_memory(p->bytes);
  if (p->kind == PACKED) {
    const int64_t panels = (p->columns + p->width - 1) / p->width;
    if (panels * p->width * p->rows * p->matrices * p->element > p->bytes)
      ts_die("a packed operand is larger than its memory");
    pack(p, b->data + p->offset, memory);
  } else if (p->kind != OUTPUT && p->bytes) {
    memcpy(memory, b->data + p->offset, (size_t)p->bytes);
  }
  return memory;
}

void ts_call_prepare(ts_batch *b, int number, uint8_t *const *outputs, ts_call *call) {
  const ts_candidate *c = &b->candidates[number];
  memset(call, 0, sizeof *call);
  call->candidate = c;
  for (int i = 0; i < c->operand_count; i++) {
    ts_piece *p = &b->pieces[c->operands[i]];
    if (p->kind == OUTPUT && outputs) {
      call->operands[i] = outputs[c->operands[i]];
      continue;
    }
    if (!p->memory) p->memory = filled(b, p);
    call->operands[i] = p->memory;
  }
  call->scratch = ts_memory(c->scratch_bytes * b->threads + 64);
}

void ts_call_release(ts_call *call) {
  free(call->scratch);
  call->scratch = NULL;
}
