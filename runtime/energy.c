/* Energy counters of processor packages (RAPL), where the system offers them.
 * Source: Linux, Documentation/power/powercap/powercap.rst. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "program.h"

enum { MOST_PACKAGES = 16 };

/* A number of a file; 0 where it cannot be read. */
static int read_number(const char *path, uint64_t *out) {
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  const int found = fscanf(file, "%" SCNu64, out);
  fclose(file);
  return found == 1;
}

void read_energy(energy *out) {
  *out = (energy){0};
  for (int i = 0; i < MOST_PACKAGES; ++i) {
    char path[96];
    snprintf(path, sizeof path, "/sys/class/powercap/intel-rapl:%d/max_energy_range_uj", i);
    if (!read_number(path, &out->range[i])) break;
    snprintf(path, sizeof path, "/sys/class/powercap/intel-rapl:%d/energy_uj", i);
    errno = 0;
    if (!read_number(path, &out->microjoules[i])) {
      snprintf(out->reason, sizeof out->reason, "%s cannot be read (%s): run as root, or chmod a+r it",
               path, errno ? strerror(errno) : "no number");
      out->packages = 0;
      return;
    }
    ++out->packages;
  }
  if (!out->packages)
    snprintf(out->reason, sizeof out->reason,
             "no counters in /sys/class/powercap: a virtual machine, a processor without RAPL, or "
             "the module intel_rapl_msr is not loaded");
}

double joules_between(const energy *before, const energy *after) {
  double total = 0;
  for (int i = 0; i < before->packages && i < after->packages; ++i) {
    const uint64_t first = before->microjoules[i], last = after->microjoules[i];
    total += (double)(last >= first ? last - first : last + before->range[i] - first) * 1e-6;
  }
  return total;
}
