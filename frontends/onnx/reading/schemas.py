"""What the onnx package knows of operators: arity, attributes, function bodies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import onnx
import onnx.defs
import onnx.helper

from ....compiler.ir import DType, TensorType
from .tensors import DTYPES

DEFAULT = ("", "ai.onnx")
_CODES: dict[DType, int] = {dtype: code for code, dtype in DTYPES.items()}


def domain_of(name: str) -> str:
    """The canonical name of an operator domain: the default one is ''."""
    return "" if name in DEFAULT else name


def opsets_of(model: onnx.ModelProto) -> dict[str, int]:
    """The versions of the operator domains that a model imports.

    One that imports other domains alone has the newest operators of ai.onnx, as in ONNX Runtime.
    """
    found = {domain_of(item.domain): item.version for item in model.opset_import}
    return {"": onnx.defs.onnx_opset_version(), **found} if found else found


@lru_cache(maxsize=4096)
def schema_of(domain: str, op: str, opset: int) -> Any | None:
    """The operator's schema that is in force in an opset version, or None."""
    try:
        return onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return None


def body_of(
    node: onnx.NodeProto, domain: str, opset: int, types: Sequence[TensorType | None]
) -> onnx.FunctionProto | None:
    """The function that the ONNX standard defines an operator by, or None when it has none."""
    schema = schema_of(domain, node.op_type, opset)
    if schema is None:
        return None
    if schema.has_function:
        return onnx.FunctionProto.FromString(schema.function_body.SerializeToString())
    if not schema.has_context_dependent_function:
        return None
    protos = [_type_proto(kind).SerializeToString() for kind in types]
    body = schema.get_context_dependent_function(node.SerializeToString(), protos)
    return onnx.FunctionProto.FromString(body) if body else None


def _type_proto(kind: TensorType | None) -> onnx.TypeProto:
    if kind is None:
        return onnx.TypeProto()
    shape = [dim if isinstance(dim, int) else None for dim in kind.shape]
    return onnx.helper.make_tensor_type_proto(_CODES[kind.dtype], shape)
