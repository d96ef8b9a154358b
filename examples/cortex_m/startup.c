/* What comes before main() on QEMU's mps3-an547, and what main() says it with: a project has its own.
 * Registers: Armv8-M Architecture Reference Manual. Semihosting: Arm IHI 0068 (Semihosting for
 * AArch32 and AArch64). */
#include <stdint.h>

enum { WRITE0 = 0x04, EXIT_EXTENDED = 0x20, APPLICATION_EXIT = 0x20026 };

extern uint32_t bss_start[], bss_end[], stack_top[];
int main(void);
void say(const char *text);
void reset(void);

static void ask(uint32_t operation, const void *argument) {
  register uint32_t number __asm__("r0") = operation;
  register const void *pointer __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xAB" : "+r"(number) : "r"(pointer) : "memory");
}

void say(const char *text) { ask(WRITE0, text); }

static void leave(uint32_t status) {
  const uint32_t block[] = {APPLICATION_EXIT, status};
  for (;;) ask(EXIT_EXTENDED, block);
}

static void __attribute__((used)) begin(void) {
  for (volatile uint32_t *word = bss_start; word < bss_end; ++word) *word = 0;
  leave((uint32_t)main());
}

static void fault(void) {
  say("fault\n");
  leave(99);
}

/* CPACR gives the program the FPU and Helium, before any function uses their registers. */
void __attribute__((naked)) reset(void) {
  __asm__ volatile("ldr r0, =0xE000ED88\n ldr r1, [r0]\n orr r1, r1, #0x00F00000\n"
                   "str r1, [r0]\n dsb\n isb\n b begin\n");
}

typedef void (*handler)(void);
__attribute__((section(".vectors"), used)) static const handler vectors[16] = {
    (handler)stack_top, reset, fault, fault, fault, fault, fault, fault,
    fault, fault, fault, fault, fault, fault, fault, fault,
};
