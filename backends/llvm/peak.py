"""The peak of this machine: how fast fused multiply-adds run when nothing else is in the way."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...compiler.kernel.cost.machine import Peak
from ...compiler.scratch import temporary_folder
from ...compiler.target import CpuTarget
from ...runtime.library import open_library
from ..common.zig import run_zig

ACCUMULATORS = 12  # chains: more than two FMA pipes times a latency of four; 14 of 16 registers
# Rounds of 1 ms fit between the turns of other programs on the core; threads take 50 us to start.
_STEPS, _ROUNDS = 500_000, 50
_STEPS_THREADS, _ROUNDS_THREADS = 4_000_000, 7

# Every accumulator is multiplied by a number just below one: it converges, so no subnormals and no
# overflow slow it down, and it stays in a register for the whole loop.
_SOURCE = """
typedef float vec __attribute__((vector_size({vector_bytes})));
float fma_loop(long steps, float factor, float term) {{
  vec f = factor + (vec){{0}}, t = term + (vec){{0}};
  vec {declarations};
  for (long i = 0; i < steps; i++) {{
    {updates}
  }}
  vec sum = {total};
  return sum[0];
}}
"""

Loop = Callable[[int, float, float], float]


def measure_peak(target: CpuTarget, threads: int = 1) -> Peak:
    """Measure the f32 FMA peak of `threads` cores of this machine, with registers as wide as the
    target's: the best of some rounds of 1 to 10 ms."""
    bits = target.vector_bits
    with temporary_folder("tensmith-peak-") as folder:
        loop = _build(bits // 8, Path(folder))
        flops = 2.0 * ACCUMULATORS * (bits // 32)
        if threads == 1:
            best = max(flops * _rate(loop, _STEPS) for _ in range(_ROUNDS))
        else:
            best = max(flops * _rate_of_threads(loop, threads) for _ in range(_ROUNDS_THREADS))
    return Peak(best, f"measured: FMA loop on {bits}-bit registers, {_count(threads)}")


def _count(threads: int) -> str:
    return f"{threads} thread" + "s" * (threads != 1)


def _build(vector_bytes: int, folder: Path) -> Loop:
    names = [f"a{index}" for index in range(ACCUMULATORS)]
    source = folder / "peak.c"
    source.write_text(
        _SOURCE.format(
            vector_bytes=vector_bytes,
            declarations=", ".join(f"{name} = t * {i}.f" for i, name in enumerate(names)),
            updates=" ".join(f"{name} = {name} * f + t;" for name in names),
            total=" + ".join(names),
        )
    )
    library = folder / "peak.so"
    flags = ["-O2", "-mcpu=native", "-ffp-contract=fast", "-shared", "-fPIC", "-nostdlib"]
    if vector_bytes == 64:
        flags.append("-mprefer-vector-width=512")
    run_zig(["cc", *flags, "-o", library.name, source.name], folder)
    loop = open_library(library).fma_loop
    loop.argtypes = [ctypes.c_long, ctypes.c_float, ctypes.c_float]
    loop.restype = ctypes.c_float
    function: Loop = loop
    return function


def _rate(loop: Loop, steps: int) -> float:
    """Steps per second of this thread."""
    start = time.perf_counter()
    loop(steps, 0.999, 0.001)
    return steps / (time.perf_counter() - start)


def _rate_of_threads(loop: Loop, threads: int) -> float:
    """Steps per second of all threads; ctypes releases the interpreter lock during the loop."""
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(lambda _: loop(_STEPS_THREADS, 0.999, 0.001), range(threads)))
        seconds = time.perf_counter() - start
    return threads * _STEPS_THREADS / seconds
