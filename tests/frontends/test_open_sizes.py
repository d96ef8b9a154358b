"""Sizes that the model leaves open although an operator or another input says them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

import tensmith
from tensmith.compiler.errors import RunError, UnsupportedError
from tensmith.frontends.onnx import load_model
from tensmith.runtime.loader import ModuleError

from .amounts import i64
from .oracle import Array, check, floats, model, node, run_ort


def _open(
    nodes: list[onnx.NodeProto], feed: dict[str, Array], rank: int = 0, **constants: Array
) -> onnx.ModelProto:
    """No size of an input is a number. rank: what is declared of the result, if it is."""
    dims = {name: [f"{name}{axis}" for axis in range(a.ndim)] for name, a in feed.items()}
    proto = model(nodes, feed, ["y"], dims=dims, opset=21, constants=constants)
    if rank:
        shape = proto.graph.output[0].type.tensor_type.shape
        for axis in range(rank):
            shape.dim.add(dim_param=f"r{axis}")
    return proto


def _cases() -> Iterator[tuple[str, onnx.NodeProto, dict[str, Array], int]]:
    """Name, node, inputs, and the rank that has to be declared (0: none)."""
    x = floats(2, 3, 4)
    grid = {"x": floats(1, 2, 3, 4), "g": floats(1, 2, 2, 2)}
    yield "grid", node("GridSample", "x g"), grid, 0
    tuples = {"x": x, "i": i64([[1, 2], [0, 1]])}
    yield "tuples that are read", node("GatherND", "x i"), tuples, 2
    yield "tuples that are written", node("ScatterND", "x i u"), {**tuples, "u": floats(2, 4)}, 0
    yield "pads", node("Pad", "x p"), {"x": floats(2, 3), "p": i64([1, 0, 0, 2])}, 0
    yield "sums", node("CumSum", "x a"), {"x": x, "a": i64([1])}, 0
    yield "inserted", node("Unsqueeze", "x a"), {"x": x, "a": i64([0, 2])}, 5
    yield "removed", node("Squeeze", "x a"), {"x": x[:1], "a": i64([0])}, 2
    yield "reduced", node("ReduceSum", "x a", keepdims=0), {"x": x, "a": i64([2, 0])}, 1
    for name, listed in (("one", [1]), ("two", [-1, 0]), ("no", [])):
        yield f"{name} axes reduced", node("ReduceMean", "x a"), {"x": x, "a": i64(listed)}, 0
    kept = node("ReduceMax", "x a", noop_with_empty_axes=1)
    yield "none reduced", kept, {"x": x, "a": i64([])}, 0
    map_ = floats(1, 4, 5, 6)
    scales = np.array([1, 1, 2, 0.5], np.float32)
    yield "scales", node("Resize", "x - f"), {"x": map_, "f": scales}, 0
    filter_ = {"x": map_, "w": floats(4, 4, 3, 2)}
    yield "filter", node("Conv", "x w", kernel_shape=[3, 2]), filter_, 0
    yield "filter that spreads", node("ConvTranspose", "x w", kernel_shape=[3, 2]), filter_, 0
    steps = {"x": floats(5, 2, 3), "w": floats(1, 16, 3, seed=1), "r": floats(1, 16, 4, seed=2)}
    yield "recurrent", node("LSTM", "x w r", hidden_size=4), steps, 0
    bytes_ = {"x": np.arange(-6, 9).astype(np.int8).reshape(3, 5), "s": floats(3, 3)}
    yield "blocks of a scale", node("DequantizeLinear", "x s", axis=1, block_size=2), bytes_, 0
    blocks = {"x": floats(1, 9, 9), "s": i64([5, 5]), "b": i64([3, 3])}
    yield "blocks", node("Col2Im", "x s b"), blocks, 4


@pytest.mark.parametrize("case", list(_cases()), ids=lambda case: case[0])
def test_open_sizes(case: tuple[str, onnx.NodeProto, dict[str, Array], int]) -> None:
    _, made, feed, rank = case
    check(_open([made], feed, rank), feed)
    if rank:
        with pytest.raises(UnsupportedError, match=r"--shape|pin the"):
            load_model(_open([made], feed))


def test_as_many_parts_as_outputs() -> None:
    feed = {"x": floats(2, 5), "n": i64([2, 3])}
    check(_open([node("Split", "x n", "h y", axis=1)], feed), feed)


@pytest.mark.parametrize(
    ("size", "shape", "declared"),
    [
        ((2, 3), [], 0),
        ((2, 3), [3], 0),
        ((2, 3), [2, 1], 0),
        ((1, 2, 3), [5, 1, 1], 0),
        ((2, 3), [1], 2),
        ((1, 2, 3), [2, 1], 3),
        ((2, 3), [4, 1, 3], 3),
    ],
)
def test_shapes_that_a_run_gives_may_be_shorter_than_what_they_expand(
    size: tuple[int, ...], shape: list[int], declared: int
) -> None:
    feed = {"x": floats(*size), "s": i64(shape)}
    check(_open([node("Expand", "x s")], feed, declared), feed)


def test_longer_shapes_need_a_declared_result() -> None:
    feed = {"x": floats(2, 3), "s": i64([4, 1, 3])}
    with pytest.raises(RunError, match="declare its shape in the model"):
        check(_open([node("Expand", "x s")], feed), feed, expected={})


@pytest.mark.parametrize("known", ["starts", "ends", "axes", "steps"])
def test_one_input_says_how_many_axes_are_cut(known: str) -> None:
    x, rows = floats(6, 5), {"starts": [1, 0], "ends": [5, 3], "axes": [1, 0], "steps": [2, 1]}
    feed = {"x": x, **{name: i64(values) for name, values in rows.items()}}
    proto = _open([node("Slice", "x starts ends axes steps")], feed)
    with pytest.raises(UnsupportedError, match="pin the length"):
        load_model(proto)
    for info in proto.graph.input:
        if info.name == known:
            info.type.tensor_type.shape.dim[0].dim_value = 2
    check(proto, feed)


def test_a_run_checks_them() -> None:
    feed = {"x": floats(1, 2, 3, 4), "g": floats(1, 2, 2, 3)}
    proto = _open([node("GridSample", "x g")], feed)
    with pytest.raises(RunError, match=r"axis 3 of .* has to be 2"):
        check(proto, feed, expected={})


def test_a_number_made_of_an_open_vector(tmp_path: Path) -> None:
    """Constants meet what was reshaped from it."""
    feed = {"x": floats(4), "low": floats(1), "high": np.array([2], np.float32)}
    nodes = [
        node("Squeeze", "low a", "l"),
        node("Squeeze", "high a", "h"),
        node("Clip", "x l h", "y"),
    ]
    proto = _open(nodes, feed, a=i64([0]))
    onnx.save(proto, tmp_path / "model.onnx")
    found = tensmith.compile(tmp_path / "model.onnx").load()(feed)
    np.testing.assert_array_equal(found["y"], run_ort(proto, feed)["y"])


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose", "FusedConv"])
def test_the_filter_says_how_many_channels_there_are(operator: str, tmp_path: Path) -> None:
    feed, domain = {"x": floats(1, 4, 5, 6)}, "com.microsoft" if operator == "FusedConv" else ""
    weights = floats(4, 3, 3, 3) if operator == "ConvTranspose" else floats(3, 4, 3, 3)
    nodes = [node(operator, "x w b", "y", domain=domain)]
    proto = _open(nodes, feed, w=weights, b=floats(3, seed=1))
    if domain:
        proto.opset_import.add(domain=domain, version=1)
    onnx.save(proto, tmp_path / "model.onnx")
    module = tensmith.compile(tmp_path / "model.onnx").load()
    np.testing.assert_allclose(module(feed)["y"], run_ort(proto, feed)["y"], 1e-4, 1e-5)
    with pytest.raises(ModuleError, match=r"axis 1 of .* has to be 4"):
        module({"x": floats(1, 5, 5, 6)})
