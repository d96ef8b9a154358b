"""A program that times every kernel of a plan by itself, on memory of its own.

Each timed call finds memory as in the middle of a model's run: with `evict_bytes`, so much other
memory is read before it (what the rest of the model would touch), and then all operands but the
weights (the steps before have just made them). With `evict_bytes` of 0 everything stays as near as
it can. Floats are numbers between 1 and 2, everything that decides an address is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...compiler.ir.types import DType
from ...compiler.kernel.cost.cost import parameter_bytes
from ...compiler.kernel.plan.plan import Plan, PlannedKernel
from ...compiler.kernel.plan.sites import KernelSite, parallel_iterations
from ...compiler.target import CpuTarget
from ..common.toolchain import CTarget, arch_of, compile_c
from ..common.zig import run_zig
from . import codegen
from .emit.kernel_function import emit_kernel
from .tuning.operands import addresses

SLACK_BYTES = 4096  # behind every operand: vectors may read past its end
_FILLS = {DType.F32: 1, DType.F64: 2}  # of fill() below; everything else is zero

_HARNESS = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef struct operand { int64_t bytes; int fill, constant; } operand;
typedef struct site {
  void (*run)(void *const *p, void *scratch);
  int operand_count;
  const operand *operands;
  int64_t scratch_bytes;
} site;
@SITES@
static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *memory(int64_t bytes) {
  void *found = NULL;
  if (posix_memalign(&found, 64, (size_t)bytes)) {
    fprintf(stderr, "no memory for an operand of %lld bytes\n", (long long)bytes);
    exit(3);
  }
  memset(found, 0, (size_t)bytes);
  return found;
}

static void fill(void *start, int64_t bytes, int kind) {
  uint32_t state = 1;
  for (int64_t i = 0; kind == 1 && i < bytes / 4; i++) {
    state = state * 1664525u + 1013904223u;
    ((float *)start)[i] = 1.0f + (float)(state >> 8) * 0x1p-24f;
  }
  for (int64_t i = 0; kind == 2 && i < bytes / 8; i++) ((double *)start)[i] = 1.0 + (i % 7) * 0.125;
}

static volatile uint8_t sink;

static void touch(const uint8_t *start, int64_t bytes) {
  uint8_t sum = 0;
  for (int64_t i = 0; i < bytes; i += 64) sum += start[i];
  sink = sum;
}

static int ascending(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

enum { MOST = 1000, LEAST = 5, SHORT_NS = 20000 };

static void measure(int number, const site *s, int64_t limit_ns, const uint8_t *other,
                    int64_t evict_bytes) {
  static int64_t times[MOST];
  void *p[s->operand_count + 1];
  for (int i = 0; i < s->operand_count; i++) {
    p[i] = memory(s->operands[i].bytes + @SLACK@);
    fill(p[i], s->operands[i].bytes, s->operands[i].fill);
  }
  void *scratch = memory(s->scratch_bytes + 64);
  s->run(p, scratch);
  int64_t begin = now(), count = 0, calls = 1;
  if (!evict_bytes) { /* several calls per reading of the clock where one is short */
    s->run(p, scratch);
    int64_t once = now() - begin;
    calls = once < SHORT_NS ? SHORT_NS / (once + 1) + 1 : 1;
  }
  begin = now();
  while (count < MOST && (count < LEAST || now() - begin < limit_ns)) {
    if (evict_bytes) {
      touch(other, evict_bytes);
      for (int i = 0; i < s->operand_count; i++)
        if (!s->operands[i].constant) touch(p[i], s->operands[i].bytes);
    }
    int64_t start = now();
    for (int64_t k = 0; k < calls; k++) s->run(p, scratch);
    times[count++] = (now() - start) * 1000 / calls;
  }
  qsort(times, (size_t)count, sizeof *times, ascending);
  printf("%d %lld %lld %lld\n", number, (long long)times[0], (long long)times[count / 2],
         (long long)count);
  fflush(stdout);
  for (int i = 0; i < s->operand_count; i++) free(p[i]);
  free(scratch);
}

/* Kernels may multiply matrices (AMX), which Linux lets those do that ask (arch_prctl). */
static void lend_matrices(void) {
#if defined(__x86_64__)
  syscall(SYS_arch_prctl, 0x1023, 18);
#endif
}

/* Arguments: the first site, nanoseconds per site, bytes of other memory read between calls.
 * Prints lines: site, least and median picoseconds of a call, readings. */
int main(int argc, char **argv) {
  if (argc != 4) return 2;
  lend_matrices();
  int64_t limit_ns = atoll(argv[2]), evict_bytes = atoll(argv[3]);
  uint8_t *other = memory(evict_bytes + 64);
  if (evict_bytes) memset(other, 1, (size_t)evict_bytes);
  for (int i = atoi(argv[1]); i < @COUNT@; i++)
    measure(i, &sites[i], limit_ns, other, evict_bytes);
  return 0;
}
"""


