/* What the parts of the fake driver share: see driver.c. */
#ifndef TENSMITH_FAKE_STATE_H
#define TENSMITH_FAKE_STATE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cuda/driver.h"

#define EXPORT __attribute__((visibility("default")))
#define SHARED __attribute__((visibility("hidden")))
enum { INVALID_VALUE = 1, NOT_INITIALIZED = 3, INVALID_CONTEXT = 201,
       INVALID_DEVICE = 101, NOT_FOUND = 500, NOT_READY = 600, LAUNCH_FAILED = 719, INVALID_HANDLE = 400,
       CAPTURING = 900, NOT_CAPTURING = 901, BLOCKED = 999 };
enum { HANGS = 2 }; /* what a launch function answers for one that never ends */
enum { MACHINE = 190, PARAMETER = 0x17, NEW_ABI = 65, USUAL_SHARED = 48 << 10, MAX_THREADS = 1024,
       ALIGNMENT = 256, POISON = 0xFF, NAME = 128, MAX_PARAMETERS = 128 };

typedef int (*launch_function)(const char *file, const char *kernel, unsigned programs, int count,
                               void **parameters);

struct CUctx_st { int references; };
struct CUstream_st { CUcontext context; CUgraph capturing; };

/* What is pretended, and what was counted; `lock` is for both. */
struct fake_state {
  pthread_mutex_t lock;
  int capability, shared_optin, hanging;
  size_t live_bytes, live_objects, graph_launches, early_launches;
  launch_function launched;
  double clock; /* milliseconds, as `tensmith_fake_advance` has it */
};
extern SHARED struct fake_state fake;
extern SHARED struct CUctx_st primary;

struct CUfunc_st {
  char name[NAME];
  int count, sizes[MAX_PARAMETERS], shared_limit;
  const char *file;
  CUfunction next;
};
struct CUmod_st { CUfunction functions; int ptx; const char *file; };

/* Why a call fails at its beginning: a failure that was asked for, or no context; 0 where it does not. */
SHARED CUresult begin(const char *function, int needs_context);
#define BEGIN(needs_context)                                \
  do {                                                      \
    const CUresult error_ = begin(__func__, needs_context); \
    if (error_) return error_;                              \
  } while (0)
/* Count objects that were made (1) or ended (-1). */
SHARED void object(int change);
/* Whether memory of the device holds all those bytes. */
SHARED int inside(CUdeviceptr address, size_t bytes);

#define READ(type, pointer) (__extension__({ type value_; memcpy(&value_, pointer, sizeof value_); value_; }))

#endif
