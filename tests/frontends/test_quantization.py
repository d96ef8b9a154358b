"""Quantised operators against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tensmith.backends.reference import run_graph
from tensmith.frontends.onnx import load_model

from .oracle import check, floats, model, node

U8, I8 = TensorProto.UINT8, TensorProto.INT8


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_quantize_and_dequantize(dtype: type) -> None:
    x = floats(3, 4) * 20
    constants = {"s": np.float32(0.13), "z": dtype(5)}
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    kinds = [U8 if dtype is np.uint8 else I8, TensorProto.FLOAT]
    check(model(nodes, {"x": x}, ["q", "y"], constants=constants, types=kinds), {"x": x})


def test_per_axis() -> None:
    x = floats(3, 4, 2) * 20
    constants = {"s": np.float32([0.1, 0.2, 0.3, 0.4]), "z": np.array([0, 1, 2, 3], np.int8)}
    nodes = [
        node("QuantizeLinear", "x s z", "q", axis=1),
        node("DequantizeLinear", "q s z", "y", axis=-2),
    ]
    check(model(nodes, {"x": x}, ["q", "y"], constants=constants, types=[I8, 1]), {"x": x})


def test_blocks() -> None:
    x = floats(4, 6)
    q = np.arange(24).reshape(4, 6).astype(np.int8)
    constants = {"q": q, "s": np.float32(np.arange(1, 13).reshape(2, 6) / 8)}
    nodes = [node("DequantizeLinear", "q s", "w", axis=0, block_size=2), node("Add", "x w")]
    check(model(nodes, {"x": x}, ["y"], constants=constants, opset=21), {"x": x})


def test_four_bit_weights_are_unpacked() -> None:
    x = floats(2, 3)
    values = np.array([[-8, 7, 3], [1, -1, 0]])
    proto = model(
        [node("DequantizeLinear", "q s", "w"), node("Add", "x w")],
        {"x": x},
        ["y"],
        constants={"s": np.float32(0.5)},
        opset=21,
    )
    packed = helper.make_tensor("q", TensorProto.INT4, (2, 3), values.reshape(-1))
    proto.graph.initializer.append(packed)
    found = run_graph(load_model(proto), {"x": x})["y"]
    np.testing.assert_allclose(found, x + values * 0.5, rtol=1e-6)


def test_dynamic_quantize() -> None:
    x = floats(3, 4)
    proto = model(
        [node("DynamicQuantizeLinear", "x", "y s z")], {"x": x}, ["y", "s", "z"], types=[U8, 1, U8]
    )
    check(proto, {"x": x})


def test_integer_matmul_and_conv() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 255, (3, 4)).astype(np.uint8)
    p = rng.integers(0, 255, (1, 2, 5, 5)).astype(np.uint8)
    constants = {
        "b": rng.integers(-128, 127, (4, 5)).astype(np.int8),
        "az": np.uint8(7),
        "bz": rng.integers(-5, 5, 5).astype(np.int8),
        "w": rng.integers(0, 255, (3, 2, 3, 3)).astype(np.uint8),
        "wz": np.uint8(11),
    }
    nodes = [node("MatMulInteger", "a b az bz", "m"), node("ConvInteger", "p w az wz", "c")]
    inputs = {"a": a, "p": p}
    proto = model(nodes, inputs, ["m", "c"], constants=constants, types=[TensorProto.INT32] * 2)
    check(proto, inputs)


def test_quantised_conv_and_matmul() -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 255, (1, 2, 6, 6)).astype(np.uint8)
    a = rng.integers(0, 255, (3, 4)).astype(np.uint8)
    constants = {
        "xs": np.float32(0.02),
        "xz": np.uint8(120),
        "ys": np.float32(0.35),
        "yz": np.uint8(100),
        "w": rng.integers(-100, 100, (3, 2, 3, 3)).astype(np.int8),
        "ws": np.float32([0.02, 0.03, 0.05]),
        "wz": np.zeros(3, np.int8),
        "bias": rng.integers(-900, 900, 3).astype(np.int32),
        "b": rng.integers(0, 255, (4, 5)).astype(np.uint8),
        "bs": np.float32(0.03),
        "bz": np.uint8(128),
    }
    nodes = [
        node("QLinearConv", "x xs xz w ws wz ys yz bias", "c", pads=[1, 1, 1, 1]),
        node("QLinearMatMul", "a xs xz b bs bz ys yz", "m"),
    ]
    inputs = {"x": x, "a": a}
    check(model(nodes, inputs, ["c", "m"], constants=constants, types=[U8, U8]), inputs, atol=1)


def test_quantising_to_four_bits_saturates() -> None:
    x = np.array([-9.0, -8.4, -2.5, -0.5, 0.49, 1.5, 6.6, 7.9], np.float32)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"], output_dtype=TensorProto.INT4),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    proto = model(nodes, {"x": x}, ["y"], constants={"s": np.float32(0.5)}, opset=21)
    found = run_graph(load_model(proto), {"x": x})["y"]
    np.testing.assert_array_equal(found, np.clip(np.round(x / 0.5), -8, 7) * 0.5)


def test_weights_that_the_model_quantises_are_constant_bytes() -> None:
    """As tools write them that train with rounded weights, clipped to fewer bits too."""
    x, w = floats(2, 3, 5, 5), floats(4, 3, 3, 3)
    constants = {
        "w": w,
        "s": np.abs(w).max((1, 2, 3)) / 7,
        "z": np.zeros(4, np.int8),
        "low": np.int8(-7),
        "high": np.int8(7),
    }
    nodes = [
        node("QuantizeLinear", "w s z", "q", axis=0),
        node("Clip", "q low high", "c"),
        node("DequantizeLinear", "c s z", "r", axis=0),
        node("Conv", "x r", "y"),
    ]
    proto = model(nodes, {"x": x}, ["y"], constants=constants, opset=17)
    check(proto, {"x": x})
    graph = load_model(proto)
    [real] = [made for made in graph.nodes if made.op == "dequantize"]
    wanted = np.rint(w / constants["s"].reshape(4, 1, 1, 1))
    assert real.inputs[0].data is not None
    np.testing.assert_array_equal(real.inputs[0].data, wanted)


def test_weights_that_the_model_quantises_to_four_bits_are_packed() -> None:
    x, w = floats(2, 32), floats(32, 7)
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s"], ["q"], output_dtype=TensorProto.INT4),
        node("DequantizeLinear", "q s", "r"),
        node("MatMul", "x r", "y"),
    ]
    constants = {"w": w, "s": np.float32(0.25)}
    proto = model(nodes, {"x": x}, ["y"], constants=constants, opset=21)
    graph = load_model(proto)
    [packed] = [made for made in graph.nodes if made.op == "unpack"]
    assert packed.inputs[0].data is not None
    assert packed.inputs[0].data.nbytes == w.size // 2
    found = run_graph(graph, {"x": x})["y"]
    np.testing.assert_allclose(found, x @ (np.clip(np.rint(w * 4), -8, 7) / 4), rtol=1e-5)
