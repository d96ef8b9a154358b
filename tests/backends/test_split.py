"""Reductions in blocks: the same results, and where they are chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compiled import needs_native
from suites.case import CaseBuilder, N, S

from tensmith.backends.common.link import link
from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import evaluate
from tensmith.runtime.loader import load

pytestmark = needs_native


def matmul(c: CaseBuilder) -> None:
    product = c.op("matmul", c.input(61, 512), c.weight(512, 90))
    c.output(c.op("max", c.op("add", product, c.weight(90)), c.scalar(0)))


def conv(c: CaseBuilder) -> None:
    """With gaps between taps, which Winograd's algorithm has no form for."""
    window = {"strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (2, 2), "groups": 1}
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
    share = 5200 / resolve_target(target)[1].l2_bytes
    monkeypatch.setattr("tensmith.compiler.kernel.schedule.panels.PANEL_SHARE", share)
    schedules = compare(fill, target, tmp_path, [{}])
    assert target == "native" or any("split" in schedule for schedule in schedules)


def many_rows(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.input(1301, 512), c.weight(512, 90)))


def images(c: CaseBuilder) -> None:
    window = {"strides": (2, 2), "pads": (8, 0, 8, 0), "dilations": (1, 1), "groups": 1}
    c.output(c.op("conv", c.input(2, 32, 12, 240), c.weight(40, 32, 16, 1), c.weight(40), **window))


def any_rows(c: CaseBuilder) -> None:
    product = c.op("matmul", c.input(N, 512), c.weight(512, 90))
    c.output(c.op("max", c.op("add", product, c.weight(90)), c.scalar(0)))


def any_batch(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.input(S, 3, N, 384), c.weight(3, 384, 64)))


@pytest.mark.parametrize("fill", [many_rows, images, any_rows, any_batch])
@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
def test_rows_in_bands(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fill: Callable[[CaseBuilder], None],
    target: str,
) -> None:
    share = 12000 / resolve_target(target)[1].l2_bytes
    monkeypatch.setattr("tensmith.compiler.kernel.schedule.panels.PANEL_SHARE", share)
    monkeypatch.setattr("tensmith.compiler.target.CpuTarget.stack_bytes", 16 << 10)
    sizes = [{"n": n, "s": s} for n, s in ((1, 1), (5, 2), (47, 1), (128, 1), (389, 2))]
    schedules = compare(fill, target, tmp_path, sizes if fill in (any_rows, any_batch) else [{}])
    assert target == "native" or any("band" in schedule for schedule in schedules)


def one_row(c: CaseBuilder) -> None:
    product = c.op("matmul", c.input(1, 512), c.weight(512, 330))
    c.output(c.op("max", c.op("add", product, c.weight(330)), c.scalar(0)))


def few_rows(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.input(N, 512), c.weight(512, 90)))


@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
def test_rows_without_reuse_read_several_streams(tmp_path: Path, target: str) -> None:
    schedules = compare(one_row, target, tmp_path, [{}])
    assert target == "native" or any("panels of" in schedule for schedule in schedules)
    compare(few_rows, target, tmp_path, [{"n": n} for n in (1, 2, 3, 7)])


def any_columns(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.weight(24, 4096), c.input(4096, N)))


def test_blocks_need_columns_of_known_number(tmp_path: Path) -> None:
    sizes = [{"n": n} for n in (1, 16, 31, 77)]
    schedules = compare(any_columns, "x86-64-v3", tmp_path, sizes)
    assert not any("split" in schedule for schedule in schedules)


def compare(
    fill: Callable[[CaseBuilder], None], target: str, folder: Path, sizes: list[dict[str, int]]
) -> list[str]:
    """Compare compiled code with the reference at every size; returns the schedules."""
    graph, truth = build(fill), build(fill)
    backend, resolved = resolve_target(target)
    compilation = backend.compile(graph, resolved, CompileOptions("m", folder), Stages())
    link(compilation.model, "so", folder / "m.so")
    rng = np.random.default_rng(0)
    for size in sizes:
        shapes = {v.name: [evaluate(d, size) for d in v.type.shape] for v in truth.inputs}
        feed = {n: rng.standard_normal(shape, np.float32) for n, shape in shapes.items()}
        want = run_graph(truth, feed)
        for threads in (1, 2):
            got = load(folder / "m.so", threads=threads)(feed)
            for name, array in want.items():
                assert np.abs(got[name] - array).max() <= 2e-5 * np.abs(array).max()
    return [kernel.schedule for kernel in compilation.kernels]


def build(fill: Callable[[CaseBuilder], None]) -> Graph:
    builder = CaseBuilder(fill.__name__)
    fill(builder)
    return builder.graph()


def few_tiles(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.input(24, 512), c.weight(512, 90)))


@pytest.mark.parametrize(
    ("fill", "l1_kib", "l2_kib", "split"),
    [
        (matmul, 16, 1024, False),
        (matmul, 128, 4096, False),
        (matmul, 128, 32, True),
        (few_tiles, 48, 1024, False),
        (few_tiles, 32, 1024, True),
        (few_tiles, 16, 4096, True),
    ],
)
def test_panels_that_fit_the_caches_stay_whole(
    tmp_path: Path, fill: Callable[[CaseBuilder], None], l1_kib: int, l2_kib: int, split: bool
) -> None:
    """A panel may take a part of the second level, and where few rows read it, of the first."""
    backend, resolved = resolve_target("x86-64-v3")
    resolved = replace(resolved, l1_bytes=l1_kib << 10, l2_bytes=l2_kib << 10)
    found = backend.compile(build(fill), resolved, CompileOptions("m", tmp_path), Stages()).kernels
    assert any("split" in kernel.schedule for kernel in found) == split
