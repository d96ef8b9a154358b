"""Batch normalisations go into the weights of the convolutions before them, in f64."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from ..origin import node_name
from ..reading.topology import names_used
from .constants import Array, Constants

_EPSILON = 1e-5  # the standard's default


@dataclass(frozen=True)
class Norm:
    """A batch normalisation that was folded. result: its tensor, whose channels had, when the model
    was trained, the means `shift` and the standard deviations `scale` (without sign)."""

    name: str
    result: str
    scale: Array
    shift: Array


def fold_batch_norms(model: onnx.ModelProto) -> list[Norm]:
    """Fold where nothing else reads what lies between; those that were folded, in order."""
    graph, constants = model.graph, Constants(model)
    uses = Counter(name for node in graph.node for name in names_used(node))
    uses.update(info.name for info in graph.output)
    makers = {name: node for node in graph.node for name in node.output}
    folded, found = list[onnx.NodeProto](), list[Norm]()
    for node in graph.node:
        conv = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or uses[conv.output[0]] != 1:
            continue
        known = all(name in constants for name in (*conv.input[1:], *node.input[1:]))
        plain = sum(bool(name) for name in node.output) == 1 and not _trains(node)
        if known and plain and constants.type_of(conv.input[1]) == onnx.TensorProto.FLOAT:
            _fold(graph, constants, conv, node)
            scale, shift = (constants.array(name).astype(np.float64) for name in node.input[1:3])
            found.append(Norm(node_name(node), node.output[0], np.abs(scale), shift))
            folded.append(node)
    for node in folded:
        graph.node.remove(node)
    return found


def _trains(node: onnx.NodeProto) -> bool:
    return any(a.name == "training_mode" and a.i for a in node.attribute)


def _fold(
    graph: onnx.GraphProto, constants: Constants, conv: onnx.NodeProto, norm: onnx.NodeProto
) -> None:
    scale, shift, mean, variance = (
        constants.array(name).astype(np.float64) for name in norm.input[1:5]
    )
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), _EPSILON)
    factor = scale / np.sqrt(variance + epsilon)
    weights = constants.array(conv.input[1]).astype(np.float64)
    bias = constants.array(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else 0.0
    folded = weights * factor.reshape(-1, *(1,) * (weights.ndim - 1))
    names = [conv.input[0], f"{conv.output[0]}_weights", f"{conv.output[0]}_bias"]
    _add(graph, names[1], folded)
    _add(graph, names[2], (bias - mean) * factor + shift)
    del conv.input[:]
    conv.input.extend(names)
    conv.output[0] = norm.output[0]


def _add(graph: onnx.GraphProto, name: str, array: Array) -> None:
    graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
