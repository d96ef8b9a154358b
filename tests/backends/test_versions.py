"""Compiled kernels for sizes that have two names: equal in one run, different in the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import Setting, compile_graph
from suites.case import CaseBuilder

from tensmith.backends.common.link import link
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph, Value
from tensmith.compiler.ir.dims import Dim, evaluate, floordiv, symbol
from tensmith.runtime.loader import load

SETTING = Setting("x86-64-v3", 2)
pytestmark = pytest.mark.skipif(bool(SETTING.missing()), reason=SETTING.missing())


def cross_attention() -> Graph:
    """Queries of one batch, keys and values of another, flattened by the first one's."""
    b, e, n, s = (symbol(name) for name in "bens")
    c = CaseBuilder("cross_attention")
    q, kv = c.input(b, s, 64), c.input(e, n, 64)
    length = floordiv(4 * e * n, 4 * b)

    def heads(x: Value, shape: tuple[Dim, ...], flat: tuple[Dim, ...]) -> Value:
        apart = c.op("transpose", c.op("reshape", x, shape=shape), perm=(0, 2, 1, 3))
        return c.op("reshape", apart, shape=flat)

    query = heads(q, (b, s, 4, 16), (4 * b, s, 16))
    key = heads(kv, (e, n, 4, 16), (4 * b, length, 16))
    scores = c.op("matmul", query, c.op("transpose", key, perm=(0, 2, 1)))
    c.output(c.op("matmul", c.op("softmax", scores, axis=2), key))
    return c.graph()


def test_every_run_takes_the_version_that_fits(tmp_path: Path) -> None:
    truth = cross_attention()
    link(compile_graph(cross_attention(), SETTING, tmp_path), "so", tmp_path / "m.so")
    module, rng = load(tmp_path / "m.so"), np.random.default_rng(0)
    sizes = [(1, 1, 5, 3), (2, 2, 7, 4), (1, 2, 6, 3), (4, 2, 6, 1), (2, 6, 17, 9), (3, 3, 1, 1)]
    for size in sizes:
        values = dict(zip("bens", size, strict=True))
        shapes = {v.name: [evaluate(d, values) for d in v.shape] for v in truth.inputs}
        feed = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
        for name, want in run_graph(truth, feed).items():
            np.testing.assert_allclose(module(feed)[name], want, rtol=1e-4, atol=1e-5)
