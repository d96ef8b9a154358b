"""Reductions in blocks: the same results, and where they are chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from suites.case import CaseBuilder

from tensmith.backends.llvm.link import link
from tensmith.backends.reference import run_graph
from tensmith.backends.x86.targets import native_target
from tensmith.compiler.backend import CompileOptions, Stages, resolve_target
from tensmith.runtime.loader import load

pytestmark = pytest.mark.skipif(native_target() is None, reason="needs an x86-64-v3 machine")


def matmul(c: CaseBuilder) -> None:
    product = c.op("matmul", c.input(61, 512), c.weight(512, 90))
    c.output(c.op("max", c.op("add", product, c.weight(90)), c.scalar(0)))


def conv(c: CaseBuilder) -> None:
    window = {"strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1}
    c.output(c.op("conv", c.input(2, 48, 15, 13), c.weight(40, 48, 3, 3), c.weight(40), **window))


def heads(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.input(3, 20, 384), c.weight(3, 384, 64)))


@pytest.mark.parametrize("fill", [matmul, conv, heads])
@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
def test_matches_the_reference(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fill: Callable[[CaseBuilder], None],
    target: str,
) -> None:
    monkeypatch.setattr("tensmith.compiler.kernel.schedule.PANEL_SHARE", 0.02)
    builder = CaseBuilder(fill.__name__)
    fill(builder)
    graph = builder.graph()
    rng = np.random.default_rng(0)
    feed = {v.name: rng.standard_normal(v.type.static_shape, np.float32) for v in graph.inputs}
    want = run_graph(graph, feed)
    backend, machine = resolve_target(target)
    compilation = backend.compile(graph, machine, CompileOptions("m", tmp_path), Stages())
    assert any("split" in kernel.schedule for kernel in compilation.kernels)
    link(compilation.model, "so", tmp_path / "m.so")
    for threads in (1, 2):
        got = load(tmp_path / "m.so", threads=threads)(feed)
        for name, array in want.items():
            assert np.abs(got[name] - array).max() <= 2e-5 * np.abs(array).max()


def test_panels_that_fit_the_cache_stay_whole(tmp_path: Path) -> None:
    builder = CaseBuilder("matmul")
    matmul(builder)
    backend, machine = resolve_target("native")
    found = backend.compile(
        builder.graph(), machine, CompileOptions("m", tmp_path), Stages()
    ).kernels
    assert not any("split" in kernel.schedule for kernel in found)
