"""The standard's own evaluator as an engine, and what other engines cannot be compared on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from .reading.wire import read_model

_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
     "RandomUniformLike"}
)  # fmt: skip
# The evaluator is wrong for older versions of Softmax, BatchNormalization and others.
_OLDEST_OPSET = 13
Evaluate = Callable[[Mapping[str, Any]], dict[str, Any]]


def evaluator(path: Path) -> tuple[Evaluate, list[str]]:
    """Runs a model by `onnx.reference`, operator by operator in numpy; which inputs are lists."""
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(str(path))
    names = list(session.output_names)
    types = zip(session.input_names, session.input_types, strict=True)
    lists = [name for name, kind in types if kind.HasField("sequence_type")]
    return lambda inputs: dict(zip(names, session.run(None, dict(inputs)), strict=True)), lists


def incomparable(path: Path, engine: str) -> str | None:
    """Why an engine ("onnxruntime" or "onnx") has nothing to say of a model file, or None."""
    model = read_model(path).model
    graphs = [model.graph.node, *(function.node for function in model.functions)]
    if any(node.op_type in _RANDOM for nodes in graphs for node in _walk(nodes)):
        return "the model draws random numbers, of which every engine has its own"
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if engine == "onnx" and opset < _OLDEST_OPSET:
        return f"onnx's evaluator does not hold for opset {opset}"
    return None


def _walk(nodes: Any) -> Iterator[onnx.NodeProto]:
    """Nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _walk(attribute.g.node)
