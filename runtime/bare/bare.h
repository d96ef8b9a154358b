/* A model without an operating system: what a caller gives a run, and what it learns of it.
 *
 * Nothing here allocates, prints or keeps state: all memory is the caller's, and several models, or
 * one from several tasks, may run at the same time on arenas of their own.
 */
#ifndef TENSMITH_BARE_H_
#define TENSMITH_BARE_H_

#include <stddef.h>
#include <stdint.h>

#include "plan_abi.h"

enum { TS_BARE_ALIGNMENT = 64 }; /* of an arena, in bytes */

typedef struct ts_bare_model {
  const char *name;
  ts_plan plan;
  const uint8_t *weights;
  int32_t input_count, output_count, symbol_count;
  const int32_t *output_ranks;
  const int32_t *output_item_bytes;
  const int32_t *input_defaults; /* NULL, or where in the weights an input's default is; -1: none */
} ts_bare_model;

typedef struct ts_bare_output {
  void *data;     /* NULL: memory of the arena is taken, and its address put here */
  size_t bytes;   /* of the memory; after the run: of the output */
  int64_t *shape; /* NULL, or room for the output's sizes */
} ts_bare_output;

typedef struct ts_bare_run {
  const void **inputs;       /* contiguous, aligned to their elements, in model order; NULL: the
                              * default, where the input has one, which the run puts there */
  const int64_t *symbols;    /* value of each input-bound symbolic dimension */
  ts_bare_output *outputs;
  void *arena; /* scratch memory; what a run leaves there counts for nothing */
  size_t arena_bytes;
  /* after the run: */
  size_t arena_used;   /* at most, even where that was too little */
  const char *message; /* what is wrong, where the status is not 0; else NULL */
} ts_bare_run;

/* Runs a model. Returns 0, or what ended the run: 2 an input does not fit the others, 3 an output's
 * memory is too small, 5 the arena is, 7 the model itself (an index out of range), 12 a loop goes on
 * for too many rounds; as `ts_status` of tensmith.h. */
int32_t ts_bare_run_model(const ts_bare_model *model, ts_bare_run *run);

#endif /* TENSMITH_BARE_H_ */
