"""Attention as one kernel over blocks of queries, against the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import needs_native
from suites.case import Case, CaseBuilder, N

from tensmith.backends.common.link import link
from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import Compilation, CompileOptions, Stages
from tensmith.compiler.ir.dims import Dim
from tensmith.compiler.kernel.forms import row_blocks_choice
from tensmith.runtime.loader import load

pytestmark = needs_native


def attention(
    lead: tuple[int, ...], queries: Dim, keys: Dim, width: int, *, mask: bool, scores: bool = False
) -> Case:
    """q k^T, softmax, times v. scores: also an output of their own."""

    def build(c: CaseBuilder) -> None:
        q, k = c.input(*lead, queries, width), c.input(*lead, keys, width)
        v = c.input(*lead, keys, width)
        rank = len(lead) + 2
        perm = (*range(rank - 2), rank - 1, rank - 2)
        found = c.op("mul", c.op("matmul", q, c.op("transpose", k, perm=perm)), c.scalar(0.3))
        if mask:
            found = c.op("add", found, c.input(*(1,) * (rank - 2), queries, keys))
        weights = c.op("softmax", found, axis=rank - 1)
        c.output(c.op("matmul", weights, v), *([found] if scores else []))

    return Case("attention", build, sizes={"n": 40})


def compiled(case: Case, folder: Path, target: str, threads: int = 1) -> Compilation:
    backend, resolved = resolve_target(target)
    options = CompileOptions(name="m", work_dir=folder, threads=threads)
    compilation = backend.compile(case.graph(), resolved, options, Stages())
    link(compilation.model, "so", folder / "m.so")
    return compilation


def whole_kernels(compilation: Compilation) -> int:
    """Kernels that hold both products."""
    return sum(list(k.operators).count("matmul") == 2 for k in compilation.kernels)


@pytest.mark.parametrize(("threads", "target"), [(1, "native"), (3, "x86-64-v3")])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(
    ("lead", "queries", "keys", "width"),
    [
        ((1, 4), 64, 64, 32),
        ((2, 3), 40, 40, 16),
        ((3,), 49, 49, 24),
        ((1, 2), 97, 197, 16),
        ((2,), 24, 77, 8),
    ],
)
def test_matches_the_reference(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lead: tuple[int, ...],
    queries: int,
    keys: int,
    width: int,
    mask: bool,
    threads: int,
    target: str,
) -> None:
    monkeypatch.setattr(
        row_blocks_choice, "BLOCK_BYTES", 48 << 10
    )  # several blocks of the larger ones
    case = attention(lead, queries, keys, width, mask=mask)
    compilation = compiled(case, tmp_path, target, threads)
    assert target == "native" or whole_kernels(compilation) == 1
    feed = case.inputs()
    [(name, want)] = run_graph(case.graph(), feed).items()
    with load(tmp_path / "m.so", threads=threads) as module:
        got = module(feed)[name]
    assert np.abs(got - want).max() <= 2e-6 * np.abs(want).max()


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(attention((1, 2), 64, 64, 16, mask=True, scores=True), id="scores are kept"),
        pytest.param(attention((1, 2), 4, 64, 16, mask=False), id="few queries"),
        pytest.param(attention((1, 2), N, N, 16, mask=False), id="unknown size"),
        pytest.param(attention((1,), 1009, 1009, 16, mask=False), id="no equal blocks"),
    ],
)
def test_apart_where_blocks_do_not_fit(tmp_path: Path, case: Case) -> None:
    compilation = compiled(case, tmp_path, "x86-64-v3")
    assert whole_kernels(compilation) == 0
    feed = case.inputs()
    want = run_graph(case.graph(), feed)
    with load(tmp_path / "m.so") as module:
        got = module(feed)
    for name, value in want.items():
        assert np.abs(got[name] - value).max() <= 2e-6 * np.abs(value).max()


def test_rows_of_a_block() -> None:
    fits, row = row_blocks_choice.BLOCK_BYTES, 1 << 10
    assert row_blocks_choice._block_rows(128, row) == fits // row
    assert row_blocks_choice._block_rows(96, row) == 96
    assert row_blocks_choice._block_rows(1500, 6 << 10) == 20
    assert row_blocks_choice._block_rows(11, row) == 0
    assert row_blocks_choice._block_rows(1009, row) == 0
    assert (
        row_blocks_choice._block_rows(197, 832) == 197
    )  # a prime number of rows, not much too large
