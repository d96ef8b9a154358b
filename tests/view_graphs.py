"""Graphs that cross views of tensors of unknown sizes with every form of kernel that reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from suites.case import F32, I64, CaseBuilder, N, S

from tensmith.compiler.ir import Dim, Graph, Value, symbol
from tensmith.compiler.ir.dims import dmax, evaluate

M = symbol("m")
SIZES = ({"n": 3, "s": 2, "m": 4}, {"n": 1, "s": 1, "m": 1}, {"n": 5, "s": 19, "m": 2})

View = Callable[[CaseBuilder, int], Value]
Use = Callable[[CaseBuilder, Value], Value]


def _cut(c: CaseBuilder, x: Value, axis: int, start: Dim, stop: Dim) -> Value:
    starts = tuple(start if i == axis else 0 for i in range(x.type.rank))
    stops = tuple(stop if i == axis else dim for i, dim in enumerate(x.shape))
    return c.op("slice", x, starts=starts, stops=stops, steps=(1,) * x.type.rank)


def _reversed(c: CaseBuilder, x: Value, axis: int) -> Value:
    rank, last = x.type.rank, x.shape[axis] - 1
    starts = tuple(last if i == axis else 0 for i in range(rank))
    stops = tuple(-1 if i == axis else dim for i, dim in enumerate(x.shape))
    return c.op("slice", x, starts=starts, stops=stops, steps=tuple(
        -1 if i == axis else 1 for i in range(rank)
    ))  # fmt: skip


def _moved(c: CaseBuilder, x: Value, *perm: int) -> Value:
    return c.op("transpose", x, perm=perm)


def _shaped(c: CaseBuilder, x: Value, *shape: Dim) -> Value:
    return c.op("reshape", x, shape=shape)


# Rows of `k` elements each; what is before them is of one, two or three unknown sizes.
VIEWS: dict[str, View] = {
    "whole": lambda c, k: c.input(N, k),
    "three_sizes": lambda c, k: c.input(M, N, S, k),
    "row": lambda c, k: _shaped(c, _cut(c, c.input(2, N, k), 0, 1, 2), N, k),
    "row_of_three": lambda c, k: _shaped(c, _cut(c, c.input(3, N, S, k), 0, 1, 2), N, S, k),
    "first": lambda c, k: _cut(c, c.input(N, S, k), 1, 0, 1),
    "last": lambda c, k: _cut(c, c.input(N, S, k), 1, S - 1, S),
    "first_of_three": lambda c, k: _cut(c, c.input(M, N, S, k), 2, 0, 1),
    "inner_first": lambda c, k: _cut(c, c.input(M, N, S, k), 1, 0, 1),
    "columns": lambda c, k: _cut(c, c.input(N, S, k + 7), 2, 5, 5 + k),
    "gap": lambda c, k: _shaped(c, _cut(c, c.input(N, S, k // 4, 6), 3, 1, 5), N, S, k),
    "inner_gap": lambda c, k: _shaped(c, _cut(c, c.input(N, S, 5, k // 4), 2, 1, 5), N, S, k),
    "transposed": lambda c, k: _moved(c, c.input(k, N), 1, 0),
    "transposed_batch": lambda c, k: _moved(c, c.input(N, k, S), 0, 2, 1),
    "step_first": lambda c, k: _moved(c, c.input(S, N, k), 1, 0, 2),
    "heads_merged": lambda c, k: _shaped(
        c, _moved(c, c.input(N, 4, S, k // 4), 0, 2, 1, 3), N, S, k
    ),
    "heads_split": lambda c, k: _moved(c, _shaped(c, c.input(N, S, 2 * k), N, S, 2, k), 0, 2, 1, 3),
    "one_head": lambda c, k: _cut(
        c, _moved(c, _shaped(c, c.input(N, S, 3 * k), N, S, 3, k), 2, 0, 1, 3), 0, 1, 2
    ),
    "all_rows": lambda c, k: _shaped(c, c.input(N, S, k), N * S, k),
    "interleaved": lambda c, k: _shaped(
        c, _moved(c, c.input(N, k // 8, 8, S), 0, 3, 2, 1), N, S, k
    ),
    "backwards": lambda c, k: _reversed(c, c.input(N, S, k), 1),
    "backwards_inside": lambda c, k: _reversed(c, c.input(N, k), 1),
    "gathered": lambda c, k: c.op("gather", c.input(5, N, k), c.scalar(3, I64), axis=0),
    "picked": lambda c, k: c.op("gather", c.input(N, k), c.input(S, dtype=I64), axis=0),
    "padded": lambda c, k: c.op("pad", c.input(N, S, k - 3), pads=(0, 0, 1, 0, 0, 2)),
    "joined": lambda c, k: c.op("concat", c.input(N, S, k - 9), c.input(N, S, 9), axis=2),
    "joined_rows": lambda c, k: c.op("concat", c.input(N, k), c.input(S, k), axis=0),
    "repeated": lambda c, k: c.op(
        "mul", c.op("broadcast_to", c.input(N, 1, k), shape=(N, S, k)), c.input(S, 1)
    ),
    "computed": lambda c, k: _cut(c, c.op("tanh", c.input(N, S, k)), 1, 0, 1),
}


def _depth(x: Value) -> int:
    assert isinstance(x.shape[-1], int)
    return x.shape[-1]


def _product(c: CaseBuilder, x: Value) -> Value:
    return c.op("matmul", x, c.weight(_depth(x), 70))


def _layer(c: CaseBuilder, x: Value) -> Value:
    return c.op("max", c.op("add", _product(c, x), c.weight(70)), c.scalar(0))


def _gates(c: CaseBuilder, x: Value) -> Value:
    """The gates of a recurrent cell: products side by side."""
    made = c.op("matmul", x, c.weight(_depth(x), 96))
    last = x.type.rank - 1
    a, b, d = (_cut(c, made, last, n, n + 32) for n in (0, 32, 64))
    held = c.op("mul", c.op("sigmoid", a), c.op("tanh", b))
    return c.op("mul", held, c.op("sigmoid", d))


def _left(c: CaseBuilder, x: Value) -> Value:
    rank = x.type.rank
    perm = (*range(rank - 2), rank - 1, rank - 2)
    return c.op("matmul", c.weight(19, _depth(x)), c.op("transpose", x, perm=perm))


def _with_itself(c: CaseBuilder, x: Value) -> Value:
    rank = x.type.rank
    perm = (*range(rank - 2), rank - 1, rank - 2)
    return c.op("matmul", x, c.op("transpose", x, perm=perm))


def _attention(c: CaseBuilder, x: Value) -> Value:
    rank, depth = x.type.rank, _depth(x)
    q, k, v = (c.op("matmul", x, c.weight(depth, 16)) for _ in range(3))
    perm = (*range(rank - 2), rank - 1, rank - 2)
    scores = c.op("matmul", q, c.op("transpose", k, perm=perm))
    scores = c.op("mul", scores, c.scalar(1 / depth))
    return c.op("matmul", c.op("softmax", scores, axis=rank - 1), v)


def _norm(c: CaseBuilder, x: Value) -> Value:
    scale = c.weight(_depth(x))
    return c.op("layer_norm", x, scale, c.weight(_depth(x)), axis=x.type.rank - 1, epsilon=1e-5)


def _softmax(c: CaseBuilder, x: Value) -> Value:
    return c.op("softmax", x, axis=x.type.rank - 1)


def _sums(c: CaseBuilder, x: Value) -> Value:
    mean = c.op("reduce_mean", x, axes=(x.type.rank - 1,), keepdims=True)
    largest = c.op("reduce_max", x, axes=(x.type.rank - 1,), keepdims=True)
    return c.op("sub", largest, mean)


def _across(c: CaseBuilder, x: Value) -> Value:
    return c.op("reduce_sum", x, axes=(x.type.rank - 2,), keepdims=True)


def _copy(c: CaseBuilder, x: Value) -> Value:
    rank = x.type.rank
    turned = c.op("transpose", x, perm=(*range(rank - 2), rank - 1, rank - 2))
    return c.op("add", turned, c.scalar(1))


def _scattered(c: CaseBuilder, x: Value) -> Value:
    places = c.op("iota", shape=x.shape, axis=x.type.rank - 1, dtype=I64)
    last = c.scalar(_depth(x) - 1, I64)
    base = c.op("broadcast_to", c.scalar(0.5), shape=x.shape)
    return c.op(
        "scatter_elements", base, c.op("sub", last, places), x,
        axis=x.type.rank - 1, reduction="add",
    )  # fmt: skip


def _side_by_side(c: CaseBuilder, x: Value) -> Value:
    """Results that lie side by side in one tensor."""
    product = _product(c, x)
    return c.op("concat", c.op("tanh", product), _layer(c, x), axis=product.type.rank - 1)


def _two_layers(c: CaseBuilder, x: Value) -> Value:
    return _product(c, _layer(c, x))


def _positions(c: CaseBuilder, x: Value) -> Value:
    """A product whose operand depends on where its elements are."""
    places = c.op("iota", shape=(_depth(x),), axis=0, dtype=F32)
    return _product(c, c.op("mul", x, c.op("cos", places)))


USES: dict[str, Use] = {
    "product": _product, "layer": _layer, "gates": _gates, "left": _left,
    "with_itself": _with_itself, "attention": _attention, "norm": _norm, "softmax": _softmax,
    "sums": _sums, "across": _across, "copy": _copy, "scattered": _scattered,
    "side_by_side": _side_by_side, "two_layers": _two_layers, "positions": _positions,
}  # fmt: skip


# Images of unknown sizes, through every form of a convolution.
def _image(c: CaseBuilder, channels: int, view: str) -> Value:
    if view == "heads":
        return _moved(c, c.input(N, S, M, channels), 0, 3, 1, 2)
    if view == "part":
        return _cut(c, c.input(N, channels + 3, S, M), 1, 2, 2 + channels)
    if view == "cropped":
        return _cut(c, c.input(N, channels, S, M), 2, 0, dmax(S - 1, 1))
    if view == "one":
        return _shaped(c, _cut(c, c.input(2, N, channels, S, M), 0, 1, 2), N, channels, S, M)
    if view == "static":
        return c.input(2, channels, 19, 14)
    return c.input(N, channels, S, M)


IMAGE_VIEWS = ("plain", "heads", "part", "cropped", "one", "static")


def _conv(
    c: CaseBuilder, x: Value, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> Value:
    channels = x.shape[1]
    assert isinstance(channels, int)
    weight = c.weight(outputs, channels // groups, size, size)
    pads = (size // 2,) * 4
    return c.op(
        "conv", x, weight, c.weight(outputs), strides=(stride, stride), pads=pads,
        dilations=(1, 1), groups=groups,
    )  # fmt: skip


def _upsampled(c: CaseBuilder, x: Value) -> Value:
    assert isinstance(x.shape[1], int)
    return c.op(
        "conv_transpose", x, c.weight(x.shape[1], 8, 4, 4), strides=(2, 2), pads=(1, 1, 1, 1),
        dilations=(1, 1), output_padding=(0, 0), groups=1,
    )  # fmt: skip


def _expanded(c: CaseBuilder, x: Value) -> Value:
    wide = c.op("sigmoid", _conv(c, x, 24, 1))
    return c.op("max", _conv(c, wide, 24, 3, groups=24), c.scalar(0.1))


def _branches(c: CaseBuilder, x: Value) -> Value:
    made = c.op("concat", _conv(c, x, 8, 3), _conv(c, x, 12, 1), axis=1)
    return _conv(c, made, 6, 3)


IMAGE_USES: dict[str, Use] = {
    "plain": lambda c, x: _conv(c, x, 20, 3),
    "pointwise": lambda c, x: _conv(c, x, 20, 1),
    "strided": lambda c, x: _conv(c, x, 20, 3, 2),
    "wide_window": lambda c, x: _conv(c, x, 10, 5),
    "depthwise": lambda c, x: _conv(c, x, 64, 3, groups=64),
    "grouped": lambda c, x: _conv(c, x, 16, 3, groups=4),
    "chain": lambda c, x: _conv(c, c.op("max", _conv(c, x, 16, 3), c.scalar(0)), 8, 3),
    "upsampled": _upsampled,
    "expanded": _expanded,
    "branches": _branches,
    "pooled": lambda c, x: c.op("reduce_mean", x, axes=(2, 3), keepdims=False),
}


def build(fill: Callable[[CaseBuilder], Value], name: str) -> Graph:
    """The graph whose one output `fill` makes."""
    c = CaseBuilder(name)
    c.output(fill(c))
    return c.graph()


def row_graph(view: str, use: str, depth: int) -> Graph:
    """A use of a view of rows."""
    return build(lambda c: USES[use](c, VIEWS[view](c, depth)), f"{view}.{use}.{depth}")


def image_graph(view: str, use: str) -> Graph:
    """A use of a view of an image of 64 channels."""
    return build(lambda c: IMAGE_USES[use](c, _image(c, 64, view)), f"image.{view}.{use}")


def feed(graph: Graph, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Inputs of a graph at given sizes."""
    rng = np.random.default_rng(7)
    shapes = {v: [evaluate(dim, sizes) for dim in v.shape] for v in graph.inputs}
    return {
        v.name: rng.integers(0, 1, shape)
        if v.dtype is I64
        else rng.standard_normal(shape, F32.numpy)
        for v, shape in shapes.items()
    }
