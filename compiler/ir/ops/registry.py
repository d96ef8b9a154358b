"""How an operator is defined: once, with its inference, evaluation, traits and attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Any

import numpy as np

from ...errors import InternalError
from ..graph import Graph, Node, Value
from ..types import TensorType

Array = np.ndarray[Any, Any]
Infer = Callable[[Sequence[Value], dict[str, Any]], list[TensorType]]
Evaluate = Callable[[Sequence[Array], dict[str, Any]], list[Array]]


class Trait(Flag):
    """What passes may know of an operator without knowing its name."""

    NONE = 0
    POINTWISE = auto()  # each output element depends on the same (broadcast) element of the inputs
    COMMUTATIVE = auto()
    IDEMPOTENT = auto()  # f(f(x)) == f(x)
    VIEW = auto()  # moves no data: the elements stay in row-major order (reshape)
    INDEX_MAP = auto()  # each output element is one input element, by a static index map
    REDUCTION = auto()
    CONTRACTION = auto()
    POOLING = auto()
    COMPOSITE = auto()  # several kernel stages (softmax, norms, attention)
    CONTROL = auto()  # has regions that run conditionally or repeatedly
    EFFECT = auto()  # never dead, even without outputs


@dataclass(frozen=True)
class OpDef:
    """One operator.

    infer: (input values, attrs) -> output types; raises ValueError with the reason when the
    inputs do not fit. evaluate: numpy semantics (None for control flow, which the reference
    backend runs itself). attrs: name -> default; `REQUIRED` has none.
    """

    name: str
    infer: Infer
    evaluate: Evaluate | None
    traits: Trait = Trait.NONE
    attrs: dict[str, Any] = field(default_factory=dict)


REQUIRED = object()
_OPS: dict[str, OpDef] = {}


def register(definition: OpDef) -> OpDef:
    """Add an operator. Raises InternalError when its name is taken."""
    if definition.name in _OPS:
        raise InternalError(f"operator '{definition.name}' is defined twice")
    _OPS[definition.name] = definition
    return definition


def lookup(name: str) -> OpDef:
    """The operator called `name`. Raises InternalError when there is none."""
    found = _OPS.get(name)
    if found is None:
        raise InternalError(f"there is no operator '{name}'")
    return found


def all_ops() -> dict[str, OpDef]:
    """Every operator by name."""
    return dict(_OPS)


def has_trait(node: Node, trait: Trait) -> bool:
    """Whether the node's operator has any of the given traits."""
    return bool(lookup(node.op).traits & trait)


def make_node(
    op: str,
    inputs: Sequence[Value],
    attrs: dict[str, Any] | None = None,
    *,
    regions: Sequence[Graph] = (),
    types: Sequence[TensorType] | None = None,
    name: str = "",
) -> Node:
    """A node with its outputs made; types are inferred unless given.

    Raises ValueError when the inputs do not fit, InternalError for unknown or missing attributes.
    """
    definition = lookup(op)
    full = dict(definition.attrs)
    for key, value in (attrs or {}).items():
        if key not in full:
            raise InternalError(f"operator '{op}' has no attribute '{key}'")
        full[key] = value
    missing = [key for key, value in full.items() if value is REQUIRED]
    if missing:
        raise InternalError(f"operator '{op}' needs the attribute(s) {missing}")
    result = list(types) if types is not None else definition.infer(inputs, full)
    outputs = [Value(type_, f"{name}" if name else "") for type_ in result]
    return Node(op, inputs, outputs, full, regions, name)


class Builder:
    """Appends nodes to a list and returns their outputs: `b.emit("add", [x, y])`."""

    def __init__(self, nodes: list[Node], name: str = "") -> None:
        self.nodes = nodes
        self.name = name

    def emit(
        self, op: str, inputs: Sequence[Value], attrs: dict[str, Any] | None = None, **more: Any
    ) -> Value:
        """Append a node with one output and return that output."""
        return self.emit_node(op, inputs, attrs, **more).output

    def emit_node(
        self, op: str, inputs: Sequence[Value], attrs: dict[str, Any] | None = None, **more: Any
    ) -> Node:
        """Append a node and return it."""
        node = make_node(op, inputs, attrs, name=self.name, **more)
        self.nodes.append(node)
        return node
