"""A fault of the compiler is told in terms of the user's model."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import tensmith
from tensmith.compiler.errors import InternalError
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.graph import Node
from tensmith.compiler.kernel.plan.planner import Planner
from tensmith.frontends.onnx.importer import Importer
from tensmith.passes.grouping.fusion import Fusion


@pytest.fixture
def model(tmp_path: Path) -> Path:
    def branch(op: str) -> onnx.GraphProto:
        result = helper.make_tensor_value_info(op, TensorProto.FLOAT, ["n", 4])
        made = helper.make_node(op, ["x"], [op], name=f"inner/{op}")
        return helper.make_graph([made], op, [], [result])

    nodes = [
        helper.make_node(
            "If", ["c"], ["y"], then_branch=branch("Softplus"), else_branch=branch("Relu")
        ),
        helper.make_node("LogSoftmax", ["x"], ["z"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, ["n", 4]), info("c", TensorProto.BOOL, [])],
        [info("y", TensorProto.FLOAT, None), info("z", TensorProto.FLOAT, None)],
    )
    path = tmp_path / "model.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def _fails_at(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, name: str) -> None:
    """Let a method fail where it meets a node called `name`."""

    def broken(self: object, graph: Graph, *rest: object, **more: object) -> bool:
        for node in graph.walk():
            _look(node, name)
        return False

    monkeypatch.setattr(owner, method, broken)


def _look(node: Node, name: str) -> None:
    if node.name == name:
        raise IndexError("list index out of range")


@pytest.mark.parametrize(
    ("name", "result"), [("inner/Softplus", "Softplus"), ("LogSoftmax:z", "z")]
)
def test_fault_of_a_pass(
    monkeypatch: pytest.MonkeyPatch, model: Path, name: str, result: str
) -> None:
    _fails_at(monkeypatch, Fusion, "run", name)
    with pytest.raises(InternalError) as caught:
        tensmith.compile(model)
    error, operator = caught.value, name.partition(":")[0].rpartition("/")[2]
    assert error.what == "pass 'fusion' broke the graph"
    assert f"of the model: {operator} '{name}', which makes '{result}'" in error.where
    assert error.why == "IndexError: list index out of range"
    assert f"tensmith reduce {model}" in error.remedy


def test_fault_behind_the_passes(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    def build(self: Planner) -> None:
        node = next(node for node in self.graph.nodes if node.name == "LogSoftmax:z")
        raise AssertionError(node.op)

    monkeypatch.setattr(Planner, "build", build)
    with pytest.raises(InternalError, match="the stage 'kernels' of the compiler failed") as caught:
        tensmith.compile(model)
    assert "LogSoftmax 'LogSoftmax:z', which makes 'z'" in caught.value.where


def test_fault_of_the_import(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    def lower(self: Importer, node: onnx.NodeProto, *rest: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Importer, "_lower", lower)
    with pytest.raises(InternalError, match=r"the import of node 'If:y' \(If\) failed") as caught:
        tensmith.compile(model)
    assert "tensmith reduce" in caught.value.remedy


@pytest.mark.parametrize("given", ["bytes", "path"])
def test_the_remedy_names_a_file_of_the_user_only(
    monkeypatch: pytest.MonkeyPatch, model: Path, given: str
) -> None:
    def broken(self: Fusion, graph: Graph) -> Graph:
        raise RuntimeError("odd")

    monkeypatch.setattr(Fusion, "run", broken)
    with pytest.raises(InternalError) as failed:
        tensmith.compile(model if given == "path" else model.read_bytes())
    named = "MODEL" if given == "bytes" else str(model)
    assert f"`tensmith reduce {named}`" in failed.value.remedy
