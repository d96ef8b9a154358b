"""What the frontend takes: every operator of the standard, with its versions and element types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx
import onnx.defs

from . import ops as _ops  # noqa: F401  (fills the operator table)
from .reading.schemas import domain_of
from .reading.tensors import DTYPES
from .table import find, is_refused, supported

_SUPPORTED = {
    f"tensor({onnx.TensorProto.DataType.Name(code).lower()})": str(dtype)
    for code, dtype in DTYPES.items()
}


@dataclass(frozen=True)
class Entry:
    """One operator. domain: "" for ai.onnx. versions: in which opsets it changed, from 1 on.

    types: element types of its first input (of its first output when it has none) that are
    supported. lowering: "own", "function" (the standard's definition by other operators) or "none".
    """

    domain: str
    name: str
    versions: tuple[int, ...]
    types: tuple[str, ...]
    lowering: str


def catalog() -> list[Entry]:
    """Every operator that the standard or the operator table has, sorted by domain and name."""
    newest: dict[tuple[str, str], Any] = {}
    versions: dict[tuple[str, str], set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        key = (domain_of(schema.domain), schema.name)
        versions.setdefault(key, set()).add(schema.since_version)
        if key not in newest or newest[key].since_version < schema.since_version:
            newest[key] = schema
    return sorted(_entries(newest, versions), key=lambda entry: (entry.domain, entry.name))


def _entries(
    newest: dict[tuple[str, str], Any], versions: dict[tuple[str, str], set[int]]
) -> Iterator[Entry]:
    for key, schema in newest.items():
        if is_refused(*key):
            lowering = "none"
        elif find(*key):
            lowering = "own"
        elif schema.has_function or schema.has_context_dependent_function:
            lowering = "function"
        else:
            lowering = "none"
        found = tuple(sorted(versions[key]))
        yield Entry(*key, found, _types(schema), lowering)
    for domain, name in supported():
        if (domain, name) not in newest:
            yield Entry(domain, name, (1,), (), "none" if is_refused(domain, name) else "own")


def _types(schema: Any) -> tuple[str, ...]:
    """Names of the element types, in the order of the type table."""
    operands = list(schema.inputs) or list(schema.outputs)
    if not operands:
        return tuple(_SUPPORTED.values())
    allowed = operands[0].types
    return tuple(name for text, name in _SUPPORTED.items() if text in allowed)
