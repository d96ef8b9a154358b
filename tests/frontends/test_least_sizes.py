"""Sizes that are simpler since the model cannot run with less: what exporters write for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import tensmith
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import symbols_of
from tensmith.frontends.onnx import load_model
from tensmith.frontends.onnx.least_sizes import least_sizes
from tensmith.runtime.loader import ModuleError

from .amounts import i64
from .oracle import Array, check, floats, model, node

KERNEL = {"pads": [1, 1, 1, 1], "strides": [2, 2]}


def _sums(kernel: int = 3, before: bool = True) -> onnx.ModelProto:
    """The result of a strided convolution of s elements and a map of (s - 1) / 2 + 1, added up:
    what the exporter of PyTorch writes for a reshape to sizes that it knows.

    before: the size is computed in front of the convolution."""
    sizes = [
        node("Shape", "x", "n", start=2, end=4),
        node("Sub", "n one", "less"),
        node("Div", "less two", "half"),
        node("Add", "half one", "windows"),
        node("Concat", "lead windows", "shape", axis=0),
        node("Expand", "zero shape", "wide"),
    ]
    windows = [node("Conv", "x w", "c", **KERNEL)]
    nodes = [*sizes, *windows] if before else [*windows, *sizes]
    constants = {"one": i64(1), "two": i64(2), "lead": i64([1, 2]), "zero": np.float32([[[[0]]]]),
                 "w": floats(2, 3, kernel, kernel)}  # fmt: skip
    x = floats(1, 3, 5, 6)
    nodes.append(node("Add", "c wide"))
    return model(nodes, {"x": x}, ["y"], constants=constants, dims={"x": [1, 3, "h", "w"]})


def _ops(graph: Graph, op: str) -> int:
    return sum(item.op == op for item in graph.walk())


@pytest.mark.parametrize("before", [True, False])
def test_a_truncated_quotient_is_the_number_of_windows(before: bool, tmp_path: Path) -> None:
    proto = _sums(before=before)
    graph = load_model(proto)
    assert _ops(graph, "expand") == 0
    (output,) = graph.outputs
    assert [str(dim) for dim in output.shape[2:]] == ["floordiv(h + 1, 2)", "floordiv(w + 1, 2)"]
    onnx.save(proto, tmp_path / "model.onnx")
    module = tensmith.compile(tmp_path / "model.onnx").load()
    for height, width in ((5, 6), (1, 1), (2, 9)):
        feed: dict[str, Array] = {"x": floats(1, 3, height, width)}
        check(proto, feed)
        assert module(feed)["y"].shape == (1, 2, (height + 1) // 2, (width + 1) // 2)


def test_a_run_with_less_ends_with_what_needs_more(tmp_path: Path) -> None:
    onnx.save(_sums(), tmp_path / "model.onnx")
    module = tensmith.compile(tmp_path / "model.onnx").load()
    with pytest.raises(ModuleError, match=r"\(conv\) needs 3 <= h \+ 2, where h is dimension 2"):
        module({"x": floats(1, 3, 0, 6)})


def test_symbols_keep_their_names() -> None:
    graph = load_model(_sums())
    dims = [dim for item in graph.walk() for v in item.outputs for dim in v.shape]
    assert {str(dim) for dim in graph.inputs[0].shape[2:]} == {"h", "w"}
    assert {name for dim in dims for name in symbols_of(dim)} <= {"h", "w"}


def test_what_no_result_depends_on_needs_nothing() -> None:
    """A convolution of which only the shape is used, and one of which nothing is."""
    nodes = [node("Conv", "x w", "c", **KERNEL), node("Shape", "c", "y")]
    proto = model(nodes, {"x": floats(1, 3, 5, 6)}, ["y"], types=[7],
                  constants={"w": floats(2, 3, 3, 3)}, dims={"x": [1, 3, "h", "w"]})  # fmt: skip
    assert least_sizes(load_model(proto)) == {}


def test_what_a_branch_needs_is_not_needed_elsewhere() -> None:
    then = onnx.helper.make_graph(
        [node("Conv", "x w", "a", **KERNEL), node("ReduceSum", "a", "p", keepdims=0)], "then", [],
        [onnx.helper.make_tensor_value_info("p", 1, [])],
    )  # fmt: skip
    other = onnx.helper.make_graph(
        [node("ReduceSum", "x", "q", keepdims=0)], "other", [],
        [onnx.helper.make_tensor_value_info("q", 1, [])],
    )  # fmt: skip
    made = onnx.helper.make_node("If", ["f"], ["y"], then_branch=then, else_branch=other)
    proto = model([made], {"x": floats(1, 3, 5, 6), "f": np.array(True)}, ["y"],
                  constants={"w": floats(2, 3, 3, 3)}, dims={"x": [1, 3, "h", "w"]})  # fmt: skip
    assert least_sizes(load_model(proto)) == {}
    check(proto, {"x": floats(1, 3, 0, 6), "f": np.array(False)})


def test_windows_of_windows_and_limits_of_the_caller() -> None:
    """Three convolutions of 3 without padding, two of them strided, leave something of 15."""
    nodes = [
        node("Conv", "x w", "a", strides=[2, 2]),
        node("Conv", "a v", "b", strides=[2, 2]),
        node("Conv", "b v", "y"),
    ]
    proto = model(nodes, {"x": floats(1, 3, 20, 20)}, ["y"], dims={"x": [1, 3, "h", "w"]},
                  constants={"w": floats(2, 3, 3, 3), "v": floats(2, 2, 3, 3)})  # fmt: skip
    found = least_sizes(load_model(proto))
    assert {name: size for name, (size, _) in found.items()} == {"h": 15, "w": 15}
    limited = load_model(proto, shapes={"x": (1, 3, "40..80", "8..80")})
    found = least_sizes(limited)
    assert {name: size for name, (size, _) in found.items()} == {"h": 40, "w": 15}


def test_a_limit_of_the_caller_decides_a_branch() -> None:
    """If(s > 4) with s at least 5 has one branch left."""
    nodes = [
        node("Shape", "x", "n", start=0, end=1),
        node("Greater", "n four", "more"),
        node("Squeeze", "more", "f"),
    ]
    branches = {}
    for name, op in (("then_branch", "Relu"), ("else_branch", "Neg")):
        info = onnx.helper.make_tensor_value_info(name, 1, None)
        branches[name] = onnx.helper.make_graph([node(op, "x", name)], name, [], [info])
    nodes.append(onnx.helper.make_node("If", ["f"], ["y"], **branches))
    proto = model(nodes, {"x": floats(6)}, ["y"], constants={"four": i64([4])}, dims={"x": ["s"]})
    assert _ops(load_model(proto), "if") == 1
    limited = load_model(proto, shapes={"x": ("5..9",)})
    assert _ops(limited, "if") == 0
    assert limited.bounds == {"s": (5, 9)}
