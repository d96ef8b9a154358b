"""Layer by layer: faults that are planted are found where they are, and noise where it enters."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.backends.llvm import pipeline
from tensmith.compiler.errors import BudgetError, VerificationError
from tensmith.compiler.ir import Graph, constant
from tensmith.driver import layers, probes
from tensmith.driver.compare import Tolerance
from tensmith.driver.layers import ComparedLayer

Array = np.ndarray[Any, Any]
Store = Callable[..., Path]
pytestmark = needs_native


def drawn(*shape: int, seed: int = 0) -> Array:
    numbers = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(numbers / np.sqrt(np.prod(shape[1:])), np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Writes a model x -> nodes -> y, both f32."""

    def save(nodes: list[onnx.NodeProto], constants: dict[str, Array], shape: list[Any]) -> Path:
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path = tmp_path / "net.onnx"
        onnx.save_model(onnx.shape_inference.infer_shapes(model), path)
        return path

    return save


@pytest.fixture
def net(store: Store) -> Path:
    """Three convolutions, then a matrix product; all axes of what lies between have one size."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "v"], ["c"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["c"], ["d"], "sigmoid"),
        helper.make_node("Conv", ["d", "u"], ["e"], "third"),
        helper.make_node("Flatten", ["e"], ["f"], "flat"),
        helper.make_node("MatMul", ["f", "m"], ["y"], "last"),
    ]
    constants = {
        "w": drawn(8, 3, 3, 3),
        "v": drawn(8, 8, 3, 3, seed=1),
        "u": drawn(8, 8, 1, 1, seed=2),
        "m": drawn(512, 5, seed=3),
    }
    return store(nodes, constants, ["batch", 3, 8, 8])


@dataclass(frozen=True)
class Damage:
    """A pass that makes the weights of one operator other numbers."""

    node: str
    name: str = "damage"

    def run(self, graph: Graph) -> bool:
        for node in graph.walk():
            if node.name == self.node and node.op == "conv":
                weights = node.inputs[1]
                assert weights.data is not None
                node.inputs[1] = constant(weights.data * np.float32(1.01), weights.name)
        return True


def labels(layers: list[ComparedLayer]) -> list[tuple[str, str]]:
    return [(" ".join(layer.nodes), layer.tensor) for layer in layers]


def test_all_layers_agree(net: Path) -> None:
    found = tensmith.layers(net)
    assert found.code.status == "passed"
    assert found.error() is None
    assert found.noise is None
    compared = [layer for layer in found.code.layers if layer.model is not None]
    assert list(dict.fromkeys(layer.tensor for layer in compared)) == ["b", "d", "e", "y"]
    assert all(layer.kernel is not None for layer in found.code.layers)
    assert ("second sigmoid", "d") in labels(found.code.layers)
    assert all(layer.decibels is not None and layer.decibels > 100 for layer in compared)


def test_a_wrong_kernel_is_named(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The binary gets other weights than the graph it is made of."""
    write = pipeline.write_weights

    def wrong(plan: Any, path: Path) -> Path:
        for weight in plan.weights:
            if weight.value.name == "v":
                weight.value.data = weight.value.data * np.float32(1.01)
        return write(plan, path)

    monkeypatch.setattr(pipeline, "write_weights", wrong)
    found = tensmith.layers(net)
    first = found.code.first
    assert first is not None
    assert (first.nodes, first.tensor) == (("second", "sigmoid"), "d")
    assert "its kernel computes something else" in first.fault
    assert isinstance(found.error(), VerificationError)
    kernels = [layer.kernel.agrees for layer in found.code.layers if layer.kernel is not None]
    assert kernels.count(False) == 1  # what follows computes what it should, of wrong operands


def test_a_wrong_rewrite_is_told_from_a_wrong_kernel(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = pipeline.optimization_passes
    monkeypatch.setattr(
        pipeline,
        "optimization_passes",
        lambda *given, **more: (*passes(*given, **more), Damage("third")),
    )
    found = tensmith.layers(net)
    first = found.code.first
    assert first is not None
    assert first.tensor == "e"
    assert "third" in first.nodes
    assert "that is not what the model says" in first.fault
    assert all(layer.kernel.agrees for layer in found.code.layers if layer.kernel)


def test_what_does_not_fit_memory_comes_in_parts(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tensmith.layers(net, {"x": drawn(1, 3, 8, 8)}).code
    monkeypatch.setattr(probes, "BATCH_BYTES", 3000)
    parts = tensmith.layers(net, {"x": drawn(1, 3, 8, 8)}).code
    assert labels(parts.layers) == labels(whole.layers)
    assert [layer.kernel for layer in parts.layers] == [layer.kernel for layer in whole.layers]


def test_signed_bytes_are_seen_as_the_model_has_them(store: Store) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantise"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["p", "t", "z"], ["w"]),
        helper.make_node("Conv", ["r", "w"], ["c"], "conv"),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["d"], "requantise"),
        helper.make_node("DequantizeLinear", ["d", "s", "z"], ["e"]),
        helper.make_node("Tanh", ["e"], ["y"], "tanh"),
    ]
    weights = np.random.default_rng(0).integers(-100, 100, (8, 8, 1, 1)).astype(np.int8)
    constants = {"s": np.float32(0.05), "z": np.int8(3), "t": np.float32(0.01), "p": weights}
    found = tensmith.layers(store(nodes, constants, [1, 8, 5, 5])).code
    assert found.status == "passed"
    bytes_of = {layer.tensor: layer for layer in found.layers if layer.tensor in "qd"}
    assert sorted(bytes_of) == ["d", "q"]
    assert bytes_of["q"].decibels == 120.0
    assert bytes_of["d"].decibels is not None
    assert bytes_of["d"].decibels > 40  # some sums fall between two steps


