"""Winograd convolutions against the reference, and the choice between them and direct ones."""

from __future__ import annotations

import numpy as np
import pytest

from tensmith.backends.llvm.link import link
from tensmith.backends.reference import run_graph
from tensmith.backends.x86 import BACKEND
from tensmith.backends.x86.targets import native_target
from tensmith.compiler.backend import CompileOptions, Stages
from tensmith.compiler.ir import DType, Graph, TensorType, Value, constant
from tensmith.compiler.ir.ops.registry import Builder
from tensmith.compiler.kernel.lower import winograd
from tensmith.runtime.loader import load

pytestmark = pytest.mark.skipif(native_target() is None, reason="needs an x86-64-v3 machine")


def network(shape, outputs, *, residual=False, relu=True, seed=0):
    """x -> conv 3x3 -> (+ residual) -> relu -> conv 3x3, channels first."""
    rng = np.random.default_rng(seed)
    channels = shape[1]
    x = Value(TensorType(DType.F32, shape), "x")
    nodes = []
    b = Builder(nodes)
    attrs = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1}

    def weight(*dims):
        return constant(rng.standard_normal(dims, np.float32) / np.float32(3 * dims[1] ** 0.5))

    bias = constant(rng.standard_normal(outputs, np.float32))
    y = b.emit("conv", [x, weight(outputs, channels, 3, 3), bias], attrs)
    if residual:
        y = b.emit("add", [y, b.emit("conv", [x, weight(outputs, channels, 1, 1)],
                                     {**attrs, "pads": (0, 0, 0, 0)})])  # fmt: skip
    if relu:
        y = b.emit("max", [y, constant(np.float32(0))])
    y = b.emit("conv", [y, weight(outputs, outputs, 3, 3)], attrs)
    y.name = "y"
    return Graph([x], [y], nodes)


def compiled(graph, folder, threads):
    options = CompileOptions(name="m", work_dir=folder, threads=threads)
    compilation = BACKEND.compile(graph, native_target(), options, Stages())
    link(compilation.model, "so", folder / "m.so")
    return compilation, load(folder / "m.so", threads=threads)


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize(
    ("shape", "outputs", "residual", "threads"),
    [
        ((1, 16, 12, 12), 32, False, 2),
        ((2, 16, 7, 9), 16, True, 2),
        ((1, 24, 13, 10), 40, True, 2),
        ((1, 64, 30, 30), 64, False, 1),
        ((1, 64, 8, 8), 128, True, 2),
        ((1, 64, 9, 8), 96, False, 3),
    ],
)
def test_matches_the_reference(monkeypatch, tmp_path, m, shape, outputs, residual, threads):
    monkeypatch.setattr(
        "tensmith.compiler.kernel.lower.group.tile_size", lambda conv: _only(conv, m)
    )
    x = np.random.default_rng(1).standard_normal(shape, np.float32)
    want = run_graph(network(shape, outputs, residual=residual), {"x": x})["y"]
    compilation, module = compiled(network(shape, outputs, residual=residual), tmp_path, threads)
    assert sum(len(kernel.schedule.split("; ")) == 3 for kernel in compilation.kernels) == 2
    got = module({"x": x})["y"]
    assert np.abs(got - want).max() <= 2e-5 * np.abs(want).max()


def _only(conv, m):
    return m if conv.inputs[1].shape[:2] == (3, 3) else None


@pytest.mark.parametrize("m", [2, 4])
def test_transforms_compute_a_convolution(m):
    rng = np.random.default_rng(0)
    d, g = rng.standard_normal((m + 2, m + 2)), rng.standard_normal((3, 3))
    u = winograd.FilterTransform(m, 1).apply(g.reshape(3, 3, 1, 1)).reshape(m + 2, m + 2)
    want = [[(d[i : i + 3, j : j + 3] * g).sum() for j in range(m)] for i in range(m)]
    v = _apply(winograd.INPUT_TRANSFORM[m], d)
    got = _apply(winograd.OUTPUT_TRANSFORM[m], u * v)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def _apply(combine, grid):
    """Evaluate a transform of expressions on numbers."""
    from tensmith.compiler.kernel.expr import Apply, Const

    leaves = [[Const(float(v), DType.F32) for v in row] for row in grid]

    def value(e):
        if isinstance(e, Const):
            return e.value
        assert isinstance(e, Apply)
        a, b = (value(arg) for arg in e.args)
        return {"add": a + b, "sub": a - b, "mul": a * b}[e.op]

    return np.array([[value(e) for e in row] for row in winograd.transform(combine, leaves)])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_weights_in_groups_of_outputs(groups):
    data = np.random.default_rng(0).standard_normal((3, 3, 5, 8), np.float32)
    whole = winograd.FilterTransform(2, 5).apply(data).reshape(16, 5, groups, 8 // groups)
    transform = winograd.FilterTransform(2, 5, groups)
    got = transform.apply(data)
    assert got.shape == (transform.rows, 8 // groups)
    np.testing.assert_array_equal(got, whole.transpose(2, 0, 1, 3).reshape(got.shape))


def test_threads_share_what_is_larger():
    # (tiles per block, groups): few tiles and large weights, many tiles and small weights
    assert winograd.partition(16, 512, 512, 16, threads=1) == (16, 1)
    assert winograd.partition(16, 512, 512, 16, threads=2) == (16, 2)
    size, groups = winograd.partition(196, 64, 64, 36, threads=2)
    assert groups == 1
    assert -(-196 // size) % 2 == 0
    # outputs that do not divide are not cut
    assert winograd.partition(16, 512, 513, 16, threads=2)[1] == 1


def test_direct_where_weights_dominate():
    shapes = {(1, 64, 56, 56): 64, (1, 128, 28, 28): 128}
    for shape, outputs in shapes.items():
        assert _choice(shape, outputs) == 4
    assert _choice((1, 512, 7, 7), 512) == 2
    assert _choice((1, 512, 4, 4), 512) is None
    assert _choice((1, 8, 56, 56), 8) is None


def _choice(shape, outputs):
    batch, channels, height, width = shape
    x = Value(TensorType(DType.F32, (batch, height, width, channels)), "x")
    w = constant(np.zeros((3, 3, channels, outputs), np.float32))
    nodes = []
    attrs = {"pads": (1, 1, 1, 1), "strides": (1, 1), "dilations": (1, 1), "layout": "NHWC"}
    Builder(nodes).emit("conv", [x, w], {**attrs, "groups": 1})
    return winograd.tile_size(nodes[0])
