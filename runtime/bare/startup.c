/* The vectors of a Cortex-M and what runs before `main`: for programs of an emulator, which finds
 * all of their memory but .bss filled.
 * Registers: Armv8-M Architecture Reference Manual, B3.2 and B11 (SysTick). */
#include "semihosting.h"

extern uint32_t __bss_start[], __bss_end[], __stack_top[];
int main(void);

volatile uint32_t systick_wraps;

static void fault(void) {
  const uint32_t status = *(volatile uint32_t *)0xE000ED28; /* CFSR */
  char text[] = "fault: CFSR = 0x00000000\n";
  for (int digit = 0; digit < 8; ++digit)
    text[16 + digit] = "0123456789abcdef"[status >> (28 - 4 * digit) & 15];
  sh_say(text);
  sh_exit(99);
}

static void tick(void) { ++systick_wraps; }

static void __attribute__((used, noreturn)) begin(void) {
  for (volatile uint32_t *word = __bss_start; word < __bss_end; ++word) *word = 0;
  sh_exit((uint32_t)main());
}

/* Naked: no prologue may save registers of the FPU before CPACR lets the core have it. */
void __attribute__((naked, noreturn)) reset(void);
void reset(void) {
  __asm__ volatile(
      "movw r0, #0xED88\n movt r0, #0xE000\n ldr r1, [r0]\n orr r1, r1, #0x00F00000\n"
      "str r1, [r0]\n dsb\n isb\n b begin\n");
}

typedef void (*handler)(void);
__attribute__((section(".vectors"), used)) static const handler vectors[16] = {
    (handler)__stack_top, reset, fault, fault, fault, fault, fault, fault,
    fault, fault, fault, fault, fault, fault, fault, tick,
};
