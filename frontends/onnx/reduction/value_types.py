"""Types of the values of a model, so that any of them can become an input."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
from onnx import helper, shape_inference

from ....compiler.errors import TensmithError
from ....compiler.ir import Dim, DType, TensorType
from ..reading.tensors import DTYPES

_CODES = {dtype: code for code, dtype in DTYPES.items()}


def types_of(model: onnx.ModelProto, path: Path) -> dict[str, onnx.ValueInfoProto]:
    """Declarations of values by name: those that onnx infers, over them those of the importer.

    path: a file of the model, its weights beside it.
    """
    found: dict[str, onnx.ValueInfoProto] = {}
    try:
        inferred = shape_inference.infer_shapes(model)
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        inferred = model  # inference refuses what is not sound; declarations do without it
    for info in (*inferred.graph.value_info, *inferred.graph.output, *model.graph.input):
        if info.type.tensor_type.HasField("shape"):
            found[info.name] = info
    for tensor in model.graph.initializer:
        found[tensor.name] = helper.make_tensor_value_info(
            tensor.name, tensor.data_type, list(tensor.dims)
        )
    return found | _imported(path)


def _imported(path: Path) -> dict[str, onnx.ValueInfoProto]:
    from .. import load

    try:
        graph = load(path)
    except (TensmithError, RecursionError, MemoryError):
        return {}  # the import may be what fails
    return {
        value.name: _declaration(value.name, value.type)
        for node in graph.nodes
        for value in node.outputs
        if value.name and value.dtype in _CODES and value.dtype is not DType.BOOL
    }


def _declaration(name: str, kind: TensorType) -> onnx.ValueInfoProto:
    dims = [dim if isinstance(dim, int) else _symbol(dim) for dim in kind.shape]
    return helper.make_tensor_value_info(name, _CODES[kind.dtype], dims)


def _symbol(dim: Dim) -> str:
    return re.sub(r"\W+", "_", str(dim)).strip("_") or "d"
