"""Sequences and optionals that are resolved at import, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import InvalidModelError, RunError, UnsupportedError, UsageError
from tensmith.frontends.onnx import load_model

from .oracle import check, floats, model, node

Array = np.ndarray


def _index(value: int) -> Array:
    return np.array(value, np.int64)


def test_construct_insert_erase_and_pick() -> None:
    nodes = [
        node("SequenceConstruct", "x z", "s"),
        node("SequenceInsert", "s x one", "t"),
        node("SequenceInsert", "t z", "u"),
        node("SequenceErase", "u zero", "v"),
        node("SequenceAt", "v last", "a"),
        node("SequenceLength", "v", "n"),
        node("ConcatFromSequence", "v", "c", axis=1),
    ]
    constants = {"one": _index(1), "zero": _index(0), "last": _index(-1)}
    types = [TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT]
    inputs = {"x": floats(2, 3), "z": floats(2, 4, seed=1)}
    check(model(nodes, inputs, ["a", "n", "c"], constants=constants, types=types), inputs)


def test_a_position_of_the_run_picks_among_equal_shapes() -> None:
    nodes = [node("SequenceConstruct", "x z", "s"), node("SequenceAt", "s i", "a")]
    inputs = {"x": floats(2, 3), "z": floats(2, 3, seed=1), "i": _index(-1)}
    check(model(nodes, inputs, ["a"]), inputs)


@pytest.mark.parametrize("place", [0, 1, 2, -1, -3])
def test_a_position_of_the_run_picks_among_sizes_that_differ(place: int) -> None:
    nodes = [
        node("SequenceConstruct", "x z u", "s"),
        node("SequenceAt", "s i", "a"),
        node("ReduceSum", "a", "t"),
    ]
    parts = {"x": floats(2, 3), "z": floats(4, 3, seed=1), "u": floats(1, 5, seed=2)}
    inputs = {**parts, "i": _index(place)}
    check(model(nodes, inputs, ["a", "t"]), inputs)
    dims = {name: ["n", f"{name}1"] if name == "x" else [f"{name}0", 3] for name in ("x", "z")}
    check(model(nodes, inputs, ["a", "t"], dims=dims), inputs)


EDIT = [
    node("SequenceConstruct", "x z u", "s"),
    node("SequenceInsert", "s new i", "more"),
    node("SequenceErase", "more j", "less"),
]


@pytest.mark.parametrize(("put", "cut"), [(0, 0), (1, -1), (2, 1), (3, 2), (-1, 3), (-3, -4)])
def test_positions_of_the_run_where_elements_are_put_and_cut(put: int, cut: int) -> None:
    """Their sizes differ in every axis, and are known or not."""
    names = ["a", "b", "c"]
    picks = [node("SequenceAt", f"less at{i}", name) for i, name in enumerate(names)]
    tensors = {"x": floats(2, 3), "z": floats(4, 3, seed=1), "u": floats(1, 5, seed=2)}
    inputs = {**tensors, "new": floats(2, 3, seed=3), "i": _index(put), "j": _index(cut)}
    constants = {f"at{i}": _index(i) for i in range(3)}
    for dims in ({}, {"x": ["n", "m"], "z": ["k", "m"]}):
        check(model([*EDIT, *picks], inputs, names, constants=constants, dims=dims), inputs)


@pytest.mark.parametrize(("put", "cut"), [(4, 0), (-4, 0), (0, 4), (0, -5)])
def test_positions_of_the_run_where_nothing_can_be_put_or_cut_end_it(put: int, cut: int) -> None:
    inputs = {name: floats(2, seed=seed) for seed, name in enumerate(("x", "z", "u", "new"))}
    places = {"i": _index(put), "j": _index(cut)}
    proto = model([*EDIT, node("ConcatFromSequence", "less", "y", axis=0)], inputs | places, ["y"])
    with pytest.raises(RunError, match="its position is out of range"):
        check(proto, inputs | places, expected={})


def test_elements_of_other_ranks_are_not_put_at_a_position_of_the_run() -> None:
    inputs = {name: floats(2) for name in ("x", "z", "u")} | {"new": floats(2, 3), "i": _index(0)}
    nodes = [*EDIT[:2], node("SequenceAt", "more i", "y")]
    with pytest.raises(UnsupportedError, match="ranks at run time"):
        load_model(model(nodes, inputs, ["y"]))


def test_a_position_of_the_run_that_is_outside_ends_it() -> None:
    nodes = [node("SequenceConstruct", "x z", "s"), node("SequenceAt", "s i", "a")]
    inputs = {"x": floats(2, 3), "z": floats(4, 3, seed=1), "i": _index(2)}
    with pytest.raises(RunError, match="its position"):
        check(model(nodes, inputs, ["a"]), inputs, expected={})


@pytest.mark.parametrize(("split", "keepdims"), [(None, 1), (None, 0), (2, 1), ([1, 3, 1], 1)])
def test_split_and_concatenate(split: int | list[int] | None, keepdims: int) -> None:
    names = "x" if split is None else "x n"
    constants = {} if split is None else {"n": np.array(split, np.int64)}
    nodes = [
        node("SplitToSequence", names, "s", axis=1, keepdims=keepdims),
        node("SequenceAt", "s one", "a"),
        node("ConcatFromSequence", "s", "c", axis=1, new_axis=1 - keepdims),
    ]
    inputs = {"x": floats(2, 5, 3)}
    constants["one"] = _index(1)
    check(model(nodes, inputs, ["a", "c"], constants=constants), inputs)


def test_a_loop_that_grows_a_sequence() -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    sequence = helper.make_sequence_type_proto(tensor)
    body = helper.make_graph(
        [
            node("Cast", "i", "f", to=TensorProto.FLOAT),
            node("Mul", "x f", "scaled"),
            node("SequenceInsert", "s scaled", "t"),
            node("Identity", "go", "on"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_value_info("s", sequence),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_value_info("t", sequence),
            helper.make_tensor_value_info("scaled", TensorProto.FLOAT, [2]),
        ],
    )
    nodes = [
        node("SequenceEmpty", "", "none"),
        helper.make_node("Loop", ["trip", "", "none"], ["all", "stack"], body=body),
        node("ConcatFromSequence", "all", "c", axis=0),
    ]
    inputs = {"x": floats(2)}
    check(model(nodes, inputs, ["c", "stack"], constants={"trip": _index(3)}), inputs)


def test_branches_that_give_sequences() -> None:
    def branch(name: str, first: str) -> onnx.GraphProto:
        made = node("SequenceConstruct", f"{first} z", name)
        kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None))
        return helper.make_graph([made], name, [], [helper.make_value_info(name, kind)])

    nodes = [
        helper.make_node("If", ["c"], ["s"], then_branch=branch("p", "x"),
                         else_branch=branch("q", "z")),
        node("ConcatFromSequence", "s", "y", axis=0),
    ]  # fmt: skip
    for flag in (True, False):
        inputs = {"c": np.array(flag), "x": floats(2, 3), "z": floats(2, 3, seed=1)}
        check(model(nodes, inputs, ["y"]), inputs)


def test_map_of_a_sequence() -> None:
    body = helper.make_graph(
        [node("Add", "e f", "r")],
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "ef"],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
    )
    nodes = [
        node("SequenceConstruct", "x z", "s"),
        helper.make_node("SequenceMap", ["s", "t"], ["m"], body=body),
        node("ConcatFromSequence", "m", "y", axis=0),
    ]
    inputs = {"x": floats(2, 3), "z": floats(1, 3, seed=1), "t": floats(3, seed=2)}
    check(model(nodes, inputs, ["y"]), inputs)


def test_optionals() -> None:
    nodes = [
        node("Optional", "x", "o"),
        node("OptionalHasElement", "o", "h"),
        node("OptionalGetElement", "o", "y"),
    ]
    inputs = {"x": floats(2, 3)}
    proto = model(nodes, inputs, ["h", "y"], types=[TensorProto.BOOL, TensorProto.FLOAT], opset=18)
    check(proto, inputs)


def _sequence_model() -> onnx.ModelProto:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None))
    graph = helper.make_graph(
        [node("SequenceInsert", "s x", "t")],
        "g",
        [helper.make_value_info("s", kind), helper.make_tensor_value_info("x", 1, [2])],
        [helper.make_value_info("t", kind)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_sequences_at_the_border_of_the_model_become_their_elements() -> None:
    graph = load_model(_sequence_model(), shapes={"s_0": [3], "s_1": [1]})
    inputs = {"s_0": floats(3), "s_1": floats(1), "x": floats(2)}
    found = run_graph(graph, inputs)
    assert [len(found[f"t_{i}"]) for i in range(3)] == [3, 1, 2]


def test_a_sequence_of_unknown_length_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="s_0"):
        load_model(_sequence_model())


def test_a_tensor_operator_on_a_sequence_is_refused() -> None:
    nodes = [node("SequenceConstruct", "x", "s"), node("Relu", "s", "y")]
    with pytest.raises(UnsupportedError, match="sequence"):
        load_model(model(nodes, {"x": floats(2)}, ["y"]))


def test_a_position_outside_of_a_sequence_is_an_error() -> None:
    nodes = [node("SequenceConstruct", "x", "s"), node("SequenceAt", "s i", "y")]
    with pytest.raises(InvalidModelError, match="out of range"):
        load_model(model(nodes, {"x": floats(2)}, ["y"], constants={"i": _index(4)}))


def _optional_model() -> onnx.ModelProto:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [2]))
    graph = helper.make_graph(
        [node("OptionalHasElement", "o", "y")],
        "g",
        [helper.make_value_info("o", kind)],
        [helper.make_tensor_value_info("y", TensorProto.BOOL, [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(("given", "held"), [(None, False), (np.zeros(2, np.float32), True)])
def test_an_optional_whose_content_is_fixed(given: np.ndarray | None, held: bool) -> None:
    graph = load_model(_optional_model(), values={"o": given})
    assert not graph.inputs
    assert run_graph(graph, {})["y"] == held


def test_an_optional_that_holds_nothing_by_its_shape() -> None:
    graph = load_model(_optional_model(), shapes={"o": ("none",)})
    assert not graph.inputs
    assert not run_graph(graph, {})["y"]
    with pytest.raises(UsageError, match="no optional"):
        load_model(_sequence_model(), shapes={"s": ("none",)})


def test_fixed_values_of_a_sequence_are_no_inputs() -> None:
    parts = [np.ones(3, np.float32), np.zeros(1, np.float32)]
    fixed = load_model(_sequence_model(), values={"s": parts})
    free = load_model(_sequence_model(), shapes={"s_0": [3], "s_1": [1]})
    assert {value.name for value in free.inputs} - {value.name for value in fixed.inputs} == {
        "s_0",
        "s_1",
    }
    others = {value.name: np.ones(value.shape, np.float32) for value in fixed.inputs}
    found = run_graph(fixed, others)
    wanted = run_graph(free, {**others, "s_0": parts[0], "s_1": parts[1]})
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"s": None}, "no optional"),
        ({"s": np.ones(3, np.float32)}, "a sequence"),
        ({"s": [np.ones(3)]}, "float64"),
    ],
)
def test_values_that_an_input_cannot_have(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        load_model(_sequence_model(), values=values)


def test_values_of_inputs_that_do_not_exist() -> None:
    with pytest.raises(UsageError, match="no input"):
        load_model(_optional_model(), values={"q": np.ones(3, np.float32)})


@pytest.mark.parametrize("order", [("s", "s_0"), ("s_0", "s")])
def test_outputs_called_as_elements_of_another_are_refused(order: tuple[str, str]) -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    single = helper.make_tensor_value_info("s_0", TensorProto.FLOAT, [2])
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    outputs = {"s": sequence, "s_0": single}
    nodes = [node("Neg", "x", "s_0"), node("SequenceConstruct", "x s_0", "s")]
    graph = helper.make_graph(nodes, "g", [given], [outputs[name] for name in order])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UnsupportedError, match=r"two outputs are 's_0'.*rename one"):
        load_model(proto)
