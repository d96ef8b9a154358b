"""Branches that give results of different ranks, and which of them is meant."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import RunError, UnsupportedError
from tensmith.frontends.onnx import load_model

from .oracle import check, floats, model, node
from .test_control import branch, info

F = TensorProto.FLOAT


def squeezing(declared: list[str] | None, inverted: bool) -> onnx.ModelProto:
    """`If(rows of x == 1, Squeeze(x), Identity(x))`, maybe with the condition turned around."""
    squeeze = branch([node("Squeeze", "x axis", "t")], ["t"])
    keep = branch([node("Identity", "x", "e")], ["e"])
    first, second = (keep, squeeze) if inverted else (squeeze, keep)
    nodes = [
        node("Shape", "x", "s", end=1),
        node("Equal", "s axis_size", "one"),
        node("Not", "one", "several"),
        helper.make_node(
            "If",
            ["several" if inverted else "one"],
            ["i"],
            name="squeeze rows",
            then_branch=first,
            else_branch=second,
        ),
        node("Relu", "i"),
    ]
    constants = {"axis": np.int64([0]), "axis_size": np.int64([1])}
    made = model(nodes, {"x": floats(2, 3)}, ["y"], constants=constants, dims={"x": ["N", "M"]})
    if declared is not None:
        made.graph.value_info.append(info("i", F, declared))
    return made


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("declared", [None, ["a"], ["a", "b"]])
def test_the_declared_rank_decides_a_conditional_squeeze(
    declared: list[str] | None, inverted: bool
) -> None:
    proto = squeezing(declared, inverted)
    kept = declared == ["a", "b"]
    graph = check(proto, {"x": floats(2 if kept else 1, 4)})
    with pytest.raises(RunError, match=r"'squeeze rows' \(If\) .*pin the sizes, N, that decide"):
        run_graph(graph, {"x": floats(1 if kept else 2, 4)})


def test_branches_of_other_ranks_name_what_to_pin() -> None:
    flat = branch([node("Flatten", "x", "t", axis=0)], ["t"])
    wide = branch([node("Unsqueeze", "x axis", "e")], ["e"])
    nodes = [
        node("Shape", "x", "s", start=1),
        node("Less", "s limit", "c"),
        helper.make_node("If", ["c"], ["y"], then_branch=flat, else_branch=wide),
    ]
    constants = {"axis": np.int64([0]), "limit": np.int64([3])}
    dims = {"x": ["N", "M"]}
    proto = model(nodes, {"x": floats(2, 3)}, ["y"], constants=constants, dims=dims)
    with pytest.raises(UnsupportedError, match=r"pin the sizes, M, that decide it"):
        load_model(proto)
    proto.graph.output[0].CopyFrom(info("y", F, ["p", "q", "r"]))
    graph = check(proto, {"x": floats(2, 5)})
    with pytest.raises(RunError, match=r"else_branch"):
        run_graph(graph, {"x": floats(2, 2)})


@pytest.mark.parametrize("inverted", [False, True])
def test_of_branches_of_other_ranks_the_one_that_only_passes_on_is_meant(inverted: bool) -> None:
    """As a repair of what lacks is written, which gives one axis more and rarely runs."""
    mended = branch([node("Unsqueeze", "x axis", "w"), node("Neg", "x", "v")], ["w", "v"])
    kept = branch([node("Identity", "x", "a"), node("Identity", "x", "b")], ["a", "b"])
    branches = {"then_branch": mended, "else_branch": kept}
    if inverted:
        branches = {"then_branch": kept, "else_branch": mended}
    nodes = [
        node("ReduceMax", "f", "m", keepdims=0),
        node("Greater" if not inverted else "LessOrEqual", "m limit", "c"),
        helper.make_node("If", ["c"], ["p", "q"], **branches),
        node("Add", "p q", "y"),
    ]
    constants = {"axis": np.int64([1]), "limit": np.float32(0)}
    feed = {"x": floats(2, 3), "f": np.float32([-1, -2])}
    proto = model(nodes, feed, ["y"], constants=constants, dims={"x": ["N", 3]})
    graph = check(proto, feed)
    with pytest.raises(RunError, match="this run takes the other one; the elements of 'f' decide"):
        run_graph(graph, {**feed, "f": np.float32([-1, 2])})


def test_sizes_that_a_run_computes_are_not_to_be_pinned() -> None:
    """How many elements were selected decides between ranks."""
    flat = branch([node("Flatten", "x", "t", axis=0)], ["t"])
    deep = branch([node("Unsqueeze", "x axis", "e")], ["e"])
    nodes = [
        node("NonZero", "x", "places"),
        node("Shape", "places", "n", start=1),
        node("Squeeze", "n", "count"),
        node("Equal", "count two", "c"),
        helper.make_node("If", ["c"], ["y"], then_branch=flat, else_branch=deep),
    ]
    proto = model(nodes, {"x": floats(2, 3)}, ["y"], constants={"axis": np.int64([0]),
                  "two": np.int64(2)})  # fmt: skip
    with pytest.raises(UnsupportedError) as raised:
        load_model(proto)
    told = str(raised.value)
    assert "sizes that a run computes decide it" in told
    assert "--shape" not in told


def test_branches_of_other_ranks_name_the_input_that_decides() -> None:
    """No size that could be pinned makes the condition known."""
    flat = branch([node("Flatten", "x", "t", axis=0)], ["t"])
    wide = branch([node("Unsqueeze", "x axis", "e")], ["e"])
    nodes = [
        node("ReduceMax", "f", "m", keepdims=0),
        node("Cast", "m", "b", to=TensorProto.BOOL),
        helper.make_node("If", ["b"], ["y"], then_branch=flat, else_branch=wide),
    ]
    feed = {"x": floats(2, 3), "f": floats(4)}
    proto = model(nodes, feed, ["y"], constants={"axis": np.int64([0])}, dims={"x": ["N", "M"]})
    with pytest.raises(UnsupportedError, match=r"elements of 'f' decide it: make these a constant"):
        load_model(proto)
