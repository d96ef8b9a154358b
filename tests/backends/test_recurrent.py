"""Compiled recurrent layers whose first states come from all kinds of places."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import Library, Setting, needs_native
from onnx import helper

from tensmith.backends.reference import run_graph
from tensmith.frontends.onnx import load_model

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, BATCH, SIZE, HIDDEN = 4, 3, 5, 6


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.uniform(-1, 1, shape).astype(np.float32)


class Network:
    """A model being written: nodes, constants, inputs with their declared dims."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs: dict[str, tuple[np.ndarray, list[int | str]]] = {}

    def node(self, op: str, inputs: list[str], count: int = 1, **attributes: object) -> list[str]:
        names = [f"v{len(self.nodes)}_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def input(self, name: str, dims: list[int | str]) -> str:
        sizes = [BATCH if dim == "n" else STEPS if dim == "t" else int(dim) for dim in dims]
        self.inputs[name] = floats(self.rng, *sizes), dims
        return name

    def state(self, source: str, name: str, directions: int) -> str:
        """A first state [directions, n, HIDDEN]."""
        wide = [directions, "n", HIDDEN]
        if source == "input":
            return self.input(name, wide)
        if source == "slice":
            x = self.input(name, [2 * directions, "n", HIDDEN])
            ends = [np.int64([n]) for n in (directions, 2 * directions, 0)]
            return self.node("Slice", [x, *map(self.constant, ends)])[0]
        if source == "split":
            x = self.input(name, [directions, "n", 2 * HIDDEN])
            return self.node("Split", [x], 2, axis=2)[1]
        if source == "transposed":
            x = self.input(name, ["n", directions, HIDDEN])
            return self.node("Transpose", [x], perm=[1, 0, 2])[0]
        if source == "computed":
            x = self.input(name, wide)
            return self.node("Tanh", self.node("Add", [x, x]))[0]
        sizes = self.node("Shape", ["x"])[0]
        batch = self.node("Gather", [sizes, self.constant(np.int64([1]))])[0]
        ends = [self.constant(np.int64([n])) for n in (directions, HIDDEN)]
        shape = self.node("Concat", [ends[0], batch, ends[1]], axis=0)[0]
        if source == "zeros":
            return self.node("ConstantOfShape", [shape])[0]
        row = self.constant(floats(self.rng, directions, 1, HIDDEN))
        return self.node("Expand", [row, shape])[0]

    def layer(self, op: str, x: str, size: int, direction: str, states: list[str]) -> list[str]:
        count = 2 if direction == "bidirectional" else 1
        wide = GATES[op] * HIDDEN
        weights = [
            self.constant(floats(self.rng, count, *shape) * np.float32(0.5))
            for shape in ((wide, size), (wide, HIDDEN), (2 * wide,))
        ]
        return self.node(
            op,
            [x, *weights, "", *states],
            3 if op == "LSTM" else 2,
            hidden_size=HIDDEN,
            direction=direction,
        )

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "recurrent",
            [info(name, 1, dims) for name, (_, dims) in self.inputs.items()],
            [info(name, 1, None) for name in outputs],
            [onnx.numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


SOURCES = ("input", "slice", "split", "transposed", "computed", "zeros", "expanded")


def networks() -> Iterator[tuple[str, Network, onnx.ModelProto]]:
    """Two layers, the second of which begins with the first one's last states."""
    for number, source in enumerate((*SOURCES, *SOURCES[:4])):
        op = tuple(GATES)[number % 3]
        direction = "reverse" if number % 4 == 1 else "bidirectional"
        net = Network(number)
        count = 2 if direction == "bidirectional" else 1
        x = net.input("x", ["t", "n", SIZE])
        states = [net.state(source, f"s{i}", count) for i in range(2 if op == "LSTM" else 1)]
        y, *ends = net.layer(op, x, SIZE, direction, states)
        apart = net.node("Transpose", [y], perm=[0, 2, 1, 3])[0]
        flat = net.node("Reshape", [apart, net.constant(np.int64([0, 0, -1]))])[0]
        z, *last = net.layer(op, flat, count * HIDDEN, direction, ends)
        yield f"{number}-{op}-{direction}-{source}", net, net.model([z, *last, ends[-1]])


@needs_native
@pytest.mark.parametrize("level", [0, 2])
def test_states_of_layers(tmp_path: Path, level: int) -> None:
    made = list(networks())
    graphs = {name: load_model(model) for name, _, model in made}
    library = Library(graphs, Setting("native", level), tmp_path)
    wrong = []
    for name, net, model in made:
        inputs = {key: array for key, (array, _) in net.inputs.items()}
        want, got = run_graph(load_model(model), dict(inputs)), library.run(name, inputs)
        try:
            if isinstance(got, Exception):
                raise got
            for output, array in want.items():
                np.testing.assert_allclose(got[output], array, 1e-4, 1e-5, strict=True)
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)
