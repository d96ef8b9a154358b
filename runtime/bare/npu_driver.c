/* A stand-in for Arm's driver of an Ethos-U in programs for an emulator: what runs command streams
 * is at the other end of two pipes in the folder of the emulator's process. All numbers are little
 * endian.
 *
 * npu_requests: u32 regions, u32 bytes of the command stream, the stream; of every region: u32
 * bytes, the bytes.
 * npu_answers: i32 status; of every region: u32 bytes (0: nothing in it has changed), the bytes.
 */
#include "bare.h"
#include "semihosting.h"

enum { FAST_BYTES = 4 << 20, FAST_ALIGNMENT = 16, PATIENCE = 1000 };

struct ethosu_driver;
int ethosu_invoke_v3(struct ethosu_driver *driver, const void *commands, const int bytes,
                     uint64_t *const bases, const size_t *sizes, const int count, void *user);
void *tensmith_npu_fast_memory(size_t bytes);

static int32_t requests = -1, answers = -1;
static uint8_t fast[FAST_BYTES] __attribute__((aligned(FAST_ALIGNMENT)));

static int open_pipes(void) {
  static const char to[] = "npu_requests", from[] = "npu_answers";
  if (requests < 0) requests = sh_open(to, sizeof to - 1, SH_MODE_WRITE);
  if (answers < 0) answers = sh_open(from, sizeof from - 1, SH_MODE_READ);
  return requests >= 0 && answers >= 0;
}

/* A pipe takes and gives parts; nothing at all, many times in a row: nobody is at its other end. */
static int put(const void *from, size_t bytes) {
  for (int32_t tries = 0; bytes && tries < PATIENCE; ++tries) {
    const size_t done = sh_write_part(requests, from, bytes);
    if (done) tries = 0;
    from = (const uint8_t *)from + done;
    bytes -= done;
  }
  return !bytes;
}

static int get(void *to, size_t bytes) {
  for (int32_t tries = 0; bytes && tries < PATIENCE; ++tries) {
    const size_t done = sh_read(answers, to, bytes);
    if (done) tries = 0;
    to = (uint8_t *)to + done;
    bytes -= done;
  }
  return !bytes;
}

int ethosu_invoke_v3(struct ethosu_driver *driver, const void *commands, const int bytes,
                     uint64_t *const bases, const size_t *sizes, const int count, void *user) {
  const uint32_t head[] = {(uint32_t)count, (uint32_t)bytes};
  int32_t status;
  (void)driver, (void)user;
  if (!open_pipes() || !put(head, sizeof head) || !put(commands, head[1])) return -1;
  for (int i = 0; i < count; ++i) {
    const uint32_t size = (uint32_t)sizes[i];
    if (!put(&size, sizeof size) || !put((const void *)(uintptr_t)bases[i], size)) return -1;
  }
  if (!get(&status, sizeof status)) return -1;
  for (int i = 0; i < count; ++i) {
    uint32_t size;
    if (!get(&size, sizeof size) || size > sizes[i]) return -1;
    if (!get((void *)(uintptr_t)bases[i], size)) return -1;
  }
  return status;
}

void *tensmith_npu_fast_memory(size_t bytes) { return bytes <= sizeof fast ? fast : NULL; }
