"""Elementwise operators and activations against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import RunError
from tensmith.frontends.onnx import load_model

from .oracle import check, floats, model, node

UNARY = [
    "Neg",
    "Abs",
    "Sign",
    "Ceil",
    "Floor",
    "Round",
    "Sqrt",
    "Exp",
    "Log",
    "Sin",
    "Cos",
    "Tan",
    "Atan",
    "Sinh",
    "Cosh",
    "Tanh",
    "Asinh",
    "Erf",
    "Sigmoid",
    "Reciprocal",
    "Relu",
    "LeakyRelu",
    "Elu",
    "Celu",
    "Selu",
    "HardSigmoid",
    "HardSwish",
    "Softplus",
    "Softsign",
    "Mish",
    "ThresholdedRelu",
    "Shrink",
]


@pytest.mark.parametrize("op", UNARY)
def test_unary(op: str) -> None:
    x = np.abs(floats(3, 5)) + 0.1 if op in ("Sqrt", "Log") else floats(3, 5) * 2
    opset = 18 if op == "Mish" else 17
    check(model([node(op, "x")], {"x": x}, ["y"], opset=opset), {"x": x})


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow"])
def test_binary_broadcasts(op: str) -> None:
    x, b = np.abs(floats(2, 3, 4)) + 0.5, np.abs(floats(3, 1, seed=1)) + 0.5
    check(model([node(op, "x b")], {"x": x, "b": b}, ["y"]), {"x": x, "b": b})


@pytest.mark.parametrize("op", ["Div", "Mod", "Add", "BitShift"])
def test_integers(op: str) -> None:
    rng = np.random.default_rng(0)
    unsigned = op == "BitShift"
    dtype = np.uint32 if unsigned else np.int64
    x = rng.integers(0 if unsigned else -20, 20, (4, 5)).astype(dtype)
    b = rng.integers(1, 7, (4, 5)).astype(dtype)
    attributes = {"direction": "LEFT"} if unsigned else {}
    kind = [TensorProto.UINT32 if unsigned else TensorProto.INT64]
    proto = model([node(op, "x b", **attributes)], {"x": x, "b": b}, ["y"], types=kind)
    check(proto, {"x": x, "b": b})


@pytest.mark.parametrize("op", ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
def test_comparisons(op: str) -> None:
    x, b = np.float32([1, 2, 3]), np.float32([3, 2, 1])
    proto = model([node(op, "x b")], {"x": x, "b": b}, ["y"], types=[TensorProto.BOOL])
    check(proto, {"x": x, "b": b})


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate: str) -> None:
    x = floats(4, 9)
    proto = model([node("Gelu", "x", approximate=approximate)], {"x": x}, ["y"], opset=20)
    check(proto, {"x": x})


def test_prelu_max_min_mean_where() -> None:
    x, slope = floats(2, 3, 4), floats(3, 1, seed=1)
    nodes = [
        node("PRelu", "x s", "p"),
        node("Max", "x p s", "hi"),
        node("Min", "x p s", "lo"),
        node("Mean", "hi lo p", "m"),
        node("Greater", "x m", "c"),
        node("Where", "c hi lo", "y"),
    ]
    proto = model(nodes, {"x": x}, ["m", "y"], constants={"s": slope})
    check(proto, {"x": x})


@pytest.mark.parametrize("opset", [7, 11, 13])
def test_clip_versions(opset: int) -> None:
    x = floats(10)
    if opset < 11:
        proto = model([node("Clip", "x", min=-0.5, max=0.25)], {"x": x}, ["y"], opset=opset)
    else:
        limits = {"hi": np.float32(0.25)}
        proto = model([node("Clip", "x - hi")], {"x": x}, ["y"], constants=limits, opset=opset)
    check(proto, {"x": x})


@pytest.mark.parametrize("opset", [7, 12, 13])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_versions(op: str, opset: int, axis: int) -> None:
    x = floats(2, 3, 4)
    check(model([node(op, "x", axis=axis)], {"x": x}, ["y"], opset=opset), {"x": x})


@pytest.mark.parametrize("to", [TensorProto.INT32, TensorProto.BOOL, TensorProto.FLOAT16])
def test_cast(to: int) -> None:
    x = np.float32([-1.7, 0, 0.5, 3.2])
    check(model([node("Cast", "x", to=to)], {"x": x}, ["y"], types=[to]), {"x": x})


def test_dropout_is_identity() -> None:
    x = floats(2, 3)
    check(model([node("Dropout", "x")], {"x": x}, ["y"], opset=13), {"x": x})


@pytest.mark.parametrize(
    ("opset", "kind"), [(7, TensorProto.FLOAT), (10, TensorProto.BOOL), (13, TensorProto.BOOL)]
)
def test_the_mask_of_a_dropout_that_is_off(opset: int, kind: int) -> None:
    made = node("Dropout", "x", "y m")
    proto = model(
        [made], {"x": floats(2, 3)}, ["y", "m"], opset=opset, types=[TensorProto.FLOAT, kind]
    )
    check(proto, {"x": floats(2, 3)})


def test_pow_of_integers_with_a_float_exponent() -> None:
    x = np.array([1, 2, 3], np.int32)
    proto = model(
        [node("Pow", "x e")],
        {"x": x},
        ["y"],
        constants={"e": np.float32([2, 0.5, 3])},
        types=[TensorProto.INT32],
    )
    check(proto, {"x": x})


@pytest.mark.parametrize("op", ["Div", "Mod"])
def test_integers_divided_by_zero_end_the_run(op: str) -> None:
    given = {"a": np.int32([7, 8, 9]), "b": np.int32([2, 0, 4])}
    graph = load_model(model([node(op, "a b")], given, ["y"], types=[TensorProto.INT32]))
    with pytest.raises(RunError, match=rf"\({op}\): division by zero"):
        run_graph(graph, given)
    constant = model([node(op, "a b")], {"a": given["a"]}, ["y"],
                     constants={"b": np.int32([2, 3, 4])}, types=[TensorProto.INT32])  # fmt: skip
    assert [n.op for n in load_model(constant).nodes] == [op.lower()]
