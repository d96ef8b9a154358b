/* The measuring program: it checks and times several ways to compute the same kernel.
 *
 * It is no part of artifacts. What it measures is a batch: a folder with `code.so`, `data.bin` and
 * `batch.txt`, whose lines are
 *
 *   batch 1 THREADS EVICTED         threads; bytes of other memory that are read between calls
 *   input BYTES OFFSET              memory that holds what `data.bin` has there
 *   weights BYTES OFFSET            the same, of a constant
 *   packed BYTES OFFSET ELEMENT ROWS COLUMNS WIDTH MATRICES
 *                                   a constant: row-major matrices in `data.bin`, of which each
 *                                   is stored as [panels][rows][width], zeros behind the columns
 *   output BYTES TYPE               memory that is written: f64 f32 f16 bf16, or b: bytes
 *   candidate SYMBOL EXACT TOLERANCE SCRATCH END DIVIDED NUMBER...
 *                                   a function; bytes of scratch memory for a thread; iterations
 *                                   that a call has; whether threads divide them; numbers of the
 *                                   pieces of memory above that are its operands
 *   absent                          a candidate that could not be built
 */
#ifndef TENSMITH_MEASURE_H_
#define TENSMITH_MEASURE_H_

#include <stddef.h>
#include <stdint.h>

enum { INPUT, WEIGHTS, PACKED, OUTPUT };
enum { MOST_PIECES = 4096, MOST_CANDIDATES = 256, MOST_OPERANDS = 64, SLACK = 4096 };

typedef struct {
  int kind;
  int64_t bytes, offset, element, rows, columns, width, matrices;
  char type[8];
  uint8_t *memory; /* NULL until it is needed; SLACK more bytes are behind it */
} ts_piece;

typedef struct {
  char symbol[64];
  int present, exact, divided, operand_count;
  double tolerance; /* of the largest element of an output */
  int64_t scratch_bytes, end;
  int operands[MOST_OPERANDS];
  void (*run)(void *const *operands, void *scratch, int64_t begin, int64_t end);
} ts_candidate;

typedef struct {
  int threads, piece_count, candidate_count;
  int64_t evicted;
  ts_piece pieces[MOST_PIECES];
  ts_candidate candidates[MOST_CANDIDATES];
  const uint8_t *data;
  int64_t data_bytes;
} ts_batch;

/* A batch that is ready to be called: operands and scratch memory of one candidate. */
typedef struct {
  const ts_candidate *candidate;
  void *operands[MOST_OPERANDS];
  uint8_t *scratch;
} ts_call;

/* measure_batch.c. All end the program with a message where something is wrong. */
void ts_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void ts_batch_read(ts_batch *batch, const char *folder);
uint8_t *ts_memory(int64_t bytes);
uint8_t *ts_small_pages(int64_t bytes); /* as constants of a model have: pages of a file */
/* outputs: memory for outputs in place of the pieces' own, or NULL. */
void ts_call_prepare(ts_batch *batch, int candidate, uint8_t *const *outputs, ts_call *call);
void ts_call_release(ts_call *call);

/* measure_check.c. Compares all candidates with the first; prints a line for each that differs. */
int ts_check(ts_batch *batch, int64_t timeout_ms);

/* measure_machine.c. Prints what is known of this machine, a line "name value" for each fact. */
int ts_machine(void);
/* Bytes of the largest data cache, and of that of a level, or 0. */
int64_t ts_largest_cache(void);
int64_t ts_cache_bytes(int level);

#endif /* TENSMITH_MEASURE_H_ */
