"""Models with several exits, and what they give for rows, found by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.frontends.onnx.cascading.exits import ExitStages
from tensmith.runtime.loader import Module

Array = np.ndarray[Any, Any]
ROWS, FEATURES, CLASSES, EXITS = 41, 10, 4, ("early", "middle", "late")
X = np.random.default_rng(3).normal(size=(ROWS, FEATURES)).astype(np.float32)


def exits_model(
    path: Path, batch: int | str = "batch", skip: bool = True, fold: bool = False
) -> Path:
    """Three layers with a head each; `late` also reads the first layer's result and the input."""
    rng = np.random.default_rng(7)
    sizes = {"a": (FEATURES, FEATURES), "b": (FEATURES, FEATURES), "c": (FEATURES, FEATURES)}
    sizes |= {f"h{n}": (FEATURES, CLASSES) for n in range(3)}
    weights = {k: rng.normal(size=s).astype(np.float32) * 0.6 for k, s in sizes.items()}
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "a"], ["xa"]), node("Tanh", ["xa"], ["l0"]),
        node("MatMul", ["l0", "h0"], ["early"]),
        node("MatMul", ["l0", "b"], ["lb"]), node("Tanh", ["lb"], ["l1"]),
        node("MatMul", ["l1", "h1"], ["middle"]),
        node("ReduceMax", ["l1"], ["sure1"], axes=[1], keepdims=1),
        node("ReduceMin", ["x"], ["sure0"], axes=[1], keepdims=1),
    ]  # fmt: skip
    if fold:
        weights["shape"] = np.array([-1, FEATURES // 2], np.int64)
        weights["back"] = np.array([-1, FEATURES], np.int64)
        nodes += [
            node("Reshape", ["l1", "shape"], ["folded"]),
            node("MatMul", ["l1", "h1"], ["unused"]),
            node("Reshape", ["folded", "back"], ["l1c"]),
        ]
    nodes += [
        node("MatMul", ["l1", "c"], ["lc"]),
        node("Add", ["lc", "l0"], ["s0"]) if skip else node("Identity", ["lc"], ["s0"]),
        node("Add", ["s0", "x"], ["s1"]) if skip else node("Identity", ["s0"], ["s1"]),
        node("MatMul", ["s1", "h2"], ["late"]),
    ]
    widths = dict.fromkeys(EXITS, CLASSES) | {"sure0": 1, "sure1": 1}
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, width])
        for name, width in widths.items()
    ]
    graph = helper.make_graph(
        nodes, "exits", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, FEATURES])],
        outputs, [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@cache
def whole_model(model: bytes) -> Module:
    """A compiled model; most tests have the same."""
    return tensmith.compile(onnx.load_from_string(model)).load()


def by_hand(model: Path, x: Array, kinds: tuple[str, ...], cuts: tuple[float, float]) -> Any:
    """Answers and exits of rows, by the whole model."""
    told = whole_model(model.read_bytes())({"x": x})
    found, exits = told["late"].copy(), np.full(len(x), 2)
    for stage in (1, 0):
        if kinds[stage % len(kinds)] == "max_softmax":
            powers = np.exp(told[EXITS[stage]])
            sure = (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)
        else:
            sure = told[kinds[stage % len(kinds)]][:, 0]
        chosen = sure >= np.float32(cuts[stage])
        found[chosen], exits[chosen] = told[EXITS[stage]][chosen], stage
    return found, exits


def compiled_exits(stages: ExitStages, cuts: tuple[float, ...], folder: Path) -> Any:
    path = folder / "joined.onnx"
    path.write_bytes(stages.joined(cuts).SerializeToString())
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return tensmith.compile(path).load()


def behind_middle(folder: Path, batch: int | str, nodes: list[onnx.NodeProto]) -> Path:
    """The model with nodes that make `mixed` of `l1` in front of what `late` alone reads."""
    model = onnx.load(exits_model(folder / "m.onnx", batch))
    place = next(n for n, node in enumerate(model.graph.node) if node.output[0] == "lc")
    model.graph.node[place].input[0] = "mixed"
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*rest[:place], *nodes, *rest[place:]])
    shapes = {"two_rows": [-1, 20], "one_row": [-1, 10], "halves": [-1, 5]}
    shapes |= {"five_parts": [-1, 5, 2], "pixels": [-1, 2, 5]}
    numbers = {"zero": [0], "ten": [10], "minus": [-1], "least": [-(2**60)], **shapes}
    for name, value in numbers.items():
        tensor = numpy_helper.from_array(np.array(value, np.int64), name)
        model.graph.initializer.append(tensor)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"