def build_profiler(
    plan: Plan, sites: Sequence[KernelSite], target: CpuTarget, folder: Path
) -> Path:
    """The program for sites whose sizes are known, in `folder`.

    Its arguments: the number of the first site to time, nanoseconds for each, bytes of other memory
    read before each call. It prints a line per site: its number, the least and the median time of a
    call in picoseconds, how many readings. Raises UsageError for a target without a runtime,
    InternalError when a tool fails.
    """
    numbers = sorted({site.number for site in sites})
    module = codegen.new_module("profile", target)
    for number in numbers:
        planned = plan.kernels[number]
        emit_kernel(module, planned.symbol, planned.kernel, planned.schedule, planned.aliased)
    codegen.set_attributes(module, target)
    parsed = codegen.parse(module)
    generator = codegen.target_machine(target, 3)
    codegen.optimise(parsed, generator, 2)
    kernels = folder / "kernels.o"
    kernels.write_bytes(generator.emit_object(parsed))
    source = folder / "profile.c"
    text = _HARNESS.replace("@SITES@", _tables(plan, sites))
    source.write_text(text.replace("@SLACK@", str(SLACK_BYTES)).replace("@COUNT@", str(len(sites))))
    c_target = CTarget(arch_of(target.triple), static=False)
    objects = compile_c([source], c_target, folder)
    program = folder / "profile"
    names = [path.name for path in (*objects, kernels)]
    run_zig(["cc", "-target", c_target.zig_name, "-o", program.name, *names, "-lm"], folder)
    return program


def _tables(plan: Plan, sites: Sequence[KernelSite]) -> str:
    """C text: a declaration of every kernel, a call and a table of operands for every site."""
    lines, rows = [], []
    for number in sorted({site.number for site in sites}):
        lines.append(_declaration(plan.kernels[number]))
    for position, site in enumerate(sites):
        planned = plan.kernels[site.number]
        kernel, sizes = planned.kernel, dict(site.sizes or ())
        deciding = addresses(kernel)
        operands = [
            f"{{{size}, {0 if b.name in deciding else _FILLS.get(b.dtype, 0)}, "
            f"{int(b.name in site.constants)}}}"
            for b, size in zip(
                kernel.params, parameter_bytes(kernel, planned.schedule, sizes), strict=True
            )
        ]
        arguments = [f"p[{i}]" for i in range(len(operands))]
        arguments += [str(sizes[name]) for name in kernel.symbols]
        arguments += ["scratch"] if kernel.scratch_bytes else []
        arguments += ["0", str(parallel_iterations(kernel, planned.schedule, sizes))]
        lines.append(
            f"static void run_{position}(void *const *p, void *scratch) {{ (void)p; (void)scratch; "
            f"{planned.symbol}({', '.join(arguments)}); }}"
        )
        lines.append(f"static const operand operands_{position}[] = {{{', '.join(operands)}}};")
        rows.append(
            f"  {{run_{position}, {len(operands)}, operands_{position}, {kernel.scratch_bytes}}},"
        )
    return "\n".join([*lines, "static const site sites[] = {", *rows, "};"])


def _declaration(planned: PlannedKernel) -> str:
    kernel = planned.kernel
    parameters = ["void *"] * len(kernel.params) + ["int64_t"] * len(kernel.symbols)
    parameters += ["void *"] * bool(kernel.scratch_bytes) + ["int64_t", "int64_t"]
    return f"void {planned.symbol}({', '.join(parameters)});"
