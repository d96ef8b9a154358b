"""How fast one core of this machine reads from every level of memory."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...compiler.host import cache_bytes
from ...compiler.kernel.cost.machine import Level, Machine
from ...compiler.scratch import temporary_folder
from ...compiler.target import CpuTarget
from ...runtime.library import open_library
from ..common.zig import run_zig
from .peak import measure_peak

_ROUNDS = 10
_ROUND_BYTES = 64 << 20  # read in one round, at least
_MOST_BYTES = 256 << 20  # buffer that stands for the memory

# Eight independent sums of whole registers: as many loads in flight as the core can have.
_SOURCE = """
typedef long vec __attribute__((vector_size({vector_bytes})));
long read_all(const vec *start, long bytes, long rounds) {{
  vec a = {{0}}, b = a, c = a, d = a, e = a, f = a, g = a, h = a;
  for (long r = 0; r < rounds; r++) {{
    for (const vec *p = start, *end = p + bytes / sizeof(vec); p + 8 <= end; p += 8) {{
      a += p[0], b += p[1], c += p[2], d += p[3], e += p[4], f += p[5], g += p[6], h += p[7];
      __asm__ volatile("" ::: "memory");
    }}
  }}
  a += b + c + d + e + f + g + h;
  return a[0];
}}
"""

Reader = Callable[[int, int, int], int]


def measure_machine(target: CpuTarget) -> Machine:
    """Peak arithmetic and bandwidths of one core of this machine.

    Bandwidths are measured on buffers that fill half of a level.
    The third level is left out where Linux reports none. Takes about a second.
    """
    peak = measure_peak(target)
    l3 = cache_bytes(3)
    plan: list[tuple[str, float, int]] = [
        ("L1", target.l1_bytes, target.l1_bytes // 2),
        ("L2", target.l2_bytes, target.l2_bytes // 2),
    ]
    if l3 > 2 * target.l2_bytes:
        plan.append(("L3", l3, min(l3 // 2, 8 * target.l2_bytes)))
    plan.append(("memory", math.inf, min(_MOST_BYTES, max(64 << 20, 4 * l3))))
    with temporary_folder("tensmith-bandwidth-") as folder:
        read = _build(target.vector_bits // 8, Path(folder))
        buffer = np.ones(max(size for _, _, size in plan) + 64, np.uint8)
        start = buffer.ctypes.data + -buffer.ctypes.data % 64
        levels = tuple(
            Level(name, capacity, max(_round(read, start, size) for _ in range(_ROUNDS)))
            for name, capacity, size in plan
        )
    sizes = ", ".join(f"{name} {size >> 10} KiB" for name, _, size in plan)
    return Machine(peak.flops_per_second, levels, f"{peak.label}; reads of {sizes}")


def _build(vector_bytes: int, folder: Path) -> Reader:
    source, library = folder / "read.c", folder / "read.so"
    source.write_text(_SOURCE.format(vector_bytes=vector_bytes))
    flags = ["-O2", "-mcpu=native", "-shared", "-fPIC", "-nostdlib"]
    if vector_bytes == 64:
        flags.append("-mprefer-vector-width=512")
    run_zig(["cc", *flags, "-o", library.name, source.name], folder)
    function = open_library(library).read_all
    function.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long]
    function.restype = ctypes.c_long
    reader: Reader = function
    return reader


def _round(read: Reader, start: int, size: int) -> float:
    """Bytes per second of reading a buffer again and again."""
    rounds = max(1, _ROUND_BYTES // size)
    begin = time.perf_counter()
    read(start, size, rounds)
    return size * rounds / (time.perf_counter() - begin)
