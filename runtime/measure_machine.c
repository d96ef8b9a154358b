/* What this machine is: all that decides how long a kernel takes, and what people call it. */
#include "measure.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "internal.h"

static const char *read_line(const char *path) {
  static char text[256];
  text[0] = 0;
  FILE *file = fopen(path, "r");
  if (!file) return "";
  if (!fgets(text, sizeof text, file)) text[0] = 0;
  fclose(file);
  text[strcspn(text, "\n")] = 0;
  return text;
}

static const char *of_cache(int index, const char *what) {
  char path[128];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", index, what);
  return read_line(path);
}

static int64_t cache_bytes(int index) {
  char *unit;
  const int64_t size = strtoll(of_cache(index, "size"), &unit, 10);
  return size << (*unit == 'K' ? 10 : *unit == 'M' ? 20 : *unit == 'G' ? 30 : 0);
}

int64_t ts_largest_cache(void) {
  int64_t largest = 0;
  for (int i = 0; *of_cache(i, "level"); i++)
    if (cache_bytes(i) > largest) largest = cache_bytes(i);
  return largest;
}

int64_t ts_cache_bytes(int level) {
  for (int i = 0; *of_cache(i, "level"); i++)
    if (atoi(of_cache(i, "level")) == level && strcmp(of_cache(i, "type"), "Instruction"))
      return cache_bytes(i);
  return 0;
}

static void tell_caches(void) {
  for (int i = 0; *of_cache(i, "level"); i++) {
    const int level = atoi(of_cache(i, "level")), ways = atoi(of_cache(i, "ways_of_associativity"));
    if (!strcmp(of_cache(i, "type"), "Instruction")) continue;
    printf("cache%d %lld %d\n", level, (long long)cache_bytes(i), ways);
  }
}

#if defined(__x86_64__)
#include <cpuid.h>

static void tell_processor(void) {
  unsigned a, b, c, d, registers[12];
  char text[64] = "";
  if (__get_cpuid(0, &a, &b, &c, &d)) {
    memcpy(text, &b, 4), memcpy(text + 4, &d, 4), memcpy(text + 8, &c, 4);
    printf("vendor %s\n", text);
  }
  if (__get_cpuid(1, &a, &b, &c, &d)) {
    const unsigned base = a >> 8 & 15, extended = base == 15 ? a >> 20 & 255 : 0;
    const unsigned high = base == 6 || base == 15 ? a >> 16 & 15 : 0;
    printf("family %u\nmodel %u\nstepping %u\n", base + extended, high << 4 | (a >> 4 & 15),
           a & 15);
    if (c >> 31) { /* a bit that only hypervisors set */
      memset(text, 0, sizeof text);
      __cpuid(0x40000000, a, b, c, d);
      memcpy(text, &b, 4), memcpy(text + 4, &c, 4), memcpy(text + 8, &d, 4);
      printf("hypervisor %s\n", *text ? text : "unknown");
    }
  }
  memset(text, 0, sizeof text);
  for (unsigned i = 0; i < 3; i++)
    if (!__get_cpuid(0x80000002 + i, &registers[4 * i], &registers[4 * i + 1],
                     &registers[4 * i + 2], &registers[4 * i + 3]))
      return;
  memcpy(text, registers, sizeof registers);
  printf("processor %s\n", text);
}

#else

/* The first value of a field of /proc/cpuinfo. */
static void tell_field(const char *field, const char *name) {
  char line[512];
  FILE *file = fopen("/proc/cpuinfo", "r");
  while (file && fgets(line, sizeof line, file)) {
    char *colon = strchr(line, ':');
    if (!colon || strncmp(line, field, strlen(field))) continue;
    colon[strcspn(colon, "\n")] = 0;
    printf("%s%s\n", name, colon + 1);
    break;
  }
  if (file) fclose(file);
}

static void tell_processor(void) {
  const char *midr = read_line("/sys/devices/system/cpu/cpu0/regs/identification/midr_el1");
  if (*midr) printf("midr %s\n", midr);
  tell_field("CPU implementer", "vendor");
  tell_field("CPU part", "model");
  tell_field("CPU variant", "family");
  tell_field("CPU revision", "stepping");
  const char *board = read_line("/proc/device-tree/model");
  if (*board) printf("processor %s\n", board);
}

#endif

int ts_machine(void) {
  struct utsname names;
  tell_processor();
  tell_caches();
  printf("features");
  for (int32_t i = 0; i < ts_cpu_feature_count(); i++) {
    const char *name = ts_cpu_feature(i);
    if (name) printf(" %s", name);
  }
  printf("\ncores %d\n", ts_cpu_count());
  printf("page %ld\n", sysconf(_SC_PAGESIZE));
  if (!uname(&names)) printf("system %s %s\narchitecture %s\n", names.sysname, names.release, names.machine);
  return 0;
}
