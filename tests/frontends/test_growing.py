"""Sequences whose length a run decides: loops that append, split, pick and join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import RunError, UnsupportedError
from tensmith.frontends.onnx import load_model

from .oracle import Array, floats, model, node
from .ort_cases import OrtCase, check_all

F, I64, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def number(value: int) -> Array:
    return np.array(value, np.int64)


def tensor(name: str, kind: int = F) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [] if kind != F else None)


def sequence(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_sequence_value_info(name, F, None)


def loop(
    nodes: Sequence[onnx.NodeProto],
    result: onnx.ValueInfoProto,
    outputs: str,
    *,
    trip: str = "n",
    initial: str = "",
) -> onnx.NodeProto:
    """A loop of `trip` rounds; with an initial sequence the body takes `s`."""
    names = [trip, "", initial] if initial else [trip, ""]
    carried = [sequence("s")] if initial else []
    inputs = [tensor("i", I64), tensor("c", B), *carried]
    body = [*nodes, node("Identity", "c", "c2")]
    graph = helper.make_graph(body, "body", inputs, [tensor("c2", B), result])
    return helper.make_node("Loop", names, [outputs], body=graph)


ROWS = (  # the rows of x, one for each round
    node("SequenceEmpty", "", "none"),
    node("Shape", "x", "rows", end=1),
    node("Squeeze", "rows", "n"),
    loop(
        [node("Gather", "x i", "row", axis=0), node("SequenceInsert", "s row", "s2")],
        sequence("s2"),
        "seq",
        initial="none",
    ),
)
PREFIXES = (  # x[:1], x[:2], ..., as many as an input says
    node("SequenceEmpty", "", "none"),
    loop(
        [
            node("Add", "i one", "j"),
            node("Unsqueeze", "j zero", "end"),
            node("Slice", "x zero end zero", "part"),
            node("SequenceInsert", "s part", "s2"),
        ],
        sequence("s2"),
        "seq",
        initial="none",
    ),
)
SUMS = loop(  # the sum of every part
    [node("SequenceAt", "parts i", "p"), node("ReduceSum", "p", "t", keepdims=0)], tensor("t"), "y"
)
CONSTANTS = {"one": np.int64(1), "zero": np.int64([0]), "two": np.int64(2)}
DIMS: Mapping[str, Sequence[str]] = {"x": ["N", "M"], "sizes": ["L"]}


def case(name: str, nodes: Sequence[onnx.NodeProto], **inputs: Array) -> OrtCase:
    used = {text for n in nodes for text in n.input}
    used |= {text for n in nodes for a in n.attribute for m in a.g.node for text in m.input}
    constants = {key: value for key, value in CONSTANTS.items() if key in used}
    dims = {key: value for key, value in DIMS.items() if key in inputs}
    return OrtCase(name, model(nodes, inputs, ["y"], constants=constants, dims=dims), inputs)


def join(axis: int, new_axis: int) -> onnx.NodeProto:
    return node("ConcatFromSequence", "seq", axis=axis, new_axis=new_axis)


def cases() -> list[OrtCase]:
    x, three = floats(4, 3), number(3)
    found = [
        case("stacked", [*ROWS, join(0, 1)], x=x),
        case("stacked last", [*ROWS, join(1, 1)], x=x),
        case("joined", [*ROWS, join(0, 0)], x=x),
        case("one", [*ROWS, join(0, 1)], x=floats(1, 5)),
        case("prefixes", [*PREFIXES, join(0, 0)], x=x, n=three),
        case("alone", [*PREFIXES, join(1, 0)], x=x, n=number(1)),
    ]
    for place in (-1, 0, 2):
        pick = node("SequenceAt", "seq k")
        found.append(case(f"pick {place}", [*PREFIXES, pick], x=x, n=three, k=number(place)))
        edit = [
            node("SequenceErase", "seq k", "less"),
            node("ReduceMax", "x", "top", axes=[0], keepdims=0),
            node("SequenceInsert", "less top k", "more"),
            node("SequenceLength", "more", "count"),
            node("Cast", "count", "number", to=F),
            node("ConcatFromSequence", "more", "joined", axis=0, new_axis=1),
            node("Mul", "joined number"),
        ]
        found.append(case(f"edit {place}", [*ROWS, *edit], x=x, k=number(place)))
    for inputs, attributes in (("x sizes", {}), ("x two", {"axis": 1}), ("x", {"keepdims": 0})):
        split = node("SplitToSequence", inputs, "parts", **attributes)
        more = {"sizes": np.int64([1, 0, 3])} if "sizes" in inputs else {}
        length = node("SequenceLength", "parts", "n")
        found.append(case(f"split {inputs}", [split, length, SUMS], x=x, **more))
    return found


def test_parts_of_one_element_each(tmp_path: Path) -> None:
    """Rows repeated by numbers of their own: every part has one element, so a rank is known."""
    made = [
        node("SequenceAt", "parts i", "row"),
        node("SequenceAt", "numbers i", "times"),
        node("Concat", "times width", "shape", axis=0),
        node("Expand", "row shape", "rows"),
        node("SequenceInsert", "s rows", "s2"),
    ]
    nodes = [
        node("Shape", "sizes", "count"),
        node("ConstantOfShape", "count", "ones", value=helper.make_tensor("o", I64, [1], [1])),
        node("SplitToSequence", "x ones", "parts"),
        node("SplitToSequence", "sizes ones", "numbers"),
        node("SequenceEmpty", "", "none"),
        node("Squeeze", "count", "n"),
        loop(made, sequence("s2"), "seq", initial="none"),
        node("ConcatFromSequence", "seq", axis=0),
    ]
    constants, dims = {"width": np.int64([3])}, {"x": ["N", 3], "sizes": ["N"]}
    found = []
    for sizes in ([2, 0, 1, 3], [1], [0, 2]):
        inputs = {"x": floats(len(sizes), 3), "sizes": np.int64(sizes)}
        proto = model(nodes, inputs, ["y"], constants=constants, dims=dims)
        found.append(OrtCase(str(sizes), proto, inputs))
    check_all(found, tmp_path)


def test_a_body_for_each_of_elements_whose_eacha_run_decides(tmp_path: Path) -> None:
    """Two sequences and a tensor go in, two sequences come out; an outer value is captured."""
    body = helper.make_graph(
        [
            node("Mul", "p f", "scaled"),
            node("Add", "scaled x", "moved"),  # x: of the graph around
            node("Sub", "p q", "apart"),
        ],
        "body",
        [tensor("p"), tensor("q"), tensor("f")],
        [tensor("moved"), tensor("apart")],
    )
    nodes = [
        node("SplitToSequence", "x", "parts", axis=0),
        node("Neg", "x", "less"),
        node("SplitToSequence", "less", "others", axis=0),
        helper.make_node("SequenceMap", ["parts", "others", "factor"], ["a", "b"], body=body),
        node("ConcatFromSequence", "a", "left", axis=0),
        node("ConcatFromSequence", "b", "right", axis=0),
        node("ReduceMax", "left", "top", axes=[0], keepdims=1),
        node("Add", "top right"),
    ]
    constants = {"factor": np.float32(3)}
    found = []
    for rows in (1, 4):
        inputs = {"x": floats(rows, 3)}
        proto = model(nodes, inputs, ["y"], constants=constants, dims={"x": ["N", 3]})
        found.append(OrtCase(f"{rows} rows", proto, inputs))
    check_all(found, tmp_path)


def test_a_body_keeps_its_sparse_constants() -> None:
    x = floats(3, 2)
    values = helper.make_tensor("f", F, [1], [5.0])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("p", I64, [1], [1]), [2])
    body = helper.make_graph(
        [node("Add", "p f", "o")],
        "body",
        [tensor("p")],
        [tensor("o")],
        sparse_initializer=[sparse],
    )
    nodes = [
        node("SplitToSequence", "x", "parts", axis=0),
        helper.make_node("SequenceMap", ["parts"], ["more"], body=body),
        node("ConcatFromSequence", "more", axis=0),
    ]
    proto = model(nodes, {"x": x}, ["y"], dims={"x": ["N", 2]})
    found = run_graph(load_model(proto), {"x": x})["y"]
    np.testing.assert_array_equal(found, x + np.float32([0, 5]))


def test_sizes_of_parts_that_a_cast_changes(tmp_path: Path) -> None:
    """258 is 2 in eight bits, and any number but 0 is 1 as a boolean."""
    found = []
    for each, kind, size in ((258, TensorProto.INT8, 2), (7, B, 1)):
        nodes = [
            node("Shape", "c", "count"),
            node("ConstantOfShape", "count", "w", value=helper.make_tensor("o", I64, [1], [each])),
            node("Cast", "w", "less", to=kind),
            node("Cast", "less", "sizes", to=I64),
            node("SplitToSequence", "x sizes", "parts"),
            node("SequenceAt", "parts one"),
        ]
        inputs = {"x": floats(3 * size, 2), "c": floats(3)}
        proto = model(nodes, inputs, ["y"], constants={"one": number(1)}, dims={"c": ["N"]})
        found.append(OrtCase(f"{each}", proto, inputs))
    check_all(found, tmp_path)


def test_against_onnx_runtime(tmp_path: Path) -> None:
    check_all(cases(), tmp_path)


def test_elements_that_are_appended_on_a_condition(tmp_path: Path) -> None:
    grow = helper.make_graph([node("SequenceInsert", "s x", "t")], "grow", [], [sequence("t")])
    keep = helper.make_graph([node("Identity", "s", "e")], "keep", [], [sequence("e")])
    made = [
        node("Mod", "i two", "odd"),
        node("Cast", "odd", "is_odd", to=B),
        helper.make_node("If", ["is_odd"], ["s2"], then_branch=grow, else_branch=keep),
    ]
    nodes = [
        node("SequenceEmpty", "", "none"),
        loop(made, sequence("s2"), "seq", initial="none"),
        node("SequenceInsert", "seq x", "seq2"),
        node("ConcatFromSequence", "seq2", axis=0),
    ]
    constants = {"two": np.int64(2)}
    found = []
    for rounds in (0, 1, 5):
        inputs = {"x": floats(2, 3), "n": number(rounds)}
        proto = model(nodes, inputs, ["y"], constants=constants, dims={"x": ["N", 3]})
        found.append(OrtCase(f"{rounds} rounds", proto, inputs))
    check_all(found, tmp_path)


def test_what_does_not_fit_ends_the_run() -> None:
    apart = case("apart", [*PREFIXES, join(1, 0)], x=floats(4, 3), n=number(3))
    with pytest.raises(RunError, match="elements of one size"):
        run_graph(load_model(apart.proto), dict(apart.inputs))
    pick = node("SequenceAt", "seq k")
    outside = case("outside", [*ROWS, pick], x=floats(4, 3), k=number(4))
    with pytest.raises(RunError, match=r"\(SequenceAt\) needs an element"):
        run_graph(load_model(outside.proto), dict(outside.inputs))
    split = [
        node("SplitToSequence", "x sizes", "parts"),
        node("SequenceLength", "parts", "n"),
        SUMS,
    ]
    parts = case("parts", split, x=floats(4, 3), sizes=np.int64([1, 2]))
    with pytest.raises(RunError, match="parts that make up the whole"):
        run_graph(load_model(parts.proto), dict(parts.inputs))


def test_elements_that_differ_in_two_sizes_are_refused() -> None:
    made = [
        node("Add", "i one", "j"),
        node("Unsqueeze", "j zero", "end"),
        node("Concat", "end end", "ends", axis=0),
        node("Expand", "x ends", "wide"),
        node("SequenceInsert", "s wide", "s2"),
    ]
    nodes = [
        node("SequenceEmpty", "", "none"),
        loop(made, sequence("s2"), "seq", initial="none"),
        join(0, 0),
    ]
    found = case("two", nodes, x=floats(1, 1), n=number(2))
    with pytest.raises(UnsupportedError, match=r"differ in more than one size .*give its elements"):
        load_model(found.proto)


def test_a_result_of_unknown_length_is_refused() -> None:
    proto = case("result", [*ROWS, join(0, 0)], x=floats(4, 3)).proto
    del proto.graph.node[-1]
    proto.graph.output[0].CopyFrom(sequence("seq"))
    with pytest.raises(UnsupportedError, match="join or stack them"):
        load_model(proto)
