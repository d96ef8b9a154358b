"""The Arm backend: Linux on AArch64 with NEON, and Cortex-M without an operating system."""

from __future__ import annotations

from ...compiler.backend import Backend
from ..common.running import runs_here
from ..llvm.measure import MEASURES
from ..llvm.pipeline import compile_cpu, estimate_cpu, slow_kernels_cpu, supports
from ..llvm.tuning import TUNING
from .linking import emits, emulator, link
from .targets import TARGETS, parse_target

BACKEND = Backend(
    name="arm",
    targets=tuple(TARGETS),
    parse_target=parse_target,
    supports=supports,
    compile=compile_cpu,
    link=link,
    available=lambda: None,
    runs_here=runs_here,
    emulator=emulator,
    emits=emits,
    measures=MEASURES,
    tuning=TUNING,
    slow_kernels=slow_kernels_cpu,
    estimate=estimate_cpu,
)
