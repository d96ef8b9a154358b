"""The measuring program (`runtime/measure.h`) and what it says."""

from __future__ import annotations

from pathlib import Path

from ....compiler.target import CpuTarget
from ...common.toolchain import CTarget, arch_of, runtime_objects
from ...common.zig import run_zig

SOURCES = (
    "cpu.c",
    "measure.c",
    "measure_batch.c",
    "measure_check.c",
    "measure_machine.c",
    "pool.c",
)
NAME = "measure"


def build_program(target: CpuTarget, folder: Path) -> Path:
    """The program for a target's systems, in an existing folder; it needs a C library from 2012 on.

    It is compiled at the first use and kept in the user's cache. Raises UsageError for a target
    without a runtime, InternalError when a tool fails.
    """
    c_target = CTarget(arch_of(target.triple), static=False)
    objects = runtime_objects(SOURCES, c_target, folder)
    names = [str(path.relative_to(folder)) for path in objects]
    libraries = ("-Wl,--no-as-needed", "-lm", "-lpthread", "-ldl")  # kernels may call some of them
    run_zig(["cc", "-target", c_target.zig_name, "-s", "-o", NAME, *names, *libraries], folder)
    return folder / NAME
