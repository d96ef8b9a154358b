"""What a run may decide that exporters mostly fix: weights of 4 bits, sizes of heads, beams of a
cache; and bounds, places and logarithms at their edges. Beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import UnsupportedError
from tensmith.frontends.onnx import load_model

from .oracle import check, floats, model, node, run_ort
from .sweeps import Feed, Sweep, differences

MS = "com.microsoft"
Array = np.ndarray


def ms(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> list[onnx.NodeProto]:
    return [node(op, inputs, outputs, domain=MS, **attributes)]


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("block", [16, 64])
def test_floats_of_four_bits_that_a_run_makes(kind: int, block: int) -> None:
    rows, depth = 5, 32
    scales = np.abs(floats(-(-rows * depth // block), seed=1))
    codes = np.random.default_rng(2).integers(0, 256, rows * depth // 2).astype(np.uint8)
    feed = {"x": floats(3, depth), "s": scales, "w": codes}
    part = ms("MatMulBnb4", "x w s", K=depth, N=rows, block_size=block, quant_type=kind)
    check(model(part, feed, ["y"], domains=[MS]), feed)


@pytest.mark.parametrize("offset", [0, 1])
def test_a_weight_in_blocks_with_its_scales(offset: int) -> None:
    depth, rows = 64, 3
    rng = np.random.default_rng(offset)
    blob = rng.integers(0, 256, (rows, depth // 32, 4 + offset + 16)).astype(np.uint8)
    scales = np.abs(floats(rows, depth // 32, 1, seed=3))
    blob[..., :4] = scales.view(np.uint8)
    blob[..., 4 : 4 + offset] &= 15
    feed, part = {"x": floats(2, depth)}, ms("MatMulFpQ4", "x w n", blk_quant_type=offset)
    constants = {"w": blob.reshape(-1), "n": np.array([depth, rows])}
    check(model(part, feed, ["y"], constants=constants, domains=[MS]), feed, rtol=1e-3, atol=1e-3)
    other = ms("MatMulFpQ4", "x w n", blk_quant_type=2)
    with pytest.raises(UnsupportedError, match="use 0 or 1"):
        load_model(model(other, feed, ["y"], constants=constants, domains=[MS]))


def test_an_operator_that_does_nothing() -> None:
    feed = {"x": floats(2, 3)}
    check(model(ms("SampleOp", "x"), feed, ["y"], domains=[MS]), feed)


def sizes() -> list[Sweep]:
    """Heads whose size only a run knows: rotated ones, packed ones, keys of a cache of beams."""
    turned = []
    for size in (4, 8):
        angles = floats(9, size // 2, seed=2)
        turned.append(
            {"x": floats(2, 3, 2 * size), "c": np.cos(angles), "s": np.sin(angles),
             "p": np.array([[0, 4, 2], [1, 8, 3]])}
        )  # fmt: skip
    grouped = []
    for size in (16, 32):
        angles = floats(12, size // 2, seed=2)
        grouped.append(
            {"q": floats(1, 2, 2 * size), "k": floats(1, 2, size), "v": floats(1, 2, size, seed=1),
             "l": np.array([1], np.int32), "t": np.array(2, np.int32),
             "c": np.cos(angles), "s": np.sin(angles)}
        )  # fmt: skip
    beams = []
    for past, room in ((2, 5), (1, 3)):
        shape = (6, 2, room, 4)
        beams.append(
            {"q": floats(6, 1, 8), "k": floats(6, 1, 8, seed=1), "v": floats(6, 1, 8, seed=2),
             "pk": floats(*shape, seed=3), "pv": floats(*shape, seed=4),
             "n": np.array([past], np.int32),
             "i": np.random.default_rng(5).integers(0, 3, (2, 3, room)).astype(np.int32)}
        )  # fmt: skip
    more: dict[str, Any] = {"domains": [MS], "from_shapes": False}
    return [
        Sweep("rotation", ms("RotaryEmbedding", "x p c s"), turned, **more),
        Sweep("groups", ms("GroupQueryAttention", "q k v - - l t c s", "y pk pv", num_heads=2,
              kv_num_heads=1, do_rotary=1), grouped, "y pk pv", fixed="l t", **more),
        Sweep("beams", ms("MultiHeadAttention", "q k v - - - pk pv n i", "y pk1 pv1",
              num_heads=2), beams, "y pk1 pv1", **more),
    ]  # fmt: skip


def test_sizes_of_heads_and_beams_that_a_run_knows(tmp_path: Path) -> None:
    wrong = differences(sizes(), tmp_path, [])
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_sizes_of_heads_and_beams_compiled(tmp_path: Path) -> None:
    wrong = differences(sizes(), tmp_path, [2], reference=False)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("opset", [6, 11, 13])
@pytest.mark.parametrize("bounds", ["", "min", "max"])
def test_a_bound_that_is_missing_is_the_largest_float(opset: int, bounds: str) -> None:
    kinds = [np.float32] if opset < 12 else [np.float32, np.float64, np.float16]
    for kind in kinds:
        feed: Feed = {"x": np.array([-np.inf, np.inf, np.nan, 2.0, -2.0], kind)}
        limit = np.array(1.0 if bounds == "max" else -1.0, kind)
        part = node("Clip", "x" if not bounds else "x low" if bounds == "min" else "x - high")
        constants = {"low" if bounds == "min" else "high": limit} if bounds else {}
        if opset < 11:
            part, constants = node("Clip", "x", **({bounds: float(limit)} if bounds else {})), {}
        code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        proto = model([part], dict(feed), ["y"], constants=constants, opset=opset, types=[code])
        found, want = run_graph(load_model(proto), feed)["y"], run_ort(proto, dict(feed))["y"]
        assert found.dtype == want.dtype
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("opset", [13, 18])
def test_logarithms_of_sums_of_integers(kind: type, opset: int) -> None:
    x = np.array([[[3], [-2], [1]], [[5], [5], [0]]], kind)
    code = TensorProto.INT32 if kind is np.int32 else TensorProto.INT64
    for axes in ([0], [1], [2], [0, 1]):
        attributes: dict[str, Any] = {"axes": axes} if opset < 18 else {}
        part = node("ReduceLogSumExp", "x" if opset < 18 else "x a", keepdims=0, **attributes)
        constants = {"a": np.array(axes)} if opset >= 18 else {}
        check(model([part], {"x": x}, ["y"], constants=constants, opset=opset, types=[code]),
              {"x": x})  # fmt: skip


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.float32])
def test_places_of_maxima_are_never_in_the_padding(kind: type) -> None:
    """Elements that are the least of their type, beside padding that counts for no more."""
    least = -np.inf if kind is np.float32 else np.iinfo(kind).min
    x = np.full((1, 1, 4, 3), least, kind)
    x[0, 0, 2, 1] = 1
    part = node("MaxPool", "x", "y z", kernel_shape=[2, 2], pads=[1, 1, 1, 1], dilations=[2, 1],
                storage_order=1)  # fmt: skip
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    proto = model([part], {"x": x}, ["y", "z"], types=[code, TensorProto.INT64])
    found, want = run_graph(load_model(proto), {"x": x}), run_ort(proto, {"x": x})
    assert found["z"].tolist() == want["z"].tolist()
