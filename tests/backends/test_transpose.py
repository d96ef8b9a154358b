"""Moves of elements that are transposed in registers: the same elements, whole tiles and rests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import needs_native
from suites.case import CaseBuilder, N, S

from tensmith.backends.llvm.link import link
from tensmith.compiler.backend import CompileOptions, Stages, resolve_target
from tensmith.compiler.ir.types import DType
from tensmith.runtime.loader import Module, load

pytestmark = needs_native

PERMS = {
    "planes to channels": ((3, 37, 41), (1, 2, 0)),
    "two planes": ((2, 5, 33), (1, 2, 0)),
    "four planes": ((4, 6, 64), (1, 2, 0)),
    "five planes": ((5, 6, 64), (1, 2, 0)),
    "channels to planes": ((19, 23, 8), (2, 0, 1)),
    "keys": ((2, 61, 40), (0, 2, 1)),
    "last swap": ((16, 8), (1, 0)),
}


def build(c: CaseBuilder, target: str, folder: Path) -> tuple[Module, str]:
    """The compiled graph and its schedules."""
    backend, machine = resolve_target(target)
    options = CompileOptions("m", folder)
    compilation = backend.compile(c.graph(), machine, options, Stages())
    link(compilation.model, "so", folder / "m.so")
    schedules = " ".join(kernel.schedule for kernel in compilation.kernels)
    return load(folder / "m.so"), schedules


@pytest.mark.parametrize("name", PERMS)
@pytest.mark.parametrize("dtype", [DType.F32, DType.I64, DType.U8])
@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
def test_permutations(name: str, dtype: DType, target: str, tmp_path: Path) -> None:
    shape, perm = PERMS[name]
    c = CaseBuilder("moved")
    c.output(c.op("transpose", c.input(*shape, dtype=dtype), perm=perm))
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype.numpy)
    module, schedules = build(c, target, tmp_path)
    np.testing.assert_array_equal(next(iter(module(x).values())), x.transpose(perm))
    assert target == "native" or not schedules.startswith("1x"), "tiles have several rows"


@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
def test_sizes_that_a_run_tells(target: str, tmp_path: Path) -> None:
    c = CaseBuilder("moved")
    c.output(c.op("transpose", c.op("neg", c.input(N, S)), perm=(1, 0)))
    module, _ = build(c, target, tmp_path)
    rng = np.random.default_rng(0)
    for shape in [(1, 1), (7, 9), (8, 16), (29, 50)]:
        x = rng.standard_normal(shape).astype(np.float32)
        np.testing.assert_array_equal(next(iter(module(x).values())), -x.T)
