/* What the CPU and the operating system offer, under LLVM's names of the features. */
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

int32_t ts_cpu_count(void) {
  cpu_set_t set;
  if (!sched_getaffinity(0, sizeof set, &set)) return CPU_COUNT(&set);
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? (int32_t)online : 1;
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>

/* Register state that the operating system must save (bits of XCR0; Intel SDM vol. 1, 13.1). */
enum { STATE_NONE = 0, STATE_AVX = 0x6, STATE_AVX512 = 0xe6, STATE_AMX = 0x60000 };
enum { EAX, EBX, ECX, EDX };

typedef struct {
  char name[20];
  uint32_t leaf, subleaf;
  uint8_t reg, bit;
  uint32_t state;
} ts_feature;

/* CPUID bits: Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E. */
static const ts_feature FEATURES[] = {
    {"cx8", 1, 0, EDX, 8, 0},
    {"cmov", 1, 0, EDX, 15, 0},
    {"mmx", 1, 0, EDX, 23, 0},
    {"fxsr", 1, 0, EDX, 24, 0},
    {"sse", 1, 0, EDX, 25, 0},
    {"sse2", 1, 0, EDX, 26, 0},
    {"sse3", 1, 0, ECX, 0, 0},
    {"pclmul", 1, 0, ECX, 1, 0},
    {"ssse3", 1, 0, ECX, 9, 0},
    {"fma", 1, 0, ECX, 12, STATE_AVX},
    {"cx16", 1, 0, ECX, 13, 0},
    {"sse4.1", 1, 0, ECX, 19, 0},
    {"sse4.2", 1, 0, ECX, 20, 0},
    {"crc32", 1, 0, ECX, 20, 0},
    {"movbe", 1, 0, ECX, 22, 0},
    {"popcnt", 1, 0, ECX, 23, 0},
    {"aes", 1, 0, ECX, 25, 0},
    {"xsave", 1, 0, ECX, 26, 0},
    {"avx", 1, 0, ECX, 28, STATE_AVX},
    {"f16c", 1, 0, ECX, 29, STATE_AVX},
    {"rdrnd", 1, 0, ECX, 30, 0},
    {"fsgsbase", 7, 0, EBX, 0, 0},
    {"bmi", 7, 0, EBX, 3, 0},
    {"avx2", 7, 0, EBX, 5, STATE_AVX},
    {"bmi2", 7, 0, EBX, 8, 0},
    {"avx512f", 7, 0, EBX, 16, STATE_AVX512},
    {"avx512dq", 7, 0, EBX, 17, STATE_AVX512},
    {"rdseed", 7, 0, EBX, 18, 0},
    {"adx", 7, 0, EBX, 19, 0},
    {"avx512ifma", 7, 0, EBX, 21, STATE_AVX512},
    {"clflushopt", 7, 0, EBX, 23, 0},
    {"clwb", 7, 0, EBX, 24, 0},
    {"avx512cd", 7, 0, EBX, 28, STATE_AVX512},
    {"sha", 7, 0, EBX, 29, 0},
    {"avx512bw", 7, 0, EBX, 30, STATE_AVX512},
    {"avx512vl", 7, 0, EBX, 31, STATE_AVX512},
    {"avx512vbmi", 7, 0, ECX, 1, STATE_AVX512},
    {"avx512vbmi2", 7, 0, ECX, 6, STATE_AVX512},
    {"gfni", 7, 0, ECX, 8, 0},
    {"vaes", 7, 0, ECX, 9, STATE_AVX},
    {"vpclmulqdq", 7, 0, ECX, 10, STATE_AVX},
    {"avx512vnni", 7, 0, ECX, 11, STATE_AVX512},
    {"avx512bitalg", 7, 0, ECX, 12, STATE_AVX512},
    {"avx512vpopcntdq", 7, 0, ECX, 14, STATE_AVX512},
    {"rdpid", 7, 0, ECX, 22, 0},
    {"movdiri", 7, 0, ECX, 27, 0},
    {"movdir64b", 7, 0, ECX, 28, 0},
    {"avx512vp2intersect", 7, 0, EDX, 8, STATE_AVX512},
    {"amx-bf16", 7, 0, EDX, 22, STATE_AMX},
    {"avx512fp16", 7, 0, EDX, 23, STATE_AVX512},
    {"amx-tile", 7, 0, EDX, 24, STATE_AMX},
    {"amx-int8", 7, 0, EDX, 25, STATE_AMX},
    {"avxvnni", 7, 1, EAX, 4, STATE_AVX},
    {"avx512bf16", 7, 1, EAX, 5, STATE_AVX512},
    {"amx-fp16", 7, 1, EAX, 21, STATE_AMX},
    {"avxifma", 7, 1, EAX, 23, STATE_AVX},
    {"avxvnniint8", 7, 1, EDX, 4, STATE_AVX},
    {"avxneconvert", 7, 1, EDX, 5, STATE_AVX},
    {"avxvnniint16", 7, 1, EDX, 10, STATE_AVX},
    {"prefetchi", 7, 1, EDX, 14, 0},
    {"sahf", 0x80000001, 0, ECX, 0, 0},
    {"lzcnt", 0x80000001, 0, ECX, 5, 0},
    {"sse4a", 0x80000001, 0, ECX, 6, 0},
    {"prfchw", 0x80000001, 0, ECX, 8, 0},
    {"xop", 0x80000001, 0, ECX, 11, STATE_AVX},
    {"fma4", 0x80000001, 0, ECX, 16, STATE_AVX},
    {"tbm", 0x80000001, 0, ECX, 21, 0},
    {"64bit", 0x80000001, 0, EDX, 29, 0},
};

static uint64_t saved_state(void) {
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & (1u << 27))) return 0; /* OSXSAVE */
  __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return ((uint64_t)edx << 32) | eax;
}

