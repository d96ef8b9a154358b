"""Weights of few bits stay as files have them, all the way to the binary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import InvalidModelError, RunError
from tensmith.compiler.ir.ops.packed import digits
from tensmith.frontends.onnx import load_model

from .oracle import floats, model, node, run_ort
from .ort_cases import OrtCase, check_all

MS = "com.microsoft"
Array = np.ndarray[Any, Any]
CODES = {
    TensorProto.INT4: (-8, 8), TensorProto.UINT4: (0, 16),
    TensorProto.INT8: (-128, 128), TensorProto.UINT8: (0, 256),
}  # fmt: skip


def dequantised(
    code: int, shape: tuple[int, int], block: int, *, zeros: bool, turned: bool, rows: int = 3
) -> OrtCase:
    """x times weights of a type in blocks along the sum, by Gemm where these are turned."""
    rng = np.random.default_rng(code)
    axis = 1 if turned else 0
    low, high = CODES[code]
    numbers = rng.integers(low, high, shape)
    sizes = [*shape]
    sizes[axis] = -(-sizes[axis] // block)
    scale = rng.uniform(0.01, 0.1, sizes).astype(np.float32)
    points = rng.integers(low, high, sizes)
    names = "Q S Z" if zeros else "Q S"
    nodes = [node("DequantizeLinear", names, "w", axis=axis, block_size=block)]
    x = floats(rows, shape[axis])
    if turned:
        nodes.append(node("Gemm", "x w B", transB=1))
    else:
        nodes.append(node("MatMul", "x w"))
    proto = model(nodes, {"x": x}, ["y"], constants={"S": scale, "B": floats(shape[0])}, opset=21)
    proto.graph.initializer.append(helper.make_tensor("Q", code, shape, numbers.reshape(-1)))
    if zeros:
        proto.graph.initializer.append(helper.make_tensor("Z", code, sizes, points.reshape(-1)))
    text = f"{TensorProto.DataType.Name(code)} {shape} by {block}, {zeros}, {turned}, {rows}"
    return OrtCase(text, proto, {"x": x}, atol=1e-4)


@pytest.mark.parametrize("code", CODES)
def test_blocks(code: int, tmp_path: Path) -> None:
    """Also where the last block is not full, and with an odd number of columns."""
    cases = [
        dequantised(code, shape, 32, zeros=zeros, turned=turned, rows=rows)
        for shape, turned, rows in (
            ((160, 129), False, 1), ((150, 128), False, 4), ((128, 160), True, 17),
            ((131, 150), True, 2),
        )
        for zeros in (False, True)
    ]  # fmt: skip
    check_all(cases, tmp_path)


def test_order_of_groups(tmp_path: Path) -> None:
    """Steps of the sum take scales in any order, some blocks of more steps than others."""
    rng = np.random.default_rng(0)
    rows, depth, block = 6, 64, 16
    cases = []
    for bits in (2, 4, 8):
        packed = rng.integers(0, 256, (rows, 4, block * bits // 8)).astype(np.uint8)
        flags = np.unpackbits(packed.reshape(rows, -1), -1, bitorder="little")
        numbers = (flags.reshape(rows, depth, bits) << np.arange(bits)).sum(-1)
        scales, x = floats(rows, 4, seed=1), floats(3, depth)
        for text, order in (
            ("even", rng.permutation(depth) // block),
            ("uneven", rng.integers(0, 4, depth)),
        ):
            made = node("MatMulNBits", "x W S - G", domain=MS, N=rows, K=depth,
                        block_size=block, bits=bits)  # fmt: skip
            constants = {"W": packed, "S": scales, "G": order.astype(np.int32)}
            proto = model([made], {"x": x}, ["y"], constants=constants, domains=[MS])
            real = (numbers - (1 << (bits - 1))) * scales[:, order]
            want = {"y": (x.astype(np.float64) @ real.T).astype(np.float32)}
            case = OrtCase(f"{bits} bits, {text}", proto, {"x": x}, atol=1e-4)
            cases.append(replace(case, expected=want))
    check_all(cases, tmp_path)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_narrow_zero_points(bits: int, kind: Any, tmp_path: Path) -> None:
    """Zero points between the integers keep their digits, whatever the data is of."""
    rng = np.random.default_rng(0)
    rows, depth, block = 24, 64, 32
    packed = rng.integers(0, 256, (rows, 2, block * bits // 8)).astype(np.uint8)
    scales = rng.uniform(0.01, 0.1, (rows, 2)).astype(np.float32)
    zeros = rng.uniform(0.1, 0.9, (rows, 2)).astype(kind)
    x = rng.uniform(0, 1, (5, depth)).astype(np.float32)
    made = node("MatMulNBits", "x W S Z", domain=MS, N=rows, K=depth, block_size=block, bits=bits)
    constants = {"W": packed, "S": scales, "Z": zeros}
    proto = model([made], {"x": x}, ["y"], constants=constants, domains=[MS])
    numbers = digits(packed, bits).reshape(rows, 2, block).astype(np.float64)
    real = (numbers - zeros[..., None].astype(np.float64)) * scales[..., None]
    want = {"y": (x.astype(np.float64) @ real.reshape(rows, -1).T).astype(np.float32)}
    check_all([OrtCase("zeros", proto, {"x": x}, 1e-5, 1e-4, expected=want)], tmp_path)


def of_steps(steps: int | str, given: int, order: bool = False) -> tuple[onnx.ModelProto, Array]:
    """A product with weights of 40 steps, whose data is said to have others; and data."""
    rng = np.random.default_rng(0)
    constants = {
        "W": rng.integers(0, 256, (8, 3, 8)).astype(np.uint8),
        "S": floats(8, 3),
        "G": rng.permutation(40).astype(np.int32) // 16,
    }
    names = "x W S - G" if order else "x W S"
    made = node("MatMulNBits", names, domain=MS, N=8, K=40, block_size=16, bits=4)
    x = floats(2, given)
    proto = model([made], {"x": x}, ["y"], constants=constants, domains=[MS])
    dim = proto.graph.input[0].type.tensor_type.shape.dim[1]
    if isinstance(steps, str):
        dim.dim_param = steps
    else:
        dim.dim_value = steps
    return proto, x


@pytest.mark.parametrize("order", [False, True])
def test_data_of_other_steps(order: bool, tmp_path: Path) -> None:
    """Data has the steps of the weights, which a run checks where they are left open."""
    for steps in (20, 48):
        with pytest.raises(InvalidModelError, match="has to be 40"):
            load_model(of_steps(steps, steps, order)[0])
    known, x = of_steps(40, 40, order)
    proto, _ = of_steps("k", 40, order)
    want = run_graph(load_model(known), {"x": x})
    check_all([OrtCase("open", proto, {"x": x}, expected=want)], tmp_path)
    for other in (20, 48):
        with pytest.raises(RunError, match="has to be 40"):
            run_graph(load_model(proto), {"x": floats(2, other)})


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_that_the_run_gives(bits: int, tmp_path: Path) -> None:
    """As ONNX Runtime computes them as constants, with packed zero points, floats and none."""
    rng = np.random.default_rng(bits)
    depth, rows, blocks = 40, 5, 3
    x = floats(2, 3, depth)
    weights = {
        "W": rng.integers(0, 256, (rows, blocks, 2 * bits)).astype(np.uint8),
        "S": floats(rows, blocks, seed=1),
    }
    few = rng.integers(0, 256, (rows, -(-blocks * bits // 8))).astype(np.uint8)
    cases = []
    points = {"packed": few, "floats": floats(rows, blocks, seed=2), "none": None}
    if bits == 8:  # for which ONNX Runtime has no kernel
        del points["floats"]
    for name, zeros in points.items():
        given = weights if zeros is None else {**weights, "Z": zeros}
        made = node("MatMulNBits", " ".join(["x", *given]), domain=MS, bits=bits, K=depth, N=rows,
                    block_size=16)  # fmt: skip
        known = model([made], {"x": x}, ["y"], constants=given, domains=[MS])
        feed = {"x": x, **given}
        proto = model([made], feed, ["y"], domains=[MS])
        cases.append(OrtCase(name, proto, feed, atol=1e-4, expected=run_ort(known, {"x": x})))
    check_all(cases, tmp_path)


def test_experts_of_other_steps() -> None:
    constants = {
        "U": np.zeros((2, 16, 16), np.uint8), "A": floats(2, 16),
        "D": np.zeros((2, 32, 8), np.uint8), "B": floats(2, 32),
    }  # fmt: skip
    made = node("QMoE", "x r U A - D B", domain=MS, k=1, expert_weight_bits=4)
    for width in (30, 36):
        inputs = {"x": floats(3, width), "r": floats(3, 2)}
        proto = model([made], inputs, ["y"], constants=constants, domains=[MS])
        with pytest.raises(InvalidModelError, match="has to be 32"):
            load_model(proto)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_binary_is_as_large_as_the_file(bits: int, tmp_path: Path) -> None:
    """Beside code and the runtime, a binary holds what the file does."""
    rng = np.random.default_rng(0)
    width, block = 1024, 32
    weights = rng.integers(0, 256, (width, width // block, block * bits // 8)).astype(np.uint8)
    scales = rng.uniform(0.01, 0.1, (width, width // block)).astype(np.float32)
    made = node("MatMulNBits", "x W S", domain=MS, N=width, K=width, block_size=block, bits=bits)
    constants = {"W": weights, "S": scales}
    proto = model([made], {"x": floats(1, width)}, ["y"], constants=constants, domains=[MS])
    artifact = tensmith.compile(proto, target="x86-64-v3")
    told = artifact.manifest["contractions"]
    assert [item["precision"] for item in told] == [f"int{bits} weights"]
    given = weights.nbytes + scales.nbytes
    assert given <= artifact.weights.stat().st_size <= 1.01 * given


def test_initialisers_are_views_of_the_file(tmp_path: Path) -> None:
    """Neither read nor unpacked: bytes of the mapped file."""
    path = tmp_path / "model.onnx"
    proto = dequantised(TensorProto.INT4, (256, 128), 32, zeros=False, turned=False).proto
    [tensor] = [t for t in proto.graph.initializer if t.name == "Q"]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), "Q"))
    onnx.save(proto, path, save_as_external_data=True, location="data", size_threshold=1024)
    graph = tensmith.frontends.onnx.load(path)
    [unpack] = [item for item in graph.nodes if item.op == "unpack"]
    packed = unpack.inputs[0].data
    assert packed is not None
    assert isinstance(packed.base, np.memmap)
    assert packed.nbytes == 256 * 128 // 2


def test_constants_in_nodes_are_packed(tmp_path: Path) -> None:
    case = dequantised(TensorProto.UINT4, (256, 128), 32, zeros=False, turned=False)
    graph = case.proto.graph
    [tensor] = [t for t in graph.initializer if t.name == "Q"]
    graph.node.insert(0, helper.make_node("Constant", [], ["Q"], value=tensor))
    graph.initializer.remove(tensor)
    [unpack] = [n for n in load_model(case.proto).nodes if n.op == "unpack"]
    assert unpack.inputs[0].type.elements == 256 * 128 // 2
    check_all([case], tmp_path)


@pytest.mark.parametrize("where", ["raw_data", "int32_data"])
def test_truncated_packed_weights(where: str) -> None:
    case = dequantised(TensorProto.INT4, (256, 128), 32, zeros=False, turned=False)
    [tensor] = [t for t in case.proto.graph.initializer if t.name == "Q"]
    array = numpy_helper.to_array(tensor)
    if where == "raw_data":
        tensor.CopyFrom(numpy_helper.from_array(array, "Q"))
        tensor.raw_data = tensor.raw_data[:-1]
    else:
        del tensor.int32_data[-1]
    with pytest.raises(InvalidModelError, match="16384 expected"):
        load_model(case.proto)


def test_tables(tmp_path: Path) -> None:
    """Rows of embeddings, with scales of blocks, of rows or one."""
    rng = np.random.default_rng(0)
    cases, index = [], np.array([[3, 0, 511], [7, 7, -2]])
    for code, (low, high) in CODES.items():
        numbers = rng.integers(low, high, (512, 64))
        for text, sizes, attributes in (
            ("blocks", (512, 2), {"axis": 1, "block_size": 32}),
            ("rows", (512,), {"axis": 0}),
            ("one", (), {}),
        ):
            scale = rng.uniform(0.01, 0.1, sizes).astype(np.float32)
            nodes = [
                node("DequantizeLinear", "Q S Z", "w", **attributes),
                node("Gather", "w i"),
            ]
            proto = model(nodes, {"i": index}, ["y"], constants={"S": scale}, opset=21)
            zeros = rng.integers(low, high, sizes)
            for name, data, dims in (("Q", numbers, numbers.shape), ("Z", zeros, sizes)):
                tensor = helper.make_tensor(name, code, dims, np.asarray(data).reshape(-1))
                proto.graph.initializer.append(tensor)
            name = f"{TensorProto.DataType.Name(code)}, {text}"
            cases.append(OrtCase(name, proto, {"i": index}))
    check_all(cases, tmp_path)
