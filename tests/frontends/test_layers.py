"""Convolution, pooling, normalisation, matrix products, reductions against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tensmith.compiler.errors import InvalidModelError
from tensmith.frontends.onnx import load_model

from .oracle import check, floats, model, node


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 1], "pads": [1, 0, 2, 1]},
        {"dilations": [2, 3], "pads": [2, 3, 2, 3]},
        {"strides": [2, 3], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 3], "auto_pad": "SAME_LOWER"},
        {"group": 2, "auto_pad": "VALID"},
    ],
)
def test_conv(attributes: dict[str, object]) -> None:
    x, w = floats(2, 4, 9, 8), floats(6, 4 // int(attributes.get("group", 1)), 3, 3, seed=1)
    constants = {"w": w, "b": floats(6, seed=2)}
    proto = model([node("Conv", "x w b", **attributes)], {"x": x}, ["y"], constants=constants)
    check(proto, {"x": x})


@pytest.mark.parametrize("rank", [1, 3])
def test_conv_of_other_ranks(rank: int) -> None:
    x, w = floats(1, 2, *[6] * rank), floats(3, 2, *[3] * rank, seed=1)
    check(model([node("Conv", "x w")], {"x": x}, ["y"], constants={"w": w}), {"x": x})


def test_conv_with_symbolic_size_and_same_padding() -> None:
    x, w = floats(2, 3, 7, 10), floats(4, 3, 3, 3, seed=1)
    proto = model(
        [node("Conv", "x w", auto_pad="SAME_UPPER", strides=[2, 2])],
        {"x": x},
        ["y"],
        constants={"w": w},
        dims={"x": ["n", 3, "h", "w"]},
    )
    check(proto, {"x": x})


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 2], "output_padding": [1, 1], "pads": [1, 1, 1, 1]},
        {"strides": [3, 2], "output_shape": [12, 9]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"group": 2, "dilations": [2, 1]},
    ],
)
def test_conv_transpose(attributes: dict[str, object]) -> None:
    x, w = floats(1, 4, 4, 4), floats(4, 3, 3, 3, seed=1)
    proto = model([node("ConvTranspose", "x w", **attributes)], {"x": x}, ["y"], constants={"w": w})
    check(proto, {"x": x})


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 0, 1]])
def test_pool(op: str, ceil: int, pads: list[int]) -> None:
    x = floats(1, 2, 8, 7)
    attributes = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": pads, "ceil_mode": ceil}
    check(model([node(op, "x", **attributes)], {"x": x}, ["y"], opset=19), {"x": x})


def test_average_pool_counts_padding_and_windows_larger_than_the_input() -> None:
    x = floats(1, 2, 5, 5)
    nodes = [
        node("AveragePool", "x", "a", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        node("AveragePool", "x", "b", kernel_shape=[64, 64], strides=[64, 64], ceil_mode=1),
    ]
    check(model(nodes, {"x": x}, ["a", "b"], opset=19), {"x": x})


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
def test_global_pool(op: str) -> None:
    x = floats(2, 3, 4, 5)
    check(model([node(op, "x")], {"x": x}, ["y"]), {"x": x})


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_normalization(opset: int) -> None:
    x = floats(2, 3, 4, 4)
    constants = {k: np.abs(floats(3, seed=i)) + 0.5 for i, k in enumerate("sbmv")}
    proto = model(
        [node("BatchNormalization", "x s b m v", epsilon=1e-3)],
        {"x": x},
        ["y"],
        constants=constants,
        opset=opset,
    )
    check(proto, {"x": x})


@pytest.mark.parametrize("opset", [7, 9, 12])
def test_batch_normalization_with_all_outputs_trains(opset: int) -> None:
    x = floats(2, 3, 4, 4)
    constants = {k: np.abs(floats(3, seed=i)) + 0.5 for i, k in enumerate("sbmv")}
    nodes = [node("BatchNormalization", "x s b m v", "y u w t i", momentum=0.7)]
    outputs = ["y", "u", "w", "t", "i"]
    check(model(nodes, {"x": x}, outputs, constants=constants, opset=opset), {"x": x})


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 4, 2)])
def test_batch_normalization_per_element(shape: tuple[int, ...]) -> None:
    x = floats(2, *shape)
    constants = {k: np.abs(floats(*shape, seed=i)) + 0.5 for i, k in enumerate("sbmv")}
    nodes = [node("BatchNormalization", "x s b m v", spatial=0)]
    check(model(nodes, {"x": x}, ["y"], constants=constants, opset=7), {"x": x})
    if x.ndim > 2:
        constants["s"] = constants["s"][:, 0]
        with pytest.raises(InvalidModelError, match="no scale for every element"):
            load_model(model(nodes, {"x": x}, ["y"], constants=constants, opset=7))


def test_layer_normalization_with_all_outputs() -> None:
    x = floats(2, 3, 8)
    constants = {"g": floats(3, 8, seed=1), "b": floats(3, 8, seed=2)}
    proto = model(
        [node("LayerNormalization", "x g b", "y m i", axis=1)],
        {"x": x},
        ["y", "m", "i"],
        constants=constants,
    )
    check(proto, {"x": x})


def test_instance_lp_mean_variance_and_local_response_normalization() -> None:
    x = floats(2, 6, 4, 4)
    nodes = [
        node("InstanceNormalization", "x g b", "i"),
        node("LpNormalization", "x", "l", axis=1, p=1),
        node("MeanVarianceNormalization", "x", "v"),
        node("LRN", "x", "r", size=3, alpha=0.1, bias=1.5),
    ]
    constants = {"g": floats(6, seed=1), "b": floats(6, seed=2)}
    check(model(nodes, {"x": x}, list("ilvr"), constants=constants), {"x": x})


def test_group_normalization() -> None:
    x = floats(2, 6, 4)
    constants = {"g": floats(6, seed=1), "b": floats(6, seed=2)}
    proto = model(
        [node("GroupNormalization", "x g b", num_groups=3)],
        {"x": x},
        ["y"],
        constants=constants,
        opset=21,
    )
    grouped = x.reshape(2, 3, 2, 4).astype(np.float64)
    mean, var = grouped.mean((2, 3), keepdims=True), grouped.var((2, 3), keepdims=True)
    want = ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    want = want * constants["g"][:, None] + constants["b"][:, None]
    check(proto, {"x": x}, expected={"y": want.astype(np.float32)})


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3,)),
        ((3,), (2, 3, 4)),
        ((3,), (3,)),
        ((2, 1, 4, 3), (5, 3, 2)),
    ],
)
def test_matmul(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = floats(*shapes[0]), floats(*shapes[1], seed=1)
    check(model([node("MatMul", "a b")], {"a": a, "b": b}, ["y"]), {"a": a, "b": b})


@pytest.mark.parametrize("flags", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_gemm(flags: tuple[int, int]) -> None:
    a = floats(4, 3) if flags[0] else floats(3, 4)
    b = floats(5, 4, seed=1) if flags[1] else floats(4, 5, seed=1)
    proto = model(
        [node("Gemm", "a b c", transA=flags[0], transB=flags[1], alpha=0.5, beta=2.0)],
        {"a": a},
        ["y"],
        constants={"b": b, "c": floats(5, seed=2)},
    )
    check(proto, {"a": a})


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bhqd,bhkd->bhqk", [(2, 2, 3, 4), (2, 2, 5, 4)]),
        ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
        ("ij->ji", [(2, 3)]),
        ("ij->i", [(2, 3)]),
        ("i,j->ij", [(2,), (3,)]),
        ("abc,cd,def->abef", [(2, 3, 4), (4, 5), (5, 2, 3)]),
        ("ij,kj", [(2, 3), (4, 3)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    inputs = {f"x{i}": floats(*shape, seed=i) for i, shape in enumerate(shapes)}
    proto = model([node("Einsum", " ".join(inputs), equation=equation)], inputs, ["y"])
    check(proto, inputs)


REDUCTIONS = ("Sum", "Mean", "Max", "Min", "Prod", "SumSquare", "L1", "L2", "LogSumExp")


@pytest.mark.parametrize("kind", REDUCTIONS)
@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(kind: str, opset: int, keepdims: int) -> None:
    x = floats(2, 3, 4)
    if opset >= 18 or (kind == "Sum" and opset >= 13):
        nodes = [node(f"Reduce{kind}", "x a", keepdims=keepdims)]
        constants = {"a": np.int64([-1, 0])}
    else:
        nodes, constants = [node(f"Reduce{kind}", "x", keepdims=keepdims, axes=[-1, 0])], {}
    check(model(nodes, {"x": x}, ["y"], constants=constants, opset=opset), {"x": x})


def test_reduction_without_axes() -> None:
    x = floats(2, 3)
    nodes = [node("ReduceSum", "x", "a"), node("ReduceSum", "x", "b", noop_with_empty_axes=1)]
    check(model(nodes, {"x": x}, ["a", "b"]), {"x": x})


@pytest.mark.parametrize("last", [0, 1])
def test_arg_and_cumsum(last: int) -> None:
    x = np.float32([[1, 3, 3, 2], [0, 0, -1, -1]])
    nodes = [
        node("ArgMax", "x", "a", axis=1, select_last_index=last),
        node("ArgMin", "x", "b", axis=-1, keepdims=0, select_last_index=last),
        node("CumSum", "x k", "c", exclusive=last, reverse=1 - last),
    ]
    kinds = [TensorProto.INT64, TensorProto.INT64, TensorProto.FLOAT]
    proto = model(nodes, {"x": x}, list("abc"), constants={"k": np.int64(1)}, types=kinds)
    check(proto, {"x": x})


@pytest.mark.parametrize("largest", [0, 1])
def test_top_k(largest: int) -> None:
    x = np.float32(np.random.default_rng(0).integers(0, 5, (3, 7, 2)))
    proto = model(
        [node("TopK", "x k", "v i", axis=1, largest=largest)],
        {"x": x},
        ["v", "i"],
        constants={"k": np.int64([4])},
        types=[TensorProto.FLOAT, TensorProto.INT64],
    )
    check(proto, {"x": x})
