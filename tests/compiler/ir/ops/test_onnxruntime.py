"""Core operators against ONNX Runtime, one-node model by one-node model."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from onnx import helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Graph, TensorType, Value
from tensmith.compiler.ir.ops.registry import make_node

onnxruntime = pytest.importorskip("onnxruntime")

Array = np.ndarray[Any, Any]


def ort(op: str, arrays: list[Array], **attrs: Any) -> Array:
    """What ONNX Runtime computes, with its graph optimisations off."""
    names = [f"x{i}" for i in range(len(arrays))]
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in zip(names, arrays, strict=True)
    ]
    output = helper.make_empty_tensor_value_info("y")
    node = helper.make_node(op, names, ["y"], **attrs)
    graph = helper.make_graph([node], "g", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, dict(zip(names, arrays, strict=True)))
    return np.asarray(result)


def ours(op: str, arrays: list[Array], **attrs: Any) -> Array:
    """What the reference backend computes."""
    values = [
        Value(TensorType(DType.of(array.dtype), tuple(array.shape)), f"x{i}")
        for i, array in enumerate(arrays)
    ]
    node = make_node(op, values, attrs)
    node.output.name = "y"
    inputs = {value.name: array for value, array in zip(values, arrays, strict=True)}
    return run_graph(Graph(values, [node.output], [node]), inputs)["y"]


def check(got: Array, want: Array, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol, strict=True)


def floats(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).uniform(-2, 2, shape).astype(np.float32)


CONVS = [
    # x, w, strides, pads, dilations, groups
    ((2, 3, 9, 8), (4, 3, 3, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    ((1, 4, 9, 11), (6, 2, 3, 2), (2, 3), (1, 0, 2, 1), (1, 1), 2),
    ((1, 5, 12, 12), (5, 1, 3, 3), (1, 2), (2, 2, 2, 2), (2, 3), 5),
    ((1, 4, 12, 7), (8, 1, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 4),
    ((2, 3, 17), (5, 3, 4), (3,), (2, 1), (2,), 1),
    ((1, 2, 6, 5, 7), (3, 2, 2, 3, 3), (1, 2, 1), (0, 1, 1, 1, 0, 1), (1, 1, 2), 1),
]


@pytest.mark.parametrize("shape", CONVS, ids=str)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_conv(shape: tuple[Any, ...], layout: str) -> None:
    x_shape, w_shape, strides, pads, dilations, groups = shape
    x, w, b = floats(0, *x_shape), floats(1, *w_shape), floats(2, w_shape[0])
    want = ort("Conv", [x, w, b], strides=strides, pads=pads, dilations=dilations, group=groups)
    if layout == "NHWC":
        x, w, want = (
            np.moveaxis(x, 1, -1),
            np.moveaxis(w, (0, 1), (-1, -2)),
            np.moveaxis(want, 1, -1),
        )
    attrs = {"strides": strides, "pads": pads, "dilations": dilations, "groups": groups}
    check(ours("conv", [x, w, b], layout=layout, **attrs), want)


TRANSPOSED = [
    # x, w, strides, pads, dilations, output_padding, groups
    ((2, 3, 4, 5), (3, 4, 3, 3), (1, 1), (0, 0, 0, 0), (1, 1), (0, 0), 1),
    ((1, 4, 5, 3), (4, 3, 3, 2), (2, 3), (1, 0, 1, 1), (1, 1), (1, 2), 2),
    ((1, 2, 5, 5), (2, 3, 3, 3), (2, 2), (2, 1, 2, 1), (2, 1), (0, 1), 1),
    ((1, 3, 9), (3, 2, 4), (3,), (1, 1), (1,), (2,), 1),
]


@pytest.mark.parametrize("shape", TRANSPOSED, ids=str)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_conv_transpose(shape: tuple[Any, ...], layout: str) -> None:
    x_shape, w_shape, strides, pads, dilations, extra, groups = shape
    x, w = floats(0, *x_shape), floats(1, *w_shape)
    more = {"strides": strides, "pads": pads, "dilations": dilations, "output_padding": extra}
    want = ort("ConvTranspose", [x, w], group=groups, **more)
    if layout == "NHWC":
        x, w, want = (
            np.moveaxis(x, 1, -1),
            np.moveaxis(w, (0, 1), (-2, -1)),
            np.moveaxis(want, 1, -1),
        )
    check(ours("conv_transpose", [x, w], groups=groups, layout=layout, **more), want)


POOLS = [
    # x, kernel, strides, pads, dilations
    ((1, 2, 7, 8), (2, 2), (2, 2), (0, 0, 0, 0), (1, 1)),
    ((2, 3, 7, 9), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    ((1, 1, 6, 6), (2, 2), (3, 3), (1, 1, 1, 1), (1, 1)),
    ((1, 2, 9, 10), (3, 2), (2, 1), (1, 0, 0, 1), (2, 2)),
    ((1, 2, 10), (3,), (4,), (1, 2), (1,)),
    ((1, 2, 5, 6, 4), (2, 3, 2), (2, 2, 1), (0, 1, 1, 1, 0, 0), (1, 1, 1)),
]


@pytest.mark.parametrize("shape", POOLS, ids=str)
@pytest.mark.parametrize("ceil", [False, True])
def test_pools(shape: tuple[Any, ...], ceil: bool) -> None:
    x_shape, kernel, strides, pads, dilations = shape
    x = floats(0, *x_shape)
    more = {"strides": strides, "pads": pads, "dilations": dilations}
    theirs = {**more, "kernel_shape": kernel, "ceil_mode": int(ceil)}
    mine = {**more, "kernel": kernel, "ceil_mode": ceil}
    check(ours("max_pool", [x], **mine), ort("MaxPool", [x], **theirs))
    for include in (False, True):
        want = ort("AveragePool", [x], count_include_pad=int(include), **theirs)
        check(ours("avg_pool", [x], count_include_pad=include, **mine), want)


UNARY = {
    "neg": "Neg",
    "abs": "Abs",
    "sign": "Sign",
    "ceil": "Ceil",
    "floor": "Floor",
    "round": "Round",
    "sqrt": "Sqrt",
    "exp": "Exp",
    "log": "Log",
    "sin": "Sin",
    "cos": "Cos",
    "tan": "Tan",
    "asin": "Asin",
    "acos": "Acos",
    "atan": "Atan",
    "sinh": "Sinh",
    "cosh": "Cosh",
    "tanh": "Tanh",
    "asinh": "Asinh",
    "acosh": "Acosh",
    "atanh": "Atanh",
    "erf": "Erf",
    "sigmoid": "Sigmoid",
    "isnan": "IsNaN",
    "isinf": "IsInf",
}


@pytest.mark.parametrize(("op", "theirs"), UNARY.items(), ids=str)
def test_unary(op: str, theirs: str) -> None:
    # outside of a function's domain both give NaN
    points = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 1.0, -1.0, 3.7, np.nan, np.inf, -np.inf]
    x = np.array([*points, *np.linspace(-4, 4, 33)], np.float32)
    if op in ("asin", "acos", "acosh", "atanh"):
        x = np.clip(x, -1, 1) if op != "acosh" else np.clip(x, 1, 9)
    check(ours(op, [x]), ort(theirs, [x]), rtol=1e-5, atol=1e-6)


BINARY = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "pow": "Pow",
    "max": "Max",
    "min": "Min",
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
}


@pytest.mark.parametrize(("op", "theirs"), BINARY.items(), ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64])
def test_binary(op: str, theirs: str, dtype: Any) -> None:
    rng = np.random.default_rng(5)
    a = rng.integers(-9, 10, (3, 1, 7)).astype(dtype)
    b = rng.integers(1, 5, (4, 1)).astype(dtype)
    check(ours(op, [a, b]), ort(theirs, [a, b]))


@pytest.mark.parametrize("fmod", [0, 1])
def test_mod(fmod: int) -> None:
    a, b = np.arange(-9, 10), np.array([[3], [-4], [5]])
    check(ours("fmod" if fmod else "mod", [a, b]), ort("Mod", [a, b], fmod=fmod))


@pytest.mark.parametrize(
    ("op", "theirs", "dtype"),
    [
        ("and", "And", np.bool_),
        ("or", "Or", np.bool_),
        ("xor", "Xor", np.bool_),
        ("bitand", "BitwiseAnd", np.uint8),
        ("bitor", "BitwiseOr", np.int32),
        ("bitxor", "BitwiseXor", np.uint8),
    ],
)
def test_bits(op: str, theirs: str, dtype: Any) -> None:
    rng = np.random.default_rng(5)
    a, b = (rng.integers(0, 2 if dtype is np.bool_ else 200, 50).astype(dtype) for _ in range(2))
    check(ours(op, [a, b]), ort(theirs, [a, b]))


def test_shifts() -> None:
    a, b = np.arange(40, dtype=np.uint32) * 77, np.arange(40, dtype=np.uint32) % 31
    check(ours("shl", [a, b]), ort("BitShift", [a, b], direction="LEFT"))
    check(ours("shr", [a, b]), ort("BitShift", [a, b], direction="RIGHT"))


@pytest.mark.parametrize(
    ("source", "to"),
    [
        (a, b)
        for a, b in itertools.permutations(
            ["float32", "float64", "int64", "int32", "int8", "bool"], 2
        )
    ],
)
def test_cast(source: str, to: str) -> None:
    x = np.array([-2.7, -0.5, 0, 0.4, 1, 99.9]).astype(source)
    theirs = helper.np_dtype_to_tensor_dtype(np.dtype(to))
    check(ours("cast", [x], dtype=DType.of(np.dtype(to))), ort("Cast", [x], to=theirs))


@pytest.mark.parametrize("name", ["Sum", "Prod", "Max", "Min", "Mean"])
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions(name: str, axes: tuple[int, ...], keepdims: bool) -> None:
    x = floats(3, 3, 5, 4)
    want = ort(f"Reduce{name}", [x, np.array(axes, np.int64)], keepdims=int(keepdims))
    check(ours(f"reduce_{name.lower()}", [x], axes=axes, keepdims=keepdims), want)


@pytest.mark.parametrize("name", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("keepdims", [False, True])
def test_argument_reductions(name: str, last: bool, keepdims: bool) -> None:
    x = np.random.default_rng(0).integers(0, 3, (4, 9, 2)).astype(np.float32)
    want = ort(name, [x], axis=1, keepdims=int(keepdims), select_last_index=int(last))
    check(ours(name.lower(), [x], axis=1, keepdims=keepdims, select_last=last), want)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumsum(exclusive: bool, reverse: bool) -> None:
    x, axis = floats(0, 3, 6, 2), np.array(1, np.int64)
    want = ort("CumSum", [x, axis], exclusive=int(exclusive), reverse=int(reverse))
    check(ours("cumsum", [x], axis=1, exclusive=exclusive, reverse=reverse), want)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(mode: str) -> None:
    x, pads = floats(0, 3, 5), (1, 3, 2, 4)
    value = [np.array(0.5, np.float32)] if mode == "constant" else []
    want = ort("Pad", [x, np.array(pads, np.int64), *value], mode=mode)
    check(ours("pad", [x, *value], pads=pads, mode=mode), want)


def test_gathers() -> None:
    x, rng = floats(0, 4, 5, 3), np.random.default_rng(0)
    rows = rng.integers(-5, 5, (2, 3))
    check(ours("gather", [x, rows], axis=1), ort("Gather", [x, rows], axis=1))
    same = rng.integers(-4, 4, (2, 5, 3))
    check(ours("gather_elements", [x, same], axis=0), ort("GatherElements", [x, same], axis=0))
    points = rng.integers(-4, 4, (6, 2)) % 4
    check(ours("gather_nd", [x, points]), ort("GatherND", [x, points]))
    batch = rng.integers(-5, 5, (4, 2, 1))
    check(ours("gather_nd", [x, batch], batch_dims=1), ort("GatherND", [x, batch], batch_dims=1))


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatters(reduction: str) -> None:
    x, rng = floats(0, 4, 5), np.random.default_rng(0)
    indices = np.array([[0, 1, -1, 2, 0], [1, 1, 0, 0, 3]])
    updates = floats(1, 2, 5)
    attrs = {"axis": 0, "reduction": reduction}
    arrays = [x, indices, updates]
    check(ours("scatter_elements", arrays, **attrs), ort("ScatterElements", arrays, **attrs))
    where = np.array([[1, 2], [-1, 0], [1, 2]])
    arrays = [x, where, rng.uniform(-1, 1, 3).astype(np.float32)]
    check(
        ours("scatter_nd", arrays, reduction=reduction),
        ort("ScatterND", arrays, reduction=reduction),
    )


def test_softmax_and_layer_norm() -> None:
    x = floats(0, 3, 6, 5)
    for axis in range(3):
        check(ours("softmax", [x], axis=axis), ort("Softmax", [x], axis=axis))
    for axis in (1, 2):
        scale, bias = floats(1, *x.shape[axis:]), floats(2, *x.shape[axis:])
        want = ort("LayerNormalization", [x, scale, bias], axis=axis, epsilon=1e-4)
        check(ours("layer_norm", [x, scale, bias], axis=axis, epsilon=1e-4), want)


@pytest.mark.parametrize(
    ("a", "b"), [((4, 5), (5, 3)), ((2, 1, 4, 5), (3, 5, 2)), ((5, 4, 3), (3, 6))]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_matmul(a: tuple[int, ...], b: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-9, 9, shape).astype(dtype) for shape in (a, b))
    check(ours("matmul", [x, y]), ort("MatMul", [x, y]))


@pytest.mark.parametrize(
    ("starts", "stops", "steps"),
    [((1, 0), (4, 6), (1, 1)), ((0, 1), (5, 6), (2, 3)), ((4, 5), (0, 1), (-1, -2))],
)
def test_slice(starts: Any, stops: Any, steps: Any) -> None:
    x = floats(0, 5, 6)
    vectors = [np.array(v, np.int64) for v in (starts, stops, (0, 1), steps)]
    check(ours("slice", [x], starts=starts, stops=stops, steps=steps), ort("Slice", [x, *vectors]))
