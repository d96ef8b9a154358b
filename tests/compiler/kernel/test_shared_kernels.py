"""Layers in which other numbers are equal by chance have one kernel, and the bits of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import needs_native
from kernels import fused_nodes
from suites.case import BOOL, F32, U8, CaseBuilder, N

from tensmith.backends.common.link import link
from tensmith.backends.llvm import pipeline
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import Compilation, CompileOptions, Stages
from tensmith.compiler.ir import Graph, Value, constant
from tensmith.compiler.ir.dims import Dim
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.plan.plan import (
    ArenaBuffer,
    KernelCall,
    Place,
    Plan,
    PlannedKernel,
    Weight,
)
from tensmith.compiler.kernel.plan.shared_kernels import share_kernels
from tensmith.compiler.kernel.schedule.heuristic import default_schedule
from tensmith.runtime.loader import load

pytestmark = needs_native
Array = np.ndarray[Any, Any]
DEPTH = 48
# scale and zero point of what a layer adds up, and of what it makes: told apart in all, or the same
# within a layer or from one to the next
APART = ((0.5, 100, 0.25, 90), (0.3, 101, 0.21, 91), (0.4, 102, 0.22, 92), (0.6, 103, 0.23, 93))
EQUAL = ((0.5, 100, 0.25, 90), (0.25, 101, 0.25, 91), (0.4, 91, 0.4, 92), (0.4, 103, 0.23, 103))


def layer(c: CaseBuilder, x: Value, numbers: tuple[float, int, float, int]) -> Value:
    """A product, in steps of bytes, and a sum with a row, in others."""
    y = c.op("matmul", x, c.weight(DEPTH, DEPTH, low=-0.3, high=0.3))
    for place in (0, 2):
        parameters = (c.scalar(numbers[place]), c.scalar(numbers[place + 1], U8))
        y = c.op("dequantize", c.op("quantize", y, *parameters), *parameters)
        y = c.op("add", y, c.weight(DEPTH)) if place == 0 else y
    return y


def layers(rows: Dim, numbers: Sequence[tuple[float, int, float, int]] = EQUAL) -> Graph:
    c = CaseBuilder("layers")
    x = c.input(rows, DEPTH, name="x")
    for own in numbers:
        x = layer(c, x, own)
    c.output(x)
    return c.graph()


def branches() -> Graph:
    """A layer of other numbers in either branch."""
    c = CaseBuilder("branches")
    flag, x = c.input(dtype=BOOL, name="flag"), c.input(6, DEPTH, name="x")
    regions = []
    for n, numbers in enumerate(EQUAL[:2]):
        inner = c.region(f"{n}")
        inner.output(layer(inner, x, numbers))
        regions.append(inner.graph())
    c.output(layer(c, c.node("if", [flag], {}, regions).output, EQUAL[2]))
    return c.graph()


def compiled(graph: Graph, folder: Path, threads: int = 1) -> Compilation:
    backend, target = resolve_target("native")
    options = CompileOptions(name="m", work_dir=folder, threads=threads)
    compilation = backend.compile(graph, target, options, Stages())
    link(compilation.model, "so", folder / "m.so")
    return compilation


def test_numbers_that_are_equal_by_chance_make_no_kernel(tmp_path: Path) -> None:
    """Two layers within are one kernel, of several groups; the first and the last differ."""
    apart, equal = (compiled(layers(9, numbers), tmp_path) for numbers in (APART, EQUAL))
    calls = [[kernel.calls for kernel in each.kernels] for each in (apart, equal)]
    assert calls[0] == calls[1]
    assert max(calls[1]) >= 2
    assert max(len(kernel.keys) for kernel in equal.kernels) > 1


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["static", "open", "branches"])
def test_the_bits_are_those_of_kernels_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, threads: int
) -> None:
    def graph() -> Graph:
        return branches() if kind == "branches" else layers(N if kind == "open" else 300)

    rows = {"static": 300, "open": 33, "branches": 6}[kind]
    inputs: dict[str, Array] = {
        "x": np.random.default_rng(1).standard_normal((rows, DEPTH), np.float32)
    }
    modules, counts = [], []
    for share in (pipeline.share_kernels, lambda plan: None):
        folder = tmp_path / str(len(counts))
        folder.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "share_kernels", share)
            counts.append(len(compiled(graph(), folder, threads).kernels))
        modules.append(load(folder / "m.so", threads=threads))
    assert counts[0] < counts[1]
    for flag in (False, True) if kind == "branches" else (None,):
        given = inputs if flag is None else {**inputs, "flag": np.array(flag)}
        got, want = (module(given)["y0"] for module in modules)
        np.testing.assert_array_equal(got, want)


def of_numbers(first: Value, second: Value) -> Plan:
    """Two numbers, each converted by a kernel of its own."""
    planned = []
    for number in (first, second):
        c = CaseBuilder("number")
        c.output(c.op("cast", c.input(1, dtype=number.dtype), dtype=F32))
        (node,) = fused_nodes(c.graph())
        kernel = lower_region(node.regions[0]).kernel
        schedule = default_schedule(kernel, resolve_target("x86-64-v3")[1])
        planned.append(PlannedKernel(f"k{len(planned)}", kernel, schedule))
    places = [(Place("weights", n), Place("arena", n)) for n in range(2)]
    return Plan(
        (),
        (),
        (),
        tuple(KernelCall(n, place, ()) for n, place in enumerate(places)),
        planned,
        weights=[Weight(v, None, 64 * n, v.dtype.bytes) for n, v in enumerate((first, second))],
        arena=[ArenaBuffer(4, 0, 1, 64 * n) for n in range(2)],
        calls={0: 1, 1: 1},
    )


def test_numbers_of_other_types_make_other_kernels() -> None:
    """Bytes are not read where a word is, whatever both are converted to."""
    byte, other, word = (
        constant(np.array([n], kind)) for n, kind in ((200, "u1"), (3, "u1"), (70000, "i4"))
    )
    same, apart = of_numbers(byte, other), of_numbers(byte, word)
    for plan in (same, apart):
        share_kernels(plan)
    assert [len(plan.kernels) for plan in (same, apart)] == [1, 2]
    types = [kernel.kernel.params[0].dtype for kernel in apart.kernels]
    assert types == [byte.dtype, word.dtype]
