/* Models whose kernels run on NVIDIA's GPUs: their code, and the services that run it. */
#ifndef TENSMITH_CUDA_H_
#define TENSMITH_CUDA_H_

#include "../internal.h"

/* Code of a function for one architecture (80: compute capability 8.0). */
typedef struct {
  int32_t architecture;
  int32_t ptx;     /* text that the driver compiles, for this architecture and later ones */
  uint64_t offset; /* in ts_device_code.images */
  uint32_t threads;
  uint32_t shared; /* bytes of shared memory that a launch asks for */
  int32_t waits;   /* for the launch before, by itself: it may be launched while that runs */
} ts_image;

/* places, sizes: how many pointers, then i64, a function takes; behind them come two pointers to
 * memory, of which functions with tensor maps use the first, and no other one any. part: functions with equal numbers compute the same, for different
 * architectures, some of which take several; only those run that have the best image of all.
 * alternative: those of one part with other numbers compute it for the same GPUs, in another way; of
 * these one runs, the first (0) or what a run has found to be the fastest. scratch: whether the last of
 * the places is memory for the first of the two pointers behind all else. */
typedef struct {
  const char *name;
  int32_t places, sizes, image_count;
  const ts_image *images;
  int32_t part, alternative, scratch;
} ts_function;

struct ts_device_code {
  const uint8_t *images;
  const ts_function *functions;
  int32_t function_count;
  const uint8_t *host_reads; /* [input]: whether the host reads it, too */
  const char *architectures; /* for messages */
  const char *target;
  const char *digest; /* of functions and images: hexadecimal */
};

TS_LOCAL extern const ts_device_services ts_cuda;

#endif /* TENSMITH_CUDA_H_ */
