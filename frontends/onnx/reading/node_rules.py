"""Rules for single nodes: number of inputs and outputs, attributes and their ranges."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from ....compiler.errors import InvalidModelError
from .schemas import domain_of, schema_of

_POSITIVE = frozenset({"strides", "dilations", "kernel_shape", "group", "blocksize", "hidden_size"})
_BOUNDED = _POSITIVE | {"pads", "output_padding", "output_shape", "k", "size", "num_groups"}
_LIMIT = 1 << 31


def check_node(
    node: onnx.NodeProto,
    opsets: Mapping[str, int],
    function: onnx.FunctionProto | None,
    in_function: bool,
) -> None:
    """Check one node against the schema of its operator, if it has one.

    Raises InvalidModelError with the node's name.
    """
    texts = [node.op_type, node.name, node.domain, *node.input, *node.output]
    texts += [attribute.name for attribute in node.attribute]
    if not all(isinstance(text, str) for text in texts):  # bytes: not UTF-8
        raise InvalidModelError("a node has a name that is not UTF-8 text")
    if not node.op_type or "\0" in node.op_type:
        raise _wrong(node, "it has no operator")
    _check_attributes(node, in_function)
    if function is not None:
        if len(node.input) > len(function.input) or len(node.output) > len(function.output):
            raise _wrong(node, f"it has more inputs or outputs than function '{function.name}'")
        return
    domain = domain_of(node.domain)
    schema = schema_of(domain, node.op_type, opsets.get(domain, 1))
    if schema is None:
        return
    _count(node, "inputs", len(node.input), schema.min_input, schema.max_input)
    _count(node, "outputs", len(node.output), schema.min_output, schema.max_output)
    given = {attribute.name: attribute for attribute in node.attribute}
    for name, attribute in given.items():
        known = schema.attributes.get(name)
        if known is None:
            raise _wrong(node, f"the operator has no attribute '{name[:60]}'")
        if attribute.type and int(attribute.type) != int(known.type.value):
            raise _wrong(node, f"attribute '{name}' has the wrong type")
    for name, known in schema.attributes.items():
        if known.required and name not in given:
            raise _wrong(node, f"attribute '{name}' is missing")


def _count(node: onnx.NodeProto, what: str, count: int, low: int, high: int) -> None:
    if not low <= count <= high:
        wanted = f"{low}" if low == high else f"{low} to {high}"
        raise _wrong(node, f"it has {count} {what}, the operator takes {wanted}")


def _check_attributes(node: onnx.NodeProto, in_function: bool) -> None:
    seen: set[str] = set()
    for attribute in node.attribute:
        if attribute.name in seen:
            raise _wrong(node, f"attribute '{attribute.name[:60]}' is given twice")
        seen.add(attribute.name)
        if attribute.ref_attr_name and not in_function:
            raise _wrong(node, f"attribute '{attribute.name[:60]}' refers to a function's")
        if attribute.name in _BOUNDED and not attribute.ref_attr_name:
            values = [*attribute.ints] or ([attribute.i] if attribute.HasField("i") else [])
            low = 1 if attribute.name in _POSITIVE else -_LIMIT
            if any(not low <= value < _LIMIT for value in values):
                raise _wrong(node, f"{attribute.name} {values[:8]} is out of range")


def _wrong(node: onnx.NodeProto, why: str) -> InvalidModelError:
    name = (node.name or next(iter(node.output), ""))[:120]
    return InvalidModelError(
        f"node '{name}' ({node.op_type[:60]}) is malformed", why=why, remedy="export it again"
    )