def test_steps_that_roundings_decide_are_no_divergence(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums that lie between two steps go to either side, here by more than is allowed."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantise"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["p", "t", "z"], ["w"]),
        helper.make_node("Conv", ["r", "w"], ["c"], "conv"),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["d"], "requantise"),
        helper.make_node("DequantizeLinear", ["d", "s", "z"], ["y"]),
    ]
    weights = np.random.default_rng(0).integers(-100, 100, (8, 8, 1, 1)).astype(np.int8)
    constants = {"s": np.float32(0.05), "z": np.int8(3), "t": np.float32(0.01), "p": weights}
    path, strict = store(nodes, constants, [1, 8, 5, 5]), Tolerance(1e-4, 1e-6)
    found = tensmith.layers(path, tolerance=strict).code
    assert found.status == "passed"
    monkeypatch.setattr(layers, "RUNS", 1)
    alone = tensmith.layers(path, tolerance=strict).code
    assert alone.first is not None
    assert alone.first.tensor == "d"


def test_what_is_inside_of_a_loop_is_said_to_be_missing(store: Store) -> None:
    constants = {"w": drawn(1, 12, 4), "r": drawn(1, 12, 4, seed=1)}
    nodes = [
        helper.make_node("GRU", ["x", "w", "r"], ["h"], "recurrent", hidden_size=4),
        helper.make_node("Relu", ["h"], ["y"], "relu"),
    ]
    found = tensmith.layers(store(nodes, constants, [3, 2, 4])).code
    assert found.status == "passed"
    assert found.missing == ["what is inside of scan 'recurrent'"]
    assert any("recurrent" in layer.nodes and layer.kernel for layer in found.layers)


def test_time_runs_out(net: Path) -> None:
    found = tensmith.layers(net, {"x": drawn(1, 3, 8, 8)}, time_limit=1e-3)
    assert found.code.status == "incomplete"
    assert isinstance(found.error(), BudgetError)


def test_where_the_error_of_quantising_enters(net: Path) -> None:
    model = onnx.load(net)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "v")
    outlier = numpy_helper.to_array(weights).copy()
    outlier[:, 0, 0, 0] = 20.0  # beside it the others are a step or two
    weights.CopyFrom(numpy_helper.from_array(outlier, "v"))
    onnx.save_model(model, net)
    data = np.random.default_rng(5).standard_normal((6, 1, 3, 8, 8)).astype(np.float32)
    once = ({"x": sample} for sample in data)
    found = tensmith.layers(net, precision="int8", calibration=once)
    assert found.code.status == "passed"
    assert found.noise is not None
    by_node = {noise.node: noise for noise in found.noise.layers}
    assert set(by_node) <= {"first", "second", "third", "last"}
    least = min(by_node.values(), key=lambda noise: noise.own)
    assert found.noise.worst == least
    assert f"'{least.node}'" in found.noise.summary()
    first = by_node["first"]
    assert first.own == pytest.approx(first.total)  # nothing lies before it
    assert by_node["last"].total < by_node["last"].own


def test_weights_of_few_bits_are_told_as_well(store: Store) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "only"),
        helper.make_node("Relu", ["a"], ["y"], "relu"),
    ]
    path = store(nodes, {"w": drawn(256, 256)}, [2, 256])
    found = tensmith.layers(path, {"x": drawn(2, 256)}, precision="int4-weights")
    assert found.code.status == "passed"
    assert found.noise is not None
    assert [noise.node for noise in found.noise.layers] == ["only"]
    assert 10 < found.noise.layers[0].own < 40


def test_the_command(net: Path, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = call("verify", net, "--layers", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["layers"]["code"]["status"] == "passed"
    assert [layer["tensor"] for layer in told["layers"]["code"]["layers"] if layer["tensor"]]
    passes = pipeline.optimization_passes
    monkeypatch.setattr(
        pipeline,
        "optimization_passes",
        lambda *given, **more: (*passes(*given, **more), Damage("second")),
    )
    code, out, err = call("verify", net, "--layers")
    assert code == 4
    assert "'second', 'sigmoid' (tensor 'd')" in out
    assert "a layer of the compiled model diverges" in err
    code, _, err = call("verify", net, "--layers", "--against", "onnxruntime")
    assert code == 2
    assert "compared with the reference" in err
