"""Layers in which other numbers are equal by chance have one kernel, and the bits of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import needs_native
from suites.case import BOOL, U8, CaseBuilder, N

from tensmith.backends.common.link import link
from tensmith.backends.llvm import pipeline
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import Compilation, CompileOptions, Stages
from tensmith.compiler.ir import Graph, Value
from tensmith.compiler.ir.dims import Dim
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
