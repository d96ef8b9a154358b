/* A program for an emulator: runs models on records of the file "inputs.bin" until it ends, and
 * answers each in "outputs.bin", in the folder of the emulator's process. All numbers are little
 * endian.
 *
 * inputs.bin, of each run: i32 model, i64 of every symbol; of every input: u32 bytes, the bytes
 * (2^32 - 1: it has its default).
 * outputs.bin, of each run: i32 status, u64 ticks of SysTick, u32 bytes of the arena, u32 bytes of
 * the stack, u32 bytes of the message, the message; where the status is 0, of every output:
 * i64 of every size, u32 bytes, the bytes.
 */
#include "bare.h"
#include "semihosting.h"

extern const ts_bare_model *const ts_firmware_models[];
extern uint8_t __memory_start[], __memory_end[], __stack_start[];
extern volatile uint32_t systick_wraps;

enum { MOST = 64, MOST_RANK = 32, CANARY = 0xA5, SPAN = 1 << 24 };

static volatile uint32_t *const systick = (volatile uint32_t *)0xE000E010; /* CSR, RVR, CVR */
static int32_t source, sink;
static const void *inputs[MOST];
static int64_t symbols[MOST], shapes[MOST][MOST_RANK];
static ts_bare_output outputs[MOST];

static void require(int held, const char *why) {
  if (held) return;
  sh_say(why);
  sh_exit(98);
}

static void get(void *to, size_t bytes) {
  require(sh_read(source, to, bytes) == bytes, "inputs.bin ends within a run\n");
}

static void put(const void *from, size_t bytes) {
  require(sh_write(sink, from, bytes), "outputs.bin cannot be written\n");
}

static uint8_t *aligned(uint8_t *at) {
  const uintptr_t rest = (uintptr_t)at % TS_BARE_ALIGNMENT;
  return rest ? at + TS_BARE_ALIGNMENT - rest : at;
}

static uint64_t now(void) {
  uint32_t wraps, left;
  do {
    wraps = systick_wraps;
    left = systick[2];
  } while (wraps != systick_wraps);
  return (uint64_t)wraps * SPAN + (SPAN - 1 - left);
}

/* Bytes of the stack below this place that were written since `paint`. */
static void paint(void) {
  uint8_t *end = (uint8_t *)__builtin_frame_address(0) - 256;
  for (uint8_t *at = __stack_start; at < end; ++at) *(volatile uint8_t *)at = CANARY;
}

static uint32_t depth(void) {
  const volatile uint8_t *at = __stack_start;
  const uint8_t *top = __builtin_frame_address(0);
  require(*at == CANARY, "the stack is too small\n");
  while (at < top && *at == CANARY) ++at;
  return (uint32_t)(top - (const uint8_t *)at);
}

static void answer(const ts_bare_model *model, const ts_bare_run *run, int32_t status,
                   uint64_t ticks) {
  uint32_t length = 0;
  while (run->message && run->message[length]) ++length;
  const uint32_t numbers[] = {(uint32_t)run->arena_used, depth(), length};
  put(&status, sizeof status);
  put(&ticks, sizeof ticks);
  put(numbers, sizeof numbers);
  put(run->message, length);
  for (int32_t i = 0; !status && i < model->output_count; ++i) {
    const uint32_t bytes = (uint32_t)outputs[i].bytes;
    put(shapes[i], (size_t)model->output_ranks[i] * sizeof(int64_t));
    put(&bytes, sizeof bytes);
    put(outputs[i].data, bytes);
  }
}

static void run_one(const ts_bare_model *model) {
  uint8_t *at = aligned(__memory_start);
  require(model->input_count <= MOST && model->output_count <= MOST && model->symbol_count <= MOST,
          "the model has too many inputs, outputs or dimensions\n");
  get(symbols, (size_t)model->symbol_count * sizeof(int64_t));
  for (int32_t i = 0; i < model->input_count; ++i) {
    uint32_t bytes;
    get(&bytes, sizeof bytes);
    inputs[i] = NULL;
    if (bytes == UINT32_MAX) continue;
    require(bytes <= (size_t)(__memory_end - at), "the inputs are too large for this machine\n");
    get(at, bytes);
    inputs[i] = at;
    at = aligned(at + bytes);
  }
  for (int32_t i = 0; i < model->output_count; ++i)
    outputs[i] = (ts_bare_output){NULL, 0, shapes[i]};
  ts_bare_run run = {inputs, symbols, outputs, at, (size_t)(__memory_end - at), 0, NULL};
  paint();
  const uint64_t before = now();
  const int32_t status = ts_bare_run_model(model, &run);
  answer(model, &run, status, now() - before);
}

int main(void) {
  static const char from[] = "inputs.bin", to[] = "outputs.bin";
  source = sh_open(from, sizeof from - 1, SH_MODE_READ);
  sink = sh_open(to, sizeof to - 1, SH_MODE_WRITE);
  require(source >= 0 && sink >= 0, "inputs.bin or outputs.bin cannot be opened\n");
  systick[1] = SPAN - 1;
  systick[2] = 0;
  systick[0] = 7; /* enabled, with its interrupt, at the processor's clock */
  for (int32_t number; sh_read(source, &number, sizeof number) == sizeof number;)
    run_one(ts_firmware_models[number]);
  return 0;
}