/* Linux lends the AMX tile registers to a process that asks for them (arch_prctl, since 5.16). */
static int amx_permitted(void) {
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
  return !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
}

static int has_feature(const char *name) {
  for (size_t i = 0; i < sizeof FEATURES / sizeof FEATURES[0]; ++i) {
    const ts_feature *f = &FEATURES[i];
    if (strcmp(f->name, name)) continue;
    unsigned registers[4];
    if (!__get_cpuid_count(f->leaf, f->subleaf, &registers[EAX], &registers[EBX], &registers[ECX],
                           &registers[EDX]))
      return 0;
    if (!(registers[f->reg] >> f->bit & 1)) return 0;
    if ((saved_state() & f->state) != f->state) return 0;
    return f->state != STATE_AMX || amx_permitted();
  }
  return 0;
}

/* MXCSR: flush to zero (bit 15), denormals are zero (bit 6). */
uint64_t ts_fp_flush(void) {
  const uint32_t state = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(state | 0x8040);
  return state;
}

void ts_fp_restore(uint64_t state) { __builtin_ia32_ldmxcsr((uint32_t)state); }

#elif defined(__aarch64__)
#include <sys/auxv.h>

typedef struct {
  char name[12];
  unsigned long type;
  uint8_t bit;
} ts_feature;

/* Bits of AT_HWCAP and AT_HWCAP2: Linux, Documentation/arch/arm64/elf_hwcaps.rst. */
static const ts_feature FEATURES[] = {
    {"fp-armv8", AT_HWCAP, 0}, {"neon", AT_HWCAP, 1},     {"aes", AT_HWCAP, 3},
    {"sha2", AT_HWCAP, 6},     {"crc", AT_HWCAP, 7},      {"lse", AT_HWCAP, 8},
    {"fullfp16", AT_HWCAP, 10}, {"rdm", AT_HWCAP, 12},    {"jsconv", AT_HWCAP, 13},
    {"complxnum", AT_HWCAP, 14}, {"rcpc", AT_HWCAP, 15},  {"ccpp", AT_HWCAP, 16},
    {"sha3", AT_HWCAP, 17},    {"sm4", AT_HWCAP, 19},     {"dotprod", AT_HWCAP, 20},
    {"sve", AT_HWCAP, 22},     {"fp16fml", AT_HWCAP, 23}, {"dit", AT_HWCAP, 24},
    {"rcpc-immo", AT_HWCAP, 26}, {"ssbs", AT_HWCAP, 28},  {"sve2", AT_HWCAP2, 1},
    {"i8mm", AT_HWCAP2, 13},   {"bf16", AT_HWCAP2, 14},   {"sme", AT_HWCAP2, 23},
};

static int has_feature(const char *name) {
  for (size_t i = 0; i < sizeof FEATURES / sizeof FEATURES[0]; ++i)
    if (!strcmp(FEATURES[i].name, name))
      return (int)(getauxval(FEATURES[i].type) >> FEATURES[i].bit & 1);
  return 0;
}

/* FPCR: flush to zero for single and double (bit 24) and half precision (bit 19). */
uint64_t ts_fp_flush(void) {
  uint64_t state;
  __asm__ volatile("mrs %0, fpcr" : "=r"(state));
  __asm__ volatile("msr fpcr, %0" ::"r"(state | 1u << 24 | 1u << 19));
  return state;
}

void ts_fp_restore(uint64_t state) { __asm__ volatile("msr fpcr, %0" ::"r"(state)); }

#else
#error "the runtime knows x86-64 and AArch64"
#endif

int32_t ts_cpu_feature_count(void) { return sizeof FEATURES / sizeof FEATURES[0]; }

const char *ts_cpu_feature(int32_t index) {
  return has_feature(FEATURES[index].name) ? FEATURES[index].name : NULL;
}

const char *ts_cpu_missing(const char *const *features, int32_t count) {
  for (int32_t i = 0; i < count; ++i)
    if (!has_feature(features[i])) return features[i];
  return NULL;
}
