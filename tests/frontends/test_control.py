"""If, Loop, Scan and local functions against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import InvalidModelError, RunError, UnsupportedError
from tensmith.frontends.onnx import load_model

from .oracle import check, floats, model, node
from .ort_cases import OrtCase, check_all

F, I64, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def info(
    name: str, kind: int = F, shape: Sequence[int | None] | None = None
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def branch(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "branch", [], [info(name) for name in outputs])


def test_if_on_data_runs_the_branch_taken() -> None:
    then = branch([node("Mul", "x two", "t")], ["t"])
    other = branch([node("Neg", "x", "e")], ["e"])
    proto = model(
        [
            node("ReduceSum", "x", "s", keepdims=0),
            node("Greater", "s zero", "c"),
            helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        ],
        {"x": floats(3)},
        ["y"],
        constants={"zero": np.float32(0), "two": np.float32(2)},
    )
    for x in (np.float32([1, 2, 3]), np.float32([-1, -2, -3])):
        graph = check(proto, {"x": x})
    assert [n.op for n in graph.nodes].count("if") == 1


def test_if_whose_branches_differ_in_shape() -> None:
    then = branch([node("Slice", "x one three", "t")], ["t"])
    other = branch([node("Identity", "x", "e")], ["e"])
    proto = model(
        [
            helper.make_node("If", ["c"], ["i"], then_branch=then, else_branch=other),
            node("Add", "i i", "y"),
        ],
        {"x": floats(5), "c": np.array(True)},
        ["y"],
        constants={"one": np.int64([1]), "three": np.int64([3])},
    )
    for flag in (True, False):
        check(proto, {"x": floats(5), "c": np.array(flag)})


def test_if_decided_by_shapes_leaves_one_branch() -> None:
    then = branch([node("Squeeze", "x axes", "t")], ["t"])
    other = branch([node("Identity", "x", "e")], ["e"])
    proto = model(
        [
            node("Shape", "x", "s"),
            node("Size", "s", "r"),
            node("Equal", "r three", "c"),
            helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        ],
        {"x": floats(1, 2, 3)},
        ["y"],
        constants={"three": np.int64(3), "axes": np.int64([0])},
        dims={"x": [1, "n", "m"]},
    )
    graph = check(proto, {"x": floats(1, 2, 3)})
    assert not any(n.op == "if" for n in graph.nodes)


def loop_body(grows: bool) -> onnx.GraphProto:
    step = node("Concat", "acc x", "acc2", axis=0) if grows else node("Add", "acc x", "acc2")
    nodes = [step, node("ReduceSum", "acc2", "scan", keepdims=0), node("Less", "scan limit", "go2")]
    inputs = [info("i", I64, []), info("go", B, []), info("acc", F, [None])]
    return helper.make_graph(nodes, "body", inputs, [info("go2", B), info("acc2"), info("scan")])


def test_loop_with_condition_and_stacked_output() -> None:
    proto = model(
        [helper.make_node("Loop", ["m", "t", "x"], ["y", "ys"], body=loop_body(False))],
        {"x": floats(3)},
        ["y", "ys"],
        constants={"m": np.int64(6), "t": np.bool_(True), "limit": np.float32(9)},
    )
    check(proto, {"x": np.float32([1, 0.5, 0.25])})
    check(proto, {"x": np.float32([-1, 0.5, 0.25])})


def test_loop_whose_carried_value_grows() -> None:
    proto = model(
        [helper.make_node("Loop", ["m", "", "x"], ["y", "ys"], body=loop_body(True))],
        {"x": floats(3)},
        ["y", "ys"],
        constants={"m": np.int64(4), "limit": np.float32(1e9)},
    )
    check(proto, {"x": floats(3)})


def deepening(condition: onnx.NodeProto, rounds: Sequence[str]) -> onnx.NodeProto:
    """A loop whose carried value gets one dimension more in every round."""
    nodes = [condition, node("Unsqueeze", "v zero", "w"), node("ReduceSum", "v", "sum", keepdims=0)]
    inputs = [info("i", I64, []), info("go", B, []), info("v")]
    body = helper.make_graph(nodes, "body", inputs, [info("go2", B), info("w"), info("sum")])
    return helper.make_node("Loop", [*rounds, "x"], ["y", "sums"], body=body)


def test_a_loop_whose_carried_value_changes_its_rank_is_unrolled() -> None:
    constants = {"m": np.int64(3), "t": np.bool_(True), "zero": np.int64([0])}
    made = deepening(node("Identity", "go", "go2"), ["m", "t"])
    proto = model([made], {"x": floats(3)}, ["y", "sums"], constants=constants)
    check(proto, {"x": floats(3)})
    given = {"x": floats(3), "m": np.int64(3)}
    del constants["m"]
    with pytest.raises(UnsupportedError, match=r"turns from .*number of rounds a constant"):
        load_model(model([made], given, ["y"], constants=constants))


def test_the_condition_of_a_body_may_have_one_dimension() -> None:
    nodes = [node("Add", "v v", "w"), node("Reshape", "go one", "go2")]
    inputs = [info("i", I64, []), info("go", B, []), info("v")]
    body = helper.make_graph(nodes, "body", inputs, [info("go2", B), info("w")])
    proto = model(
        [helper.make_node("Loop", ["m", "t", "x"], ["y"], body=body)],
        {"x": floats(3)},
        ["y"],
        constants={"m": np.int64(3), "t": np.bool_(True), "one": np.int64([1])},
    )
    check(proto, {"x": floats(3)})


def test_scan_axes_and_directions() -> None:
    nodes = [node("Add", "s e", "s2"), node("Mul", "s2 f", "o")]
    body = helper.make_graph(
        nodes,
        "body",
        [info("s", F, [2]), info("e", F, [2]), info("f", F, [2])],
        [info("s2", F, [2]), info("o", F, [2])],
    )
    scan = helper.make_node(
        "Scan",
        ["z", "a", "b"],
        ["y", "ys"],
        body=body,
        num_scan_inputs=2,
        scan_input_axes=[1, 0],
        scan_input_directions=[1, 0],
        scan_output_axes=[1],
        scan_output_directions=[1],
    )
    inputs = {"a": floats(2, 5), "b": floats(5, 2, seed=1)}
    check(model([scan], inputs, ["y", "ys"], constants={"z": np.zeros(2, np.float32)}), inputs)


def batched_scan(lengths: str = "") -> onnx.NodeProto:
    """A scan as opset 8 has it, of two inputs, the first backwards."""
    nodes = [node("Add", "s e", "s2"), node("Mul", "s2 f", "o")]
    body = helper.make_graph(
        nodes,
        "body",
        [info("s", F, [2]), info("e", F, [2]), info("f", F, [2])],
        [info("s2", F, [2]), info("o", F, [2])],
    )
    inputs = [lengths, "z", "a", "b"]
    return helper.make_node(
        "Scan", inputs, ["y", "ys"], body=body, num_scan_inputs=2, directions=[1, 0]
    )


def test_scan_of_opset_8_scans_each_element_of_a_batch() -> None:
    inputs = {"z": floats(3, 2), "a": floats(3, 5, 2, seed=1), "b": floats(3, 5, 2, seed=2)}
    dims = {"z": ["n", 2], "a": ["n", 5, 2], "b": ["n", 5, 2]}
    check(model([batched_scan()], inputs, ["y", "ys"], opset=8, dims=dims), inputs)


def test_scan_of_opset_8_over_sequences_of_different_lengths() -> None:
    """What is scanned in reverse begins at the end of each; results behind it are zeros."""
    inputs = {"z": floats(3, 2), "a": floats(3, 5, 2, seed=1), "b": floats(3, 5, 2, seed=2)}
    dims = {"z": ["n", 2], "a": ["n", "t", 2], "b": ["n", "t", 2], "l": ["n"]}
    for lengths in ([5, 1, 3], [2, 2, 2]):
        given = {**inputs, "l": np.array(lengths)}
        check(model([batched_scan("l")], given, ["y", "ys"], opset=8, dims=dims), given)
    graph = load_model(model([batched_scan("l")], given, ["y", "ys"], opset=8, dims=dims))
    for length in (0, 6):
        with pytest.raises(RunError, match=r"1 to .* steps"):
            run_graph(graph, {**inputs, "l": np.array([1, length, 2])})


def test_scan_of_opset_8_runs_nothing_behind_the_end_of_a_sequence(tmp_path: Path) -> None:
    """There elements are zeros, by which the body would divide, and at which it would pick."""
    body = helper.make_graph(
        [node("Div", "s e", "s2"), node("Sub", "e one", "p"), node("Gather", "t p", "o")],
        "body",
        [info("s", I64, []), info("e", I64, [])],
        [info("s2", I64, []), info("o", I64, [])],
    )
    x = np.int64([[2, 2, 2], [5, 2, 0], [2, -9, 0]])
    inputs = {"l": np.int64([3, 2, 1]), "z": np.int64([96, 100, 7]), "x": x}
    dims = {"l": ["n"], "z": ["n"], "x": ["n", "t"]}
    constants = {"one": np.int64(1), "t": np.int64([3, 4, 5, 6, 7])}
    found = []
    for backwards in (0, 1):
        scan = helper.make_node("Scan", ["l", "z", "x"], ["y", "ys"], body=body,
                                num_scan_inputs=1, directions=[backwards])  # fmt: skip
        proto = model([scan], inputs, ["y", "ys"], opset=8, dims=dims, types=[I64, I64],
                      constants=constants)  # fmt: skip
        found.append(OrtCase(f"directions {backwards}", proto, inputs))
    check_all(found, tmp_path)


def test_local_functions_are_inlined_with_their_attributes() -> None:
    inner = helper.make_node("LeakyRelu", ["a"], ["t"])
    inner.attribute.append(
        onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    )
    function = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["b"],
        [inner, helper.make_node("Add", ["t", "t"], ["b"])],
        [helper.make_opsetid("", 17)],
        ["slope"],
    )
    nodes = [
        node("Twice", "x", "m", domain="local", slope=0.5),
        node("Twice", "m", "y", domain="local", slope=0.1),
    ]
    x = floats(7)
    check(model(nodes, {"x": x}, ["y"], functions=[function], domains=["local"]), {"x": x})


def _attribute_of_function(made: onnx.NodeProto, name: str, kind: int) -> onnx.NodeProto:
    made.attribute.add(name=name, ref_attr_name=name, type=kind)
    return made


def test_branches_of_functions_read_their_attributes() -> None:
    leaky = _attribute_of_function(node("LeakyRelu", "a", "t"), "alpha", onnx.AttributeProto.FLOAT)
    chosen = helper.make_node(
        "If", ["c"], ["b"], then_branch=branch([leaky], ["t"]),
        else_branch=branch([node("Neg", "a", "e")], ["e"]),
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("local", "Bent", ["a", "c"], ["b"], [chosen], opsets, ["alpha"])
    for flag in (True, False):
        given = {"x": floats(7), "c": np.array(flag)}
        nodes = [node("Bent", "x c", domain="local", alpha=0.25)]
        check(model(nodes, given, ["y"], functions=[function], domains=["local"]), given)


def test_overloads_of_a_function_are_told_apart() -> None:
    opsets = [helper.make_opsetid("", 17)]
    functions = [
        helper.make_function("local", "F", ["a"], ["b"], [node(op, "a", "b")], opsets)
        for op in ("Relu", "Neg")
    ]
    functions[1].overload = "negative"
    nodes = [node("F", "x", "p", domain="local"), node("F", "x", "q", domain="local")]
    nodes[1].overload = "negative"
    x = floats(7)
    proto = model(nodes, {"x": x}, ["p", "q"], functions=functions, domains=["local"])
    proto.ir_version = 10
    check(proto, {"x": x}, expected={"p": np.maximum(x, 0), "q": -x})
    functions[1].overload = ""
    proto = model(nodes, {"x": x}, ["p", "q"], functions=functions, domains=["local"])
    with pytest.raises(InvalidModelError, match="defined twice"):
        load_model(proto)


def test_operators_that_the_standard_defines_by_functions() -> None:
    x, labels = floats(4, 6), np.int64([0, 5, 2, 2])
    proto = model(
        [node("SoftmaxCrossEntropyLoss", "x k", "y", reduction="sum")], {"x": x, "k": labels}, ["y"]
    )
    check(proto, {"x": x, "k": labels})


def test_attention_of_the_standard() -> None:
    q, k, v = floats(1, 4, 5, 8), floats(1, 2, 6, 8, seed=1), floats(1, 2, 6, 8, seed=2)
    inputs = {"q": q, "k": k, "v": v}
    proto = model([node("Attention", "q k v", "y", is_causal=1)], inputs, ["y"], opset=23)
    check(proto, inputs)
