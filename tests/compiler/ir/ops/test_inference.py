"""Type inference: what it refuses, and that it agrees with evaluation on symbolic shapes.

`run_graph` compares every result with the inferred type, so running is the check.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import InternalError, RunError
from tensmith.compiler.ir import DType, Graph, TensorType, Value, symbol
from tensmith.compiler.ir.ops.registry import bind_attrs, make_node
from tensmith.compiler.ir.verify import verify

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL
SIZES = st.integers(1, 6)


def run_symbolic(op: str, arrays: list[np.ndarray[Any, Any]], attrs: dict[str, Any]) -> Any:
    """Infer with every dim of every input a symbol (equal sizes share one), then run."""
    values = [
        Value(
            TensorType(DType.of(a.dtype), tuple(1 if n == 1 else symbol(f"s{n}") for n in a.shape)),
            f"x{i}",
        )
        for i, a in enumerate(arrays)
    ]
    node = make_node(op, values, attrs)
    node.output.name = "y"
    graph = Graph(values, [node.output], [node])
    verify(graph)
    return run_graph(graph, {v.name: a for v, a in zip(values, arrays, strict=True)})["y"]


def draw(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


@given(st.lists(st.tuples(SIZES, st.booleans(), st.booleans()), max_size=4), st.integers(0, 4))
def test_broadcasting(axes: list[tuple[int, bool, bool]], cut: int) -> None:
    a = draw(tuple(1 if one else n for n, one, _ in axes))
    b = draw(tuple(1 if one else n for n, _, one in axes)[min(cut, len(axes)) :])
    np.testing.assert_array_equal(run_symbolic("add", [a, b], {}), a + b)


@given(SIZES, SIZES, SIZES, st.booleans(), st.data())
def test_windows(n: int, h: int, w: int, ceil: bool, data: st.DataObject) -> None:
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, strides, dilations = data.draw(pair), data.draw(pair), data.draw(pair)
    pads = tuple(data.draw(st.integers(0, k - 1)) for k in kernel * 2)
    x = draw((n, 2, h + 6, w + 6))
    attrs = {"strides": strides, "pads": pads, "dilations": dilations}
    pooled = run_symbolic("max_pool", [x], {**attrs, "kernel": kernel, "ceil_mode": ceil})
    assert pooled.size
    assert np.isfinite(pooled).all()
    run_symbolic("avg_pool", [x], {**attrs, "kernel": kernel, "ceil_mode": ceil})
    out = run_symbolic("conv", [x, draw((3, 2, *kernel))], attrs)
    up = run_symbolic(
        "conv_transpose", [out, draw((3, 2, *kernel))], {**attrs, "output_padding": (0, 0)}
    )
    assert up.shape[:2] == (n, 2)
    attrs["output_padding"] = (0, 0)
    moved = run_symbolic("conv_transpose", [out, draw((3, 2, *kernel)), draw((2,))], attrs)
    assert moved.shape == up.shape


@given(st.data())
def test_slices(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(SIZES, min_size=1, max_size=3)))
    starts, stops, steps, index = [], [], [], []
    for n in shape:
        step = data.draw(st.sampled_from([-3, -1, 1, 2]))
        if step > 0:
            start = data.draw(st.integers(0, n))
            stop = data.draw(st.integers(start, n))
        else:
            start = data.draw(st.integers(-1, n - 1))
            stop = data.draw(st.integers(-1, start))
        starts.append(start)
        stops.append(stop)
        steps.append(step)
        index.append(list(range(start, stop, step)))
    x = draw(shape)
    attrs = {"starts": tuple(starts), "stops": tuple(stops), "steps": tuple(steps)}
    np.testing.assert_array_equal(run_symbolic("slice", [x], attrs), x[np.ix_(*index)])


@given(st.lists(SIZES, min_size=1, max_size=4), st.data())
def test_permutations_and_reductions(shape: list[int], data: st.DataObject) -> None:
    x = draw(tuple(shape))
    perm = tuple(data.draw(st.permutations(range(x.ndim))))
    np.testing.assert_array_equal(run_symbolic("transpose", [x], {"perm": perm}), x.transpose(perm))
    axes = tuple(data.draw(st.sets(st.integers(0, x.ndim - 1))))
    keep = data.draw(st.booleans())
    got = run_symbolic("reduce_sum", [x], {"axes": axes, "keepdims": keep})
    np.testing.assert_allclose(got, x.sum(axis=axes, keepdims=keep), rtol=1e-4, atol=1e-5)
    axis = data.draw(st.integers(0, x.ndim - 1))
    np.testing.assert_array_equal(
        run_symbolic("concat", [x, x], {"axis": axis}), np.concatenate([x, x], axis)
    )
    pads = tuple(data.draw(st.integers(0, 3)) for _ in range(2 * x.ndim))
    widths = list(zip(pads[: x.ndim], pads[x.ndim :], strict=True))
    np.testing.assert_array_equal(run_symbolic("pad", [x], {"pads": pads}), np.pad(x, widths))


def values(*specs: tuple[Any, ...]) -> list[Value]:
    found = []
    for spec in specs:
        dtype = spec[0] if spec and isinstance(spec[0], DType) else F32
        shape = spec[1:] if spec and isinstance(spec[0], DType) else spec
        found.append(Value(TensorType(dtype, shape), "x"))
    return found


WINDOW = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
FIRST_UP = {**WINDOW, "output_padding": (0, 0), "groups": 2}
LAST_UP = {**FIRST_UP, "layout": "NHWC"}
REFUSED: list[tuple[str, list[tuple[Any, ...]], dict[str, Any], str]] = [
    ("add", [(3,), (4,)], {}, "3 and 4 do not broadcast"),
    ("add", [(3,), (I64, 3)], {}, "element types differ: f32 i64"),
    ("add", [(3,)], {}, "takes 2 inputs, not 1"),
    ("and", [(3,), (3,)], {}, "is f32, not one of bool"),
    ("exp", [(I64, 3)], {}, "is i64"),
    ("where", [(3,), (3,), (3,)], {}, "the condition is f32"),
    ("cast", [(3,)], {"dtype": "f32"}, "not an element type"),
    ("reduce_sum", [(3, 4)], {"axes": (2,)}, r"axis 2 is not in \[0, 2\)"),
    ("reduce_sum", [(3, 4)], {"axes": (1, 1)}, "twice"),
    ("argmax", [(3, 0)], {"axis": 1}, "empty"),
    ("softmax", [(3,)], {"axis": -1}, "axis -1"),
    ("matmul", [(3, 4), (5, 6)], {}, "contracted dimensions differ: 4 is not 5"),
    ("matmul", [(3,), (3, 6)], {}, "needs 2 or more"),
    ("conv", [(1, 3, 5, 5), (4, 2, 3, 3)], WINDOW, "3 is not 2"),
    ("conv", [(1, 3, 2, 2), (4, 3, 3, 3)], WINDOW, "does not fit"),
    ("conv", [(1, 3, 5, 5), (4, 3, 3, 3)], {**WINDOW, "strides": (0, 1)}, "positive"),
    ("conv", [(1, 3, 5, 5), (4, 3, 3, 3)], {**WINDOW, "pads": (1, 1)}, "2 entries, not 4"),
    ("conv", [(1, 3, 5, 5), (4, 3, 3, 3)], {**WINDOW, "layout": "CHWN"}, "neither"),
    ("conv", [(1, 4, 5, 5), (3, 2, 3, 3)], {**WINDOW, "groups": 2}, "do not divide"),
    ("conv", [(1, 3, 5, 5), (4, 3, 3, 3), (5,)], WINDOW, "bias"),
    ("conv_transpose", [(1, 5, 5, 7), (2, 3, 6, 4)], LAST_UP, "7 is not 6"),
    ("conv_transpose", [(1, 6, 5, 5), (7, 4, 2, 3)], FIRST_UP, "6 is not 7"),
    ("conv_transpose", [(1, 5, 5, 7), (2, 3, 7, 4)], LAST_UP, "do not divide"),
    ("conv_transpose", [(1, 5, 5, 6), (2, 3, 6, 4), (4,)], LAST_UP, "bias"),
    ("max_pool", [(1, 3, 5, 5)], {**WINDOW, "kernel": (3,)}, "1 entries, not 2"),
    ("max_pool", [(3, 5)], {**WINDOW, "kernel": (3, 3)}, "rank 2"),
    ("reshape", [(3, 4)], {"shape": (5,)}, "12 elements, not 5"),
    ("transpose", [(3, 4)], {"perm": (0, 0)}, "no permutation"),
    ("broadcast_to", [(3,)], {"shape": (4,)}, "broadcast"),
    ("broadcast_to", [(3,)], {"shape": (1,)}, "broadcast"),
    ("concat", [(3, 4), (3, 5)], {"axis": 0}, "axis 1 differs: 4 is not 5"),
    ("slice", [(5,)], {"starts": (3,), "stops": (2,), "steps": (1,)}, "not normalised"),
    ("slice", [(5,)], {"starts": (0,), "stops": (6,), "steps": (1,)}, "outside"),
    ("slice", [(5,)], {"starts": (0,), "stops": (5,), "steps": (0,)}, "other than 0"),
    ("pad", [(5,)], {"pads": (-1, 0), "mode": "edge"}, "not be negative"),
    ("pad", [(5,)], {"pads": (-4, -2)}, "crop more than there is"),
    ("pad", [(5,)], {"pads": (5, 0), "mode": "reflect"}, "cannot be padded by 5"),
    ("pad", [(0,)], {"pads": (1, 0), "mode": "edge"}, "cannot be padded by 1"),
    ("pad", [(5,)], {"pads": (1, 0), "mode": "mirror"}, "not one of"),
    ("gather", [(5,), (5,)], {"axis": 0}, "the indices is f32"),
    ("gather_elements", [(5, 4), (I64, 5)], {"axis": 0}, "rank 1, not 2"),
    ("gather_nd", [(5, 4), (I64, 2, 3)], {}, "3 indices"),
    ("scatter_elements", [(5,), (I64, 2), (3,)], {"axis": 0}, "2 is not 3"),
    ("scatter_nd", [(5,), (I64, 2, 1), (2,)], {"reduction": "mean"}, "not one of"),
    ("layer_norm", [(5, 4), (3,)], {"axis": 1}, "broadcast"),
    ("attention", [(5, 4), (6, 4), (7, 4)], {"scale": 1.0}, "6 is not 7"),
    ("read_dims", [(I64, 2)], {"symbols": ("a",)}, "2 elements for 1"),
]


@pytest.mark.parametrize(("op", "specs", "attrs", "reason"), REFUSED)
def test_refused(op: str, specs: list[Any], attrs: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make_node(op, values(*specs), attrs)


def test_transposed_convolutions_of_both_layouts() -> None:
    """Filters are [in, out / groups, taps] or [taps, in, out / groups]; no two sizes are equal."""
    attrs = {**FIRST_UP, "strides": (2, 3), "pads": (0, 1, 1, 0), "output_padding": (1, 2)}
    first = make_node("conv_transpose", values((1, 6, 5, 11), (6, 4, 2, 3), (8,)), attrs)
    assert first.output.shape == (1, 8, 10, 34)
    last = {**attrs, "layout": "NHWC"}
    node = make_node("conv_transpose", values((1, 5, 11, 6), (2, 3, 6, 4), (8,)), last)
    assert node.output.shape == (1, 10, 34, 8)


def test_symbols_are_not_refused() -> None:
    n, m = symbol("n"), symbol("m")
    make_node("add", values((n, 3), (m, 1)))
    make_node("matmul", values((2, n), (m, 4)))
    make_node("reshape", values((n, m)), {"shape": (6,)})
    with pytest.raises(ValueError, match="n \\+ 1 is not n"):
        make_node("matmul", values((2, n + 1), (n, 4)))


def test_attributes_are_checked() -> None:
    with pytest.raises(InternalError, match="no attribute 'axes'"):
        make_node("softmax", values((3,)), {"axes": 0})
    with pytest.raises(InternalError, match=r"needs the attribute\(s\) \['axis'\]"):
        make_node("softmax", values((3,)))


def test_bind_attrs() -> None:
    n = symbol("n")
    attrs = {"shape": (n, (2, n * 2)), "axis": 1, "mode": "edge", "keep": True}
    assert bind_attrs(attrs, {"n": 3}) == {**attrs, "shape": (3, (2, 6))}
    with pytest.raises(InternalError, match="no value"):
        bind_attrs(attrs, {})


@pytest.mark.parametrize("op", ["gather", "gather_elements"])
@pytest.mark.parametrize("index", [3, -4])
def test_indices_out_of_range(op: str, index: int) -> None:
    inputs = [draw((3,)), np.array([index])]
    with pytest.raises(RunError, match=rf"index {index} is out of range for axis 0 of size 3"):
        run_symbolic(op, inputs, {"axis": 0})
