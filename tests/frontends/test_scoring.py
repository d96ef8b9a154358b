"""Which tensors errors of quantising are measured on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensmith.frontends.onnx.quantising.scoring import scored_tensors

node = helper.make_node
HEAD = [
    node("Conv", ["x", "w"], ["f"]),
    node("Relu", ["f"], ["r"]),
    node("Conv", ["r", "b"], ["raw_boxes"]),
    node("Reshape", ["raw_boxes", "flat"], ["boxes"]),
    node("Conv", ["r", "s"], ["raw_scores"]),
    node("Sigmoid", ["raw_scores"], ["scores"]),
]


def model(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> onnx.ModelProto:
    constants = {name: np.ones((2, 2, 1, 1), np.float32) for name in ("w", "b", "s")} | {
        "flat": np.array([1, -1, 4]),
        "least": np.float32(0.5),
        "m": np.ones((4, 4), np.float32),
    }
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2, 4, 4))],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


CASES = {
    "boxes that are not suppressed": (
        [
            node("NonMaxSuppression", ["boxes", "scores"], ["which"]),
            node("Gather", ["which", "one"], ["place"], axis=1),
            node("Gather", ["boxes", "place"], ["y"], axis=1),
        ],
        ["y"],
        ["boxes", "scores"],
    ),
    "the best few, and all": (
        [
            node("TopK", ["scores", "k"], ["best", "places"]),
            node("GatherElements", ["boxes", "places"], ["kept"]),
            node("Relu", ["kept"], ["y"]),
        ],
        ["best", "y", "raw_boxes"],
        ["scores", "boxes", "raw_boxes"],
    ),
    "what is greater than a number": (
        [
            node("Greater", ["scores", "least"], ["is_found"]),
            node("Not", ["is_found"], ["is_not"]),
            node("NonZero", ["is_not"], ["y"]),
        ],
        ["y"],
        ["scores"],
    ),
    "sizes are no numbers": (
        [
            node("Shape", ["boxes"], ["size"]),
            node("NonZero", ["size"], ["y"]),
            node("Softmax", ["scores"], ["z"]),
        ],
        ["y", "z"],
        ["y", "scores"],
    ),
    "a product behind the choice": (
        [
            node("TopK", ["boxes", "k"], ["best", "places"]),
            node("MatMul", ["best", "m"], ["y"]),
        ],
        ["y"],
        ["y"],
    ),
    "nothing is chosen by what is computed": (
        [node("NonZero", ["flat"], ["n"]), node("Gather", ["boxes", "n"], ["y"])],
        ["y"],
        ["y"],
    ),
}


@pytest.mark.parametrize(("nodes", "outputs", "scored"), CASES.values(), ids=CASES.keys())
def test_errors_are_measured_in_front_of_choices(
    nodes: list[onnx.NodeProto], outputs: list[str], scored: list[str]
) -> None:
    assert scored_tensors(model([*HEAD, *nodes], outputs)) == scored
