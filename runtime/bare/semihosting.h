/* Files and words of the machine that a debugger or an emulator runs on.
 * Arm, "Semihosting for AArch32 and AArch64". */
#ifndef TENSMITH_SEMIHOSTING_H_
#define TENSMITH_SEMIHOSTING_H_

#include <stddef.h>
#include <stdint.h>

enum { SH_OPEN = 0x01, SH_WRITE0 = 0x04, SH_WRITE = 0x05, SH_READ = 0x06, SH_EXIT_EXTENDED = 0x20 };
enum { SH_MODE_READ = 1, SH_MODE_WRITE = 5 }; /* "rb", "wb" */

static inline int32_t sh_call(int32_t operation, const void *argument) {
  register int32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static inline int32_t sh_open(const char *name, size_t length, int32_t mode) {
  const uint32_t block[] = {(uint32_t)name, (uint32_t)mode, (uint32_t)length};
  return sh_call(SH_OPEN, block);
}

/* Bytes that were read; fewer at the end of the file. */
static inline size_t sh_read(int32_t file, void *to, size_t bytes) {
  const uint32_t block[] = {(uint32_t)file, (uint32_t)to, (uint32_t)bytes};
  return bytes ? bytes - (size_t)sh_call(SH_READ, block) : 0;
}

/* Bytes that were written. */
static inline size_t sh_write_part(int32_t file, const void *from, size_t bytes) {
  const uint32_t block[] = {(uint32_t)file, (uint32_t)from, (uint32_t)bytes};
  return bytes ? bytes - (size_t)sh_call(SH_WRITE, block) : 0;
}

/* Whether all was written. */
static inline int sh_write(int32_t file, const void *from, size_t bytes) {
  return sh_write_part(file, from, bytes) == bytes;
}

static inline void sh_say(const char *text) { sh_call(SH_WRITE0, text); }

static inline void __attribute__((noreturn)) sh_exit(uint32_t code) {
  const uint32_t block[] = {0x20026, code}; /* ADP_Stopped_ApplicationExit */
  for (;;) sh_call(SH_EXIT_EXTENDED, block);
}

#endif /* TENSMITH_SEMIHOSTING_H_ */
