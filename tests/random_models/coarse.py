"""Which outputs of a model depend on floats of 16 bits, and how far floats of each type are off."""

from __future__ import annotations

from collections.abc import Iterable

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto

from .builder import Array

TYPES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
# the last bit's relative unit, at most; f32 and f64 are moved by what f32 computations lose
UNITS = {np.dtype(np.float16): 2.0**-10, np.dtype(ml_dtypes.bfloat16): 2.0**-7}
FLOATS = (np.dtype(np.float32), np.dtype(np.float64), *UNITS)
EXACT = ("Shape", "Size")  # what these say of a tensor, its rounding does not change


def coarse_outputs(model: onnx.ModelProto) -> frozenset[str]:
    """Outputs that are computed from floats of 16 bits, or have such elements."""
    graph = model.graph
    coarse = {own.name for own in graph.input if own.type.tensor_type.elem_type in TYPES}
    _visit(graph, coarse)
    return frozenset(own.name for own in graph.output if own.name in coarse)


def _visit(graph: onnx.GraphProto, coarse: set[str]) -> bool:
    """Add the coarse values of a graph to those that it sees; whether it computes any."""
    coarse |= {own.name for own in graph.initializer if own.data_type in TYPES}
    found = False
    for node in graph.node:
        if node.op_type not in EXACT and _is_coarse(node, coarse):
            coarse |= {name for name in node.output if name}
            found = True
    return found or any(own.name in coarse for own in graph.output)


def _is_coarse(node: onnx.NodeProto, coarse: set[str]) -> bool:
    """Whether a node reads or makes coarse values, in its regions or itself."""
    reads = any(name in coarse for name in node.input)
    for own in node.attribute:
        reads |= own.name in ("to", "dtype") and own.i in TYPES
        reads |= own.HasField("t") and own.t.data_type in TYPES
        reads |= any(_visit(inner, set(coarse)) for inner in _regions(own))
    return reads


def _regions(attribute: onnx.AttributeProto) -> Iterable[onnx.GraphProto]:
    return [attribute.g] if attribute.HasField("g") else attribute.graphs


def moved(array: Array, rng: np.random.Generator, noise: float) -> Array:
    """The same array but for rounding: each float by up to a share of it, noise or the unit of its
    type, whichever is larger. Other elements stay."""
    if array.dtype not in FLOATS:
        return array
    share = max(noise, UNITS.get(array.dtype, 0.0))
    wide = array.astype(np.float64) * (1 + share * rng.uniform(-1, 1, array.shape))
    return np.asarray(wide, array.dtype)
